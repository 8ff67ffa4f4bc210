"""Accuracy under corruption: made here and on released sets, counted by a loop; what is no such set is
refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError
from automix_transfer.evaluation import evaluate_run as evaluation
from automix_transfer.evaluation.cli import main
from automix_transfer.evaluation.corruptions import NAMES, STANDARD, corrupt
from automix_transfer.evaluation.corruptions.corrupted import relative_error, summarize
from automix_transfer.models import create_encoder, load_encoder
from automix_transfer.signals import Interrupted

MADE = ("contrast", "fog", "gaussian_noise")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clean images of four classes, a network, and both kinds of released set, with the corruptions
    that are made here."""
    folder = tmp_path_factory.mktemp("corrupted")
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(8) // 2
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "clean" / "test" / "abcd"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "clean" / "test" / "abcd"[label] / f"{number}.png")
    (folder / "cifar").mkdir()
    np.save(folder / "cifar" / "labels.npy", np.tile(labels, 5))
    for name in MADE:
        levels = [corrupt(images, name, severity, range(8)) for severity in range(1, 6)]
        np.save(folder / "cifar" / f"{name}.npy", np.concatenate(levels))
        for severity, level in enumerate(levels, start=1):
            for number, (image, label) in enumerate(zip(level, labels, strict=True)):
                place = folder / "imagenet" / name / str(severity) / "abcd"[label]
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(place / f"{number}.png")
    torch.manual_seed(0)
    torch.save(create_encoder("cifar_resnet8", 4).state_dict(), folder / "net.pth")
    return folder


def test_a_corruption_that_lacks_a_severity_is_named(tmp_path: Path) -> None:
    from automix_transfer.evaluation.corruptions.corrupted import released_names

    for severity in range(1, 5):
        (tmp_path / "fog" / str(severity)).mkdir(parents=True)
    with pytest.raises(UserError, match=r"fog/5"):
        released_names(tmp_path, DataConfig(root="x"), ["a"])


def test_each_archive_of_imagenet_c_in_a_folder_of_its_own(tmp_path: Path) -> None:
    from automix_transfer.evaluation.corruptions.corrupted import released_accuracies, released_names

    for name, images in (("fog", 1), ("snow", 2), ("mist", 1)):
        for severity in range(1, 6):
            place = tmp_path / "weather" / name / str(severity) / "a"
            place.mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (9, 9)).save(place / f"{number}.png")
    (tmp_path / "mist").symlink_to(tmp_path / "weather" / "mist")
    config = DataConfig(root="x", image_size=9, workers=0)
    assert released_names(tmp_path, config, ["a"]) == ["snow", "fog"]
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 1))
    said: list[str] = []
    found, images = released_accuracies(network, tmp_path, config, ["a"], 4, said.append)
    assert found == {"snow": [100.0] * 5, "fog": [100.0] * 5} and images == 1
    assert "mist" in said[-2] and "1 to 2 images" in said[-1]


def run(files: Path, output: Path, *more: str) -> dict:
    command = (
        f"--encoder cifar_resnet8 --weights {files / 'net.pth'} --data {files / 'clean'} --batch-size 3 "
        f"--suite corruption --corruptions {','.join(MADE)} --output {output}"
    )
    assert main([*command.split(), *more]) == 0
    return json.loads(output.read_text())


