"""SuperMix offline: the masks, the folder, going on after an interruption, and the data set that reads it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from automix_transfer.commands.write_supermix import main as write_supermix_main
from automix_transfer.data.layouts.mixed_offline import WithMixed, read_mixed
from automix_transfer.data.splits import train_dataset
from automix_transfer.errors import UserError
from automix_transfer.export.supermix_writer import finish, kept, write_supermix
from automix_transfer.mixing.methods.supermix import (
    SuperMix,
    SuperMixOptions,
    gaussian,
    normalized_masks,
    smoothed,
)
from automix_transfer.models import create_encoder
from automix_transfer.training.loop import train
from automix_transfer.training.settings import Experiment, load_experiment
from tests.training.tiny import FAST, write_images


class Colours(torch.nn.Module):
    """A teacher that sees which of three channels is brightest."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 4 * images.mean(dim=(2, 3))


def coloured(count: int) -> torch.Tensor:
    """Images of one colour each."""
    return torch.eye(3)[torch.arange(count) % 3].view(count, 3, 1, 1).expand(count, 3, 16, 16).clone()


def test_masks_are_shares_and_decide_as_the_target_asks() -> None:
    method = SuperMix(Colours(), SuperMixOptions(mask_size=4))
    draw = method.draw(6, (16, 16), torch.Generator().manual_seed(0))
    mixed = method.mix(coloured(6), torch.zeros(6), draw)
    assert torch.allclose(mixed.masks.sum(dim=1), torch.ones(6, 16, 16), atol=1e-6)
    assert torch.allclose(mixed.targets.sum(dim=1), torch.ones(6))
    parts = coloured(6)[draw.members]
    assert torch.allclose(mixed.images, (mixed.masks.unsqueeze(2) * parts).sum(dim=1))
    assert (draw.members[:, 0] != draw.members[:, 1]).all() and torch.allclose(
        draw.shares.sum(dim=1), torch.ones(6)
    )
    assert mixed.success.any()
    for n in mixed.success.nonzero().flatten().tolist():
        shown = Colours()(mixed.images[n : n + 1]).topk(int((mixed.targets[n] > 0).sum())).indices[0].tolist()
        assert sorted(shown) == (mixed.targets[n] > 0).nonzero().flatten().tolist()


def test_equal_images_stay_what_they_are() -> None:
    image = torch.rand(1, 3, 8, 8).expand(4, 3, 8, 8).clone()
    method = SuperMix(Colours(), SuperMixOptions(mask_size=2, iterations=2))
    mixed = method.mix(image, torch.zeros(4), method.draw(4, (8, 8), torch.Generator().manual_seed(0)))
    assert torch.allclose(mixed.images, image, atol=1e-6)


