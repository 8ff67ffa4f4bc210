"""A recipe is found by its bare name, and a file by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from automix_transfer.errors import RenamedWarning, UserError
from automix_transfer.recipes import find
from automix_transfer.recipes.find import RECIPES, find_recipe
from automix_transfer.training.settings import load_experiment


@pytest.mark.parametrize("name", ["imagenet_r50_automix_100e", "imagenet_r50_automix_100e.yaml"])
def test_a_bare_name_is_a_recipe(name: str) -> None:
    assert (
        find_recipe(name) == find_recipe(name, "pretrain") == RECIPES / "pretrain" / f"{Path(name).stem}.yaml"
    )
    assert find_recipe("voc_R50_C4_24k") == RECIPES / "detection" / "voc_R50_C4_24k.yaml"


def test_the_commands_own_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "RECIPES", tmp_path)
    for folder in ("pretrain", "finegrained"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "both.yaml").touch()
    (tmp_path / "pretrain" / "one.yaml").touch()
    assert find_recipe("both", "finegrained", "pretrain") == tmp_path / "finegrained" / "both.yaml"
    assert find_recipe("both", "pretrain", "finegrained") == tmp_path / "pretrain" / "both.yaml"
    assert find_recipe("one", "finegrained", "pretrain") == tmp_path / "pretrain" / "one.yaml"


def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("cifar10_r18_vanilla.yaml")
    mine.touch()
    assert find_recipe(mine.name) == mine  # a file here wins over a recipe
    assert find_recipe(tmp_path / mine) == tmp_path / mine
    assert find_recipe("no/such.yaml") == Path("no/such.yaml")  # whoever reads it says so


def test_an_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(UserError, match="imagenet_r50_automix_100e"):
        find_recipe("imagenet_r50_automx_100e", "pretrain")
    with pytest.raises(UserError, match="zzz.*recipes"):
        find_recipe("zzz", "detection")


def test_a_file_of_ones_own_builds_on_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: cub_r18_automix\ntrain: {epochs: 3}\n")
    experiment = load_experiment([tmp_path / "mine.yaml"], ["data.root=x"])
    assert (experiment.train.epochs, experiment.data.dataset) == (3, "cub")


def test_where_recipes_lay_before_still_works(tmp_path: Path) -> None:
    old = "detection/configs/embedded_R10_FPN.yaml"
    with pytest.warns(RenamedWarning, match=f"{old} is now called embedded_R10_FPN;"):
        assert find_recipe(old) == RECIPES / "detection" / "embedded_R10_FPN.yaml"
    with pytest.warns(RenamedWarning, match="cifar10_r18_vanilla"):
        assert find_recipe(tmp_path / "pretrain" / "configs" / "cifar10_r18_vanilla.yaml").is_file()
    assert not find_recipe("other/configs/cifar10_r18_vanilla.yaml").exists()
