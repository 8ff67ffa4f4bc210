"""The README's five lines run as they stand, and the files that it names exist."""

import re
import tomllib
from pathlib import Path

import torch

from automix_transfer.cli import COMMANDS
from automix_transfer.models import create_encoder
from automix_transfer.recipes.find import RECIPES, find_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_printed():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    encoder = create_encoder("resnet10_32", 5)
    names = {
        "torch": torch,
        "encoder": encoder,
        "loader": [(torch.randn(4, 3, 32, 32), torch.arange(4)) for _ in range(2)],
    }
    exec(code, names)
    assert names["encoder_k"] is names["method"].encoder_k and torch.isfinite(names["loss"])
    assert names["encoder_k"](torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_named_files_exist():
    named = {*re.findall(r"\]\(([\w/.]+)\)", README), "LICENSE"}
    assert len(named) > 3 and [name for name in sorted(named) if not (ROOT / name).exists()] == []
    recipes = set(re.findall(r"--config-file (\w+)", README))
    assert len(recipes) > 2 and all(find_recipe(name).is_file() for name in recipes)
    commands = set(re.findall(r"automix-transfer ([a-z]+) ", README))
    assert len(commands) > 6 and commands <= set(COMMANDS)


def test_the_page_of_an_index_says_what_the_readme_says():
    """It is for readers without a checkout; the example and the commands are the README's."""
    page = (ROOT / "PACKAGE.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n.*?```", README, re.DOTALL)[0]
    assert example in page and "make " not in page and "clone" not in page
    recipes = set(re.findall(r"--config-file (\w+)", page))
    assert len(recipes) > 2 and all(find_recipe(name).is_file() for name in recipes)
    commands = set(re.findall(r"^(?:\w+=\S+ )?automix-transfer ([\w-]+) ", page, re.M))
    assert len(commands) > 7 and commands <= set(COMMANDS)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.*?) \|", page, re.M)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(extras)


def test_every_recipe_names_its_command():
    for folder in ("pretrain", "detection", "finegrained"):
        for file in sorted((RECIPES / folder).glob("*.yaml")):
            if not file.name.startswith("Base-"):
                assert f"--config-file {file.stem} " in file.read_text(encoding="utf-8").split("\n\n")[0], (
                    f"{file} does not name its command"
                )