def test_made_and_released_are_counted_the_same(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(files, tmp_path / "made.json")
    assert (
        made["corruption_made"] == "generated"
        and "under corruption (generated, 8 images each)" in capsys.readouterr().out
    )
    for kind in ("cifar", "imagenet"):
        released = run(files, tmp_path / f"{kind}.json", "--corrupted", str(files / kind))
        assert released["corruption"] == made["corruption"] and released["corruption_made"] == str(
            files / kind
        )
        assert released["corruption_images"] == made["corruption_images"] == 8
    for file in (files / "cifar").iterdir():  # a released set has a size of its own
        (tmp_path / "half").mkdir(exist_ok=True)
        np.save(tmp_path / "half" / file.name, np.load(file)[::2])
    half = run(files, tmp_path / "half.json", "--corrupted", str(tmp_path / "half"))
    assert (half["images"], half["corruption_images"]) == (8, 4)
    encoder, info = load_encoder(files / "net.pth", "cifar_resnet8")
    images, labels = np.load(files / "cifar" / "fog.npy")[16:24], torch.arange(8) // 2
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = encoder(
            (pixels - torch.tensor(info.mean).view(3, 1, 1)) / torch.tensor(info.std).view(3, 1, 1)
        )
    assert made["corruption"]["fog"][2] == 100 * float((logits.argmax(1) == labels).float().mean())


def test_an_interruption_keeps_the_parts_that_are_measured(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same suite but for them adds the rest."""

    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    output = tmp_path / "out.json"
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "released_accuracies", interrupted)
        with pytest.raises(Interrupted, match="out.json") as stopped:
            run(files, output, "--suite", "clean,corruption", "--corrupted", str(files / "cifar"))
    assert stopped.value.code == 143
    found = json.loads(output.read_text())
    assert "top1" in found and "corruption" not in found and found["about"]["suite"] == ["clean"]
    whole = run(files, output, "--suite", "corruption", "--corrupted", str(files / "cifar"))
    assert whole["top1"] == found["top1"] and "corruption" in whole


def test_relative_to_a_baseline(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "base.json")
    assert run(files, tmp_path / "same.json", "--baseline", str(tmp_path / "base.json"))[
        "corruption_relative_error"
    ] == pytest.approx(100)
    assert relative_error({"fog": [90, 80]}, {"fog": [80, 60]}) == pytest.approx(50)
    with pytest.raises(UserError, match="'fog' at 2"):
        relative_error({"fog": [90, 80]}, {"snow": [80, 60]})
    with pytest.raises(UserError, match="no error under 'fog'"):
        relative_error({"fog": [90]}, {"fog": [100]})


@pytest.mark.parametrize(
    "row", [None, [50.0] * 4, 5, [50.0, 50.0, 50.0, 50.0, "x"], [float("nan")] * 5, [-1.0] * 5, "abcde"]
)
@pytest.mark.parametrize("released", [False, True])
def test_a_baseline_that_does_not_fit_is_noticed_before_the_evaluation(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row, released: bool
) -> None:
    content = {name: [50.0] * 5 for name in MADE}
    content["fog"] = row
    (tmp_path / "base.json").write_text(json.dumps({"corruption": content}))
    for name in ("evaluate_suite", "released_accuracies"):
        monkeypatch.setattr(evaluation, name, lambda *_: pytest.fail("the evaluation was started"))
    with pytest.raises(UserError, match="'fog' at 5"):
        run(
            files,
            tmp_path / "out.json",
            "--baseline",
            str(tmp_path / "base.json"),
            *(["--corrupted", str(files / "cifar")] if released else []),
        )


def test_means_are_given_where_all_corruptions_are_there() -> None:
    assert "corruption_top1_15" not in summarize({"fog": [1.0] * 5}, "x", 7)
    figures = summarize({name: [float(number)] * 5 for number, name in enumerate(NAMES)}, "x", 7)
    assert figures["corruption_top1_15"] == 7 and figures["corruption_top1_19"] == 9 and len(STANDARD) == 15


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: (d / "labels.npy").write_bytes(b"x"), "labels.npy is damaged"),
        (lambda d: np.save(d / "labels.npy", np.zeros((5, 8), int)), "in 1 dimension"),
        (lambda d: np.save(d / "fog.npy", np.zeros((40, 32, 32, 3))), "fog.npy is float64"),
        (lambda d: np.save(d / "fog.npy", np.zeros((39, 32, 32, 3), np.uint8)), "expected uint8 \\(40"),
        (lambda d: np.save(d / "fog.npy", np.array([{}]), allow_pickle=True), "fog.npy "),
        (
            lambda d: np.save(d / "labels.npy", np.arange(40) % 5),
            "has labels 0 to 4, but the network has 4 classes, 0 to 3",
        ),
        (lambda d: np.save(d / "labels.npy", np.arange(40) % 2), "has labels 0 to 1, but"),
        (lambda d: np.save(d / "labels.npy", np.arange(40) % 4 - 1), "has labels -1 to 2, but"),
        (lambda d: [np.save(f, np.load(f)[:0]) for f in d.glob("*.npy")], "has no label, but"),
        (lambda d: (d / "labels.npy").unlink(), "holds no corruption"),
        (
            lambda d: (
                [file.unlink() for file in d.glob("*_*.npy")]
                + [(d / n).unlink() for n in ("fog.npy", "contrast.npy")]
            ),
            "none of gaussian",
        ),
    ],
)
def test_damaged_sets(files: Path, tmp_path: Path, change, words: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for file in (files / "cifar").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    change(folder)
    with pytest.raises(UserError, match=words):
        run(files, tmp_path / "out.json", "--corrupted", str(folder))


def test_options_that_do_not_fit(files: Path, tmp_path: Path) -> None:
    for more, words in (
        (["--corruptions", "rain"], "'rain' is unknown"),
        (["--corrupted", str(tmp_path / "none")], "must be a folder"),
        (["--corrupted", str(files / "cifar"), "--suite", "clean"], "must name corruption"),
        (
            ["--corrupted", str(files / "cifar"), "--image-size", "16"],
            "of 32 x 32 pixels.*network is given 16",
        ),
        (["--corrupted", str(files / "cifar"), "--limit", "4"], "--limit 4 .* leave one"),
        (["--baseline", str(tmp_path / "none.json")], r"none\.json"),
    ):
        with pytest.raises(UserError, match=words):
            run(files, tmp_path / "out.json", *more)
    (files / "imagenet" / "fog" / "1" / "e").mkdir()
    Image.new("RGB", (32, 32)).save(files / "imagenet" / "fog" / "1" / "e" / "x.png")
    with pytest.raises(UserError, match="fog/1 "):
        run(files, tmp_path / "out.json", "--corrupted", str(files / "imagenet"))
