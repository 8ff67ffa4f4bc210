"""What only explains, lists or refuses imports no torch, and is as complete as what it stands for."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from automix_transfer.commands import detect, export, localize
from automix_transfer.evaluation.corruptions import NAMES
from automix_transfer.evaluation.corruptions.parameters import CORRUPTIONS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
#: Words that are refused by what the command line alone says.
REFUSED = (
    "nothing",
    "data nothing",
    "pretrain --nothing",
    "pretrain --config-file nothing",
    "pretrain train.epocs=3",
    "finetune --config-file embedded_cub data.roof=x",
    "supermix --config-file nothing --teacher x --output y",
    "detect --config-file nothing",
    "detect --machine-rank 2",
    "detect predict --run x --threshold 2 y.jpg",
    "export --checkpoint x --to nothing --output y",
    "localize --method nothing",
    "localize --scoremaps x",
    "evaluate --weights x --data y --suite nothing",
    "evaluate --weights x --data y --corruptions nothing --suite corruption",
    "report figure nothing --runs x -o y.png",
    "data check --dataset nothing --root x",
    "doctor --nothing",
)
LOOK = """
import json, startup
found = [*startup.every_help()]
for words in {refused!r}:
    found.append((words.split(), startup.ended(words.split())[0] - 2, startup.imported()))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_neither_help_nor_lists_nor_refusals_import_torch(tmp_path: Path) -> None:
    place = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
    code = [sys.executable, "-c", LOOK.format(refused=REFUSED)]
    done = subprocess.run(code, capture_output=True, text=True, env=place, cwd=tmp_path, check=True)
    found = json.loads(done.stdout)
    asked = {" ".join(words) for words, *_ in found}
    assert {"--help", "pretrain --list", "detect compare --help", "report plan --help"} <= asked
    assert {"data --help", "wsol/evaluate.py --help", *REFUSED} <= asked
    assert not [(words, code) for words, code, _ in found if code]
    # a module stays imported, so the first that names it is to blame
    assert not next(((words, heavy) for words, _, heavy in found if heavy), None)


def test_names_that_are_offered_are_those_that_there_are() -> None:
    from automix_transfer.detection.weights.exporter import EXPORTERS
    from automix_transfer.localization.maps.map_formulas import METHODS

    assert localize.METHODS == METHODS
    assert tuple(CORRUPTIONS) == NAMES
    assert {kind: exporter.suffix for kind, exporter in EXPORTERS.items()} == export.KINDS


def test_detect_has_the_flags_of_detectron2() -> None:
    engine = pytest.importorskip("detectron2.engine")
    ours, theirs = (flags(parser) for parser in (detect.parser(), engine.default_argument_parser()))
    assert {name: ours.get(name) for name in theirs} == theirs
    assert all(action.help for action in detect.parser()._actions)


def flags(parser: argparse.ArgumentParser) -> dict[str, tuple[object, ...]]:
    """What an argument takes and gives, by its name."""
    return {
        action.dest: (type(action), action.option_strings, action.type, action.default, action.nargs)
        for action in parser._actions
    }
