"""Old names work for one minor version, with a warning that says the new one."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from automix_transfer import __version__
from automix_transfer.errors import RenamedWarning, warn_renamed
from automix_transfer.mixing.automix.options import RENAMED_PRESETS
from automix_transfer.training.settings import load_experiment

ROOT = Path(__file__).parents[1]
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_warning_says_the_new_name_and_how_long_the_old_one_works() -> None:
    with pytest.warns(RenamedWarning) as caught:
        warn_renamed("train.speed=9", "train.pace=9")
    [said] = caught
    found = re.fullmatch(
        r"train\.speed=9 is now called train\.pace=9; .* until version (\d+)\.(\d+)", str(said.message)
    )
    assert found, said.message
    # where this fails, the old names have had their minor version: remove them
    assert tuple(map(int, __version__.split(".")[:2])) < tuple(map(int, found.groups()))
    assert issubclass(RenamedWarning, FutureWarning)  # shown by default, unlike a DeprecationWarning


@pytest.mark.parametrize("old, new", RENAMED_PRESETS.items())
def test_presets(old: str, new: str) -> None:
    assert f"`method.preset={old}` | `method.preset={new}`" in CHANGES
    with pytest.warns(RenamedWarning, match=f"preset={old} is now called method.preset={new};"):
        experiment = load_experiment(overrides=["data.root=.", "method.name=automix", f"method.preset={old}"])
    assert experiment.method["preset"] == new


def test_config_files_at_their_old_places(tmp_path: Path) -> None:
    """Named by another file, too; `tests/recipes/test_find.py` has the command line."""
    pytest.importorskip("detectron2")
    from automix_transfer.detection.config import default_config
    from automix_transfer.detection.config_files import merge_file

    (tmp_path / "own.yaml").write_text("base: ../pretrain/configs/embedded_r10_vanilla.yaml\n")
    with pytest.warns(RenamedWarning, match="embedded_r10_vanilla"):
        assert load_experiment([tmp_path / "own.yaml"], ["data.root=."]).encoder.name == "resnet10_32"
    for base in ("../detection/configs/Base-RCNN-FPN.yaml", "Base-RCNN-FPN"):
        (tmp_path / "own.yaml").write_text(f"_BASE_: {base}\n")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert "MODEL.FPN.IN_FEATURES" in merge_file(default_config(), tmp_path / "own.yaml")
        assert [warning.category for warning in caught] == [RenamedWarning] * ("configs" in base)


def test_the_version_is_said_once_and_the_same() -> None:
    """The changelog begins with it, or with what comes after it, and it is what is cited."""
    assert re.findall(r"^## \[(.*?)\]", CHANGES, re.M)[0] in (__version__, "Unreleased")
    assert f"\n## [{__version__}] - " in CHANGES
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("module, command", [("report", "report"), ("data.pack", "data pack")])
def test_modules_that_were_commands(module: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"automix_transfer.{module}", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: automix-transfer"), done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(
        f"warning: python -m automix_transfer.{module} is now called automix-transfer {command};"
    )
