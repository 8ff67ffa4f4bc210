"""``run.json`` names the recipe that a run was started from, and a checkpoint every option of its method."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from automix_transfer.io import load_torch, read_json
from automix_transfer.mixing import load_options
from automix_transfer.recipes.find import find_recipe
from automix_transfer.training.loop import train
from automix_transfer.training.record.run_folder import recipe_of


def test_a_recipe_is_known_by_its_file(tmp_path: Path) -> None:
    file = find_recipe("imagenet_r50_automix_100e")
    expected = {"name": "imagenet_r50_automix_100e", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert recipe_of(file) == expected
    copied = tmp_path / file.name
    copied.write_bytes(file.read_bytes())
    assert recipe_of(copied) is None


def test_a_run_keeps_the_recipe_that_it_was_begun_with(experiment, tmp_path: Path) -> None:
    recipe = {"name": "embedded_r10_vanilla", "sha256": "0" * 64}
    train(experiment("train.epochs=1"), recipe=recipe)
    train(experiment("train.epochs=1"), resume=True)
    about = read_json(tmp_path / "run" / "run.json")
    assert about["recipe"] == recipe and [start["from_step"] for start in about["starts"]] == [0, 3]
    train(experiment("train.epochs=1", f"output={tmp_path / 'own'}"))
    assert read_json(tmp_path / "own" / "run.json")["recipe"] is None


def test_a_checkpoint_says_every_option(experiment, tmp_path: Path) -> None:
    """Those that nobody set, too, so that another default of another version changes no old run."""
    train(replace(experiment("train.epochs=1"), method={"name": "mixup", "alpha": 0.2}))
    written = load_torch(tmp_path / "run" / "last.pt")["config"]["method"]
    assert written == {"name": "mixup", **asdict(load_options("mixup", {"alpha": 0.2}))}
