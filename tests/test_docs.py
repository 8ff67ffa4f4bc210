"""The pages of the documentation: no link leads nowhere, and all that is public has its place."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from automix_transfer.errors import UserError
from automix_transfer.mixing.table import METHODS
from automix_transfer.recipes.find import RECIPES

ROOT = Path(__file__).parents[1]


def load_site():
    spec = importlib.util.spec_from_file_location("pages_of_docs", ROOT / "docs" / "pages.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site = load_site()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every page as Sphinx reads it."""
    target = tmp_path_factory.mktemp("docs")
    return {page: (target / f"{page}.md").read_text(encoding="utf-8") for page in site.assemble(target)}


def test_every_page_stands_in_the_table_of_contents(pages: dict[str, str]) -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", pages["index"], re.DOTALL)
    lines = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    listed = [line.partition("<")[2].rstrip(">") or line for line in lines]
    assert len(listed) == len(set(listed)) > 10
    assert {page for page in pages if "/" not in page} - {"index"} == set(listed) - {"results/*"}


def test_recipes_and_methods_have_their_line(pages: dict[str, str]) -> None:
    for folder in ("pretrain", "finegrained", "detection"):
        for file in (RECIPES / folder).glob("*.yaml"):
            assert f"| `{file.stem}` |" in pages["recipes"] or file.stem.startswith("Base-"), file
    for name, entry in METHODS.items():
        _, heading, about = pages["methods"].partition(f"\n## {entry.title}\n\n`method.name={name}`")
        assert heading
        about = about.partition("\n## ")[0]
        shared = () if name == "vanilla" else ("loss", "smoothing", "bce_threshold")
        for option in set(vars(entry.options_class()())).difference(shared):
            assert re.search(rf"^\| `{option}` \| `.*` \| .+ \|$", about, re.MULTILINE), f"{name}: {option}"


def test_names_that_modules_offer_are_public_and_have_a_place(pages: dict[str, str]) -> None:
    for module in ("mixing.public", "models", "export", "localization"):
        package = f"automix_transfer.{module.removesuffix('.public')}"
        for name in importlib.import_module(f"automix_transfer.{module}").__all__:
            assert f"| `{package}.{name}` |" in pages["api"], f"{package}.{name}"
            assert re.search(rf"(:: |`){package}.{name}\b", pages["python"]), f"{package}.{name}"


def test_a_link_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(site.GENERATED, "recipes", lambda: "[all](nowhere.md) and ![one](methods.png)")
    with pytest.raises(UserError, match=r"nowhere\.md") as told:
        site.assemble(tmp_path)
    assert "methods.png" not in str(told.value)