def test_smoothing_keeps_the_sum_and_masks_begin_equal() -> None:
    assert (
        gaussian(1).shape == (5,)
        and gaussian(2.0).sum().item() == pytest.approx(1)
        and gaussian(0).tolist() == [1.0]
    )
    spike = torch.zeros(1, 2, 9, 9)
    spike[0, 0, 4, 4] = 1
    assert smoothed(spike, gaussian(1.0)).sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(normalized_masks(torch.zeros(2, 3, 4, 4), (7, 9)), torch.full((2, 3, 7, 9), 1 / 3))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path, list[str]]:
    root = write_images(tmp_path_factory.mktemp("images"), train=24, val=6)
    teacher = root / "teacher.pth"
    torch.manual_seed(0)
    torch.save(create_encoder("resnet10_32", 3).state_dict(), teacher)
    said = [*FAST, f"data.root={root}", "method.name=supermix", "method.iterations=3", "method.enough=0.3"]
    return load_experiment(overrides=said), teacher, said


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_interrupted_data_set_ends_with_the_same_files(
    setting: tuple[Experiment, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    experiment, teacher, _ = setting
    assert (
        write_supermix(experiment, str(teacher), tmp_path / "a", count=10, teacher_name="resnet10_32")
        == tmp_path / "a"
    )
    assert (
        write_supermix(
            experiment, str(teacher), tmp_path / "b", count=10, teacher_name="resnet10_32", max_batches=1
        )
        is None
    )
    assert not (tmp_path / "b" / "mixed.json").exists()
    next((tmp_path / "b" / "images").iterdir()).unlink()  # its batch is mixed again
    with pytest.raises(UserError, match="no finished mixed data set"):
        read_mixed(tmp_path / "b", ["x"])
    write_supermix(experiment, str(teacher), tmp_path / "b", count=10, teacher_name="resnet10_32")
    whole, resumed = fingerprint(tmp_path / "a"), fingerprint(tmp_path / "b")
    assert whole == resumed and sum(name.endswith(".png") for name in whole) >= 10
    assert "min left" in capsys.readouterr().out
    # finished: nothing to do
    write_supermix(experiment, str(teacher), tmp_path / "b", count=10, teacher_name="resnet10_32")
    next((tmp_path / "b" / "images").iterdir()).unlink()
    with pytest.raises(UserError, match="1 of the 10 images .* are gone"):
        write_supermix(experiment, str(teacher), tmp_path / "b", count=10, teacher_name="resnet10_32")
    with pytest.raises(UserError, match="begun with another count"):
        write_supermix(experiment, str(teacher), tmp_path / "b", count=11, teacher_name="resnet10_32")


def test_it_is_read_and_trained_on(setting: tuple[Experiment, Path, list[str]], tmp_path: Path) -> None:
    experiment, teacher, said = setting
    folder = tmp_path / "mixed"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: {name: supermix}\n")
    command = [
        "--config-file",
        str(recipe),
        "--teacher",
        str(teacher),
        "--teacher-name",
        "resnet10_32",
        "--output",
        str(folder),
    ]
    assert write_supermix_main([*command, "--count", "6", *said]) == 0
    experiment = load_experiment(
        overrides=[*said, f"data.mixed={folder}", f"output={tmp_path / 'run'}", "train.epochs=1"]
    )
    dataset = train_dataset(experiment.data)
    assert isinstance(dataset, WithMixed) and len(dataset) == 24 + 6
    image, label, index = dataset[(0, 25)]
    assert (
        image.shape == (3, 32, 32)
        and label.shape == (3,)
        and label.sum().item() == pytest.approx(1, abs=1e-5)
        and index == 25
    )
    assert dataset[(0, 0)][1].tolist() == torch.eye(3)[int(dataset.labels[0])].tolist()
    assert np.load(folder / "soft_labels.npy").shape == (6, 3)
    metrics = train(experiment)
    assert metrics["steps"] == 30 // 8


def test_broken_folders_are_named(setting: tuple[Experiment, Path, list[str]], tmp_path: Path) -> None:
    def written(about: dict, labels: np.ndarray | None) -> Path:
        (tmp_path / "mixed.json").write_text(json.dumps(about))
        if labels is not None:
            np.save(tmp_path / "soft_labels.npy", labels)
        return tmp_path

    good = {"format": "automix_transfer/mixed/1", "classes": ["a", "b"], "files": ["x.png"]}
    row = np.array([[0.5, 0.5]], np.float32)
    with pytest.raises(UserError, match=r"x\.png"):
        read_mixed(written(good, row), ["a", "b"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").touch()
    read_mixed(written(good, row), ["a", "b"])
    for about, labels, words in [
        ({**good, "format": "?"}, row, "not of format"),
        (good, row.astype(float), "float32"),
        (good, 2 * row, "adding up to 1"),
        ({**good, "files": []}, row, "0 images of 2 classes"),
        ({**good, "classes": ["a", "c"]}, row, "other classes than the 2"),
    ]:
        with pytest.raises(UserError, match=words):
            read_mixed(written(about, labels), ["a", "b"])
    (written(good, None) / "soft_labels.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="soft_labels.npy"):
        read_mixed(tmp_path, ["a", "b"])
    experiment, teacher, _ = setting
    with pytest.raises(UserError, match="not empty"):
        write_supermix(experiment, str(teacher), tmp_path, teacher_name="resnet10_32")
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(UserError, match=r"plan\.json"):
        write_supermix(experiment, str(teacher), tmp_path, teacher_name="resnet10_32")


@pytest.mark.parametrize(
    ("name", "values"),
    [("notes", row := np.zeros((1, 3), np.float32)), ("000000", np.array([{}])), ("000000", row[0])],
    ids=["a foreign name", "objects", "no rows"],
)
def test_parts_that_are_none(tmp_path: Path, name: str, values: np.ndarray) -> None:
    (tmp_path / "parts").mkdir()
    np.save(tmp_path / "parts" / f"{name}.npy", values, allow_pickle=True)
    for read in (kept, lambda folder: finish(folder, {"classes": ["a", "b"]}, 0)):
        with pytest.raises(UserError, match=rf"{name}\.npy"):
            read(tmp_path)
    (tmp_path / "parts" / f"{name}.npy").unlink()
    np.save(tmp_path / "parts" / "000001.npy", np.zeros((1, 3), np.float32))  # of three classes
    with pytest.raises(UserError, match=r"000001\.npy"):
        finish(tmp_path, {"classes": ["a", "b"]}, 0)
