"""Every command that a document shows exists, takes these flags, and knows these recipes and keys."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from automix_transfer.cli import SUBCOMMANDS, command_of, main
from automix_transfer.commands.finetune import PROTOCOL
from automix_transfer.commands.pretrain import build_parser
from automix_transfer.recipes.find import find_recipe
from automix_transfer.training.settings import load_experiment

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    file.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "*/README.md")
    for file in ROOT.glob(pattern)
    if file.name != "CHANGELOG.md"  # which names what is gone
)
#: commands of two words
DEEPER = {**SUBCOMMANDS, "report": ("page", "tables", "plan", "run", "figure", "table")}


def commands(text: str) -> list[list[str]]:
    """The words behind ``automix-transfer`` of every command in fences, and of those in a sentence."""
    fences = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line for fence in fences for line in fence.replace("\\\n", " ").splitlines()]
    found = [
        re.match(r"(?:\w+=\S+ |torchrun .*--no-python (?:-- )?)*automix-transfer (.+)", line.strip())
        for line in lines
    ]
    said = re.findall(r"(?<!`)`automix-transfer ([^`]+)`", text)
    words = [shlex.split(line[1], comments=True) for line in found if line]
    return words + [line.split() for line in said if "COMMAND" not in line]


@cache
def help_of(*words: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert not ended.value.code
    return said.getvalue()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist_and_take_these_flags(document: str) -> None:
    for words in commands((ROOT / document).read_text(encoding="utf-8")):
        if words[0].startswith("-"):
            continue
        command_of(words)
        name = words[:2] if words[1:2] and words[1] in DEEPER.get(words[0], ()) else words[:1]
        for flag in (word for word in words if re.match(r"--?[a-z]", word)):
            assert re.search(rf"{flag.partition('=')[0]}\b", help_of(*name)), f"{document}: {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_recipes_and_keys_exist(document: str) -> None:
    for words in commands((ROOT / document).read_text(encoding="utf-8")):
        if words[0] in ("pretrain", "finetune") and "--list" not in words:
            given = build_parser(words[0], None).parse_intermixed_args(words[1:])
            files = [PROTOCOL] if words[0] == "finetune" else []
            if given.config_file not in (None, "..."):
                files.append(find_recipe(given.config_file))
            said = [text for text in given.overrides if text != "..."]
            load_experiment(files, ["data.root=left_out", *said])
        elif "--config-file" in words and words[0] == "detect":
            check_detector(find_recipe(words[words.index("--config-file") + 1], "detection"), words)


def check_detector(recipe: Path, words: list[str]) -> None:
    """Keys in capitals and the word behind each."""
    pytest.importorskip("detectron2")
    from automix_transfer.detection.config import default_config
    from automix_transfer.detection.config_files import merge_file, merge_overrides

    config = default_config()
    merge_file(config, recipe)
    for key, value in zip(words, words[1:], strict=False):
        if re.fullmatch(r"[A-Z][A-Z_0-9]*(\.[A-Z_0-9]+)+|OUTPUT_DIR|SEED", key):
            merge_overrides(config, [key, value])


def test_an_unknown_flag_is_found() -> None:
    text = "```\nA=1 automix-transfer evaluate --run runs/a \\\n    --tea 3  # no such thing\n```"
    assert commands(text) == [["evaluate", "--run", "runs/a", "--tea", "3"]]
    assert "--run" in help_of("evaluate") and "--tea" not in help_of("evaluate")
