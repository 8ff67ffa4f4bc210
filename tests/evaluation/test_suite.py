"""The suite on small networks against plain loops, on the fixed networks against their published figures, and
its command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from automix_transfer.data.loader import eval_loader
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.attacks import OfPixels, fgsm, pgd
from automix_transfer.evaluation.cli import main
from automix_transfer.evaluation.corruptions import corrupt
from automix_transfer.evaluation.opened import open_run
from automix_transfer.evaluation.suite import SuiteOptions, evaluate_suite
from automix_transfer.export import export
from automix_transfer.models import create_encoder, load_encoder
from automix_transfer.rng import derive_generator
from automix_transfer.training.distributed import World
from automix_transfer.training.validation import evaluate
from tests.evaluation.small_runs import write_images, write_run

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def network() -> OfPixels:
    torch.manual_seed(0)
    return OfPixels(create_encoder("cifar_resnet8", 4).eval(), MEAN, STD)


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pixels = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pixels[0], pixels[1] = 0, 1  # at the border of the range
    return pixels, torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([5, 3, 8, 1, 0, 9])


def one_step(network: nn.Module, pixel: torch.Tensor, label: int, size: float) -> torch.Tensor:
    pixel = pixel.clone().requires_grad_()
    F.cross_entropy(network(pixel[None]), torch.tensor([label])).backward()
    return pixel.detach() + size * pixel.grad.sign()


def test_fgsm_is_one_signed_step_of_each_image(network: OfPixels, batch) -> None:
    pixels, labels, _ = batch
    network.zero_grad()
    found = fgsm(network, pixels, labels, epsilon=0.03)
    assert all(parameter.grad is None for parameter in network.parameters())
    for i in range(len(pixels)):
        torch.testing.assert_close(
            found[i], one_step(network, pixels[i], int(labels[i]), 0.03).clamp(0, 1), atol=1e-6, rtol=0
        )


def test_pgd_stays_in_the_ball_and_follows_its_steps(network: OfPixels, batch) -> None:
    pixels, labels, indices = batch
    found = pgd(network, pixels, labels, indices, epsilon=0.03, steps=3, step_size=0.02, seed=4)
    assert (found - pixels).abs().max() <= 0.03 + 1e-6 and found.min() >= 0 and found.max() <= 1
    for i in range(len(pixels)):
        noise = 2 * torch.rand(pixels.shape[1:], generator=derive_generator(4, "pgd", int(indices[i]))) - 1
        one = (pixels[i] + 0.03 * noise).clamp(0, 1)
        for _ in range(3):
            one = one_step(network, one, int(labels[i]), 0.02)
            one = torch.minimum(torch.maximum(one, pixels[i] - 0.03), pixels[i] + 0.03).clamp(0, 1)
        torch.testing.assert_close(found[i], one, atol=1e-5, rtol=0)
    halves = [
        pgd(network, pixels[s], labels[s], indices[s], epsilon=0.03, steps=1, seed=4)
        for s in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(
        torch.cat(halves),
        pgd(network, pixels, labels, indices, epsilon=0.03, steps=1, seed=4),
        atol=1e-6,
        rtol=0,
    )


def test_the_suite_counts_what_a_loop_counts(network: OfPixels, batch) -> None:
    pixels, labels, indices = batch
    images = (pixels - network.mean) / network.std
    loader = [(images[:4], labels[:4], indices[:4]), (images[4:], labels[4:], indices[4:])]
    network.encoder.train()
    options = SuiteOptions(("clean", "calibration", "fgsm", "pgd"), epsilon=0.05, pgd_steps=2)
    found = evaluate_suite(network.encoder, loader, MEAN, STD, options)
    assert network.encoder.training
    network.encoder.eval()
    assert found["images"] == 6 and found["top5"] == 100
    assert found["top1"] == pytest.approx(100 * float((network(pixels).argmax(1) == labels).float().mean()))
    attacked = fgsm(network, pixels, labels, epsilon=0.05)
    assert found["fgsm_error"] == pytest.approx(
        100 * float((network(attacked).argmax(1) != labels).float().mean())
    )
    assert 0 <= found["pgd_error"] <= 100 and sum(row["count"] for row in found["reliability"]) == 6


def test_clean_images_are_classified_once(network: OfPixels, batch) -> None:
    """With FGSM two passes a batch: the clean one, which the gradient comes from, and the attacked images.
    The figures stay the same."""
    pixels, labels, indices = batch
    loader = [((pixels - network.mean) / network.std, labels, indices)] * 3
    calls: list[int] = []
    handle = network.encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        with_attack = evaluate_suite(
            network.encoder, loader, MEAN, STD, SuiteOptions(("clean", "calibration", "fgsm"))
        )
        assert len(calls) == 2 * 3
        without = evaluate_suite(
            network.encoder, loader, MEAN, STD, SuiteOptions(("clean", "calibration", "confusion"))
        )
        assert len(calls) == 3 * 3
    finally:
        handle.remove()
    assert with_attack["top1"] == without["top1"] == without["confusion"]["top1"]
    assert with_attack["ece15"] == pytest.approx(without["ece15"], abs=1e-4)
    assert with_attack["nll"] == pytest.approx(without["nll"], abs=1e-5)


def test_broken_logits_and_options_are_refused(batch) -> None:
    images, labels, indices = batch
    encoder = create_encoder("cifar_resnet8", 4)
    nn.init.constant_(encoder.linear.bias, float("nan"))
    with pytest.raises(UserError, match="NaN or infinite for 6 of 6"):
        evaluate_suite(encoder, [(images, labels, indices)], MEAN, STD)
    with pytest.raises(UserError, match="no image"):
        evaluate_suite(encoder, [], MEAN, STD)
    for options, words in (
        (SuiteOptions(("speed",)), "'speed' is unknown"),
        (SuiteOptions(()), "is empty"),
        (SuiteOptions(epsilon=8.0), "--epsilon 8.0"),
        (SuiteOptions(pgd_steps=0), "--pgd-steps 0"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate_suite(encoder, [], MEAN, STD, options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    rng = np.random.default_rng(0)
    for name in "abcd":
        (folder / "data" / "test" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                folder / "data" / "test" / name / f"{i}.png"
            )
    torch.save(create_encoder("cifar_resnet8", 4).state_dict(), folder / "net.pth")
    return folder


@pytest.mark.parametrize("place", ["data", "data/test"])
def test_the_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    command = (
        f"--encoder cifar_resnet8 --weights {files / 'net.pth'} --data {files / place} --batch-size 5 "
        f"--suite clean,calibration,fgsm,pgd --pgd-steps 2 --output {tmp_path / 'out.json'}"
    ).split()
    assert main(command) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    figures = "top1 top5 ece10 ece15 fgsm_error pgd_error nll brier adaptive_ece15"
    assert set(figures.split()) <= set(found) and found["images"] == 12
    assert found["about"]["epsilon"] == 8 / 255 and len(found["about"]["weights_sha256"]) == 64
    assert "FGSM error" in capsys.readouterr().out
    assert main([*command[:6], "--suite", "clean", "--limit", "4"]) == 0
    assert "on 4 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--suite", "clean,speed"], "'speed' is unknown"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--output", "x.txt"], "must end in .json"),
        (["--data", "nowhere"], "--data nowhere is no folder"),
        (["--split", "val"], "has no folder 'val'"),
        (["--limit", "-1"], "--limit"),
        (["--encoder", "cifar_resnet14"], "missing"),
        (["--weights", "nothing.pth"], "nothing.pth"),
        (["--std", "0", "1", "1"], "std"),
        pytest.param(
            ["--std", "inf", "1", "1"],
            "data.std",
            id="change9-std=.inf, 1.0, 1.0. must be positive and finite",
        ),
        (["--std", "1", "nan", "1"], "std"),
        (["--mean", "0", "nan", "1"], "mean=.0.0, nan, 1.0. must be three finite"),
        pytest.param(
            ["--test-crop-ratio", "0"], "data.test_crop_ratio=0.0", id="change12-crop_ratio=0.0 must be in"
        ),
        (["--batch-size", "9" * 20], "--batch-size 9{20} must be from 1 to"),
        (["--image-size", "9" * 20], "--image-size 9{20} must be"),
        (["--suite", "corruption", "--corruptions", ","], "--corruptions is empty"),
    ],
)
def test_a_mistake_is_one_sentence(files: Path, change: list[str], words: str) -> None:
    command = f"--encoder cifar_resnet8 --weights {files / 'net.pth'} --data {files / 'data'}".split()
    with pytest.raises(UserError, match=words) as error:
        main([*command, *change])
    assert "\n" not in str(error.value)


def test_a_moving_average_is_what_is_evaluated(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", each=2)
    content = write_run(tmp_path / "ema", data, "mixup", ema=True)
    run = open_run(tmp_path / "ema")
    assert (
        list(run.encoders) == ["ema", "encoder"]
        and run.encoder is run.encoders["ema"]
        and not run.encoder.training
    )
    for name, prefix in content["encoders"].items():
        state = run.encoders[name].state_dict()
        assert all(torch.equal(value, content["model"][prefix + key]) for key, value in state.items())
    assert not torch.equal(run.encoders["ema"].fc.weight, run.encoders["encoder"].fc.weight)


def test_a_run_is_evaluated_as_it_was_validated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_images(tmp_path / "data", each=3)
    write_run(tmp_path / "run", data, "automix")
    assert main(["--run", str(tmp_path / "run"), "--suite", "clean"]) == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    run = open_run(tmp_path / "run")
    expected = evaluate(run.encoder, eval_loader(eval_dataset(run.data), 4), World(0, 1, torch.device("cpu")))
    assert found["top1"] == pytest.approx(expected["top1"]) and found["images"] == 9
    assert (
        found["about"]["run"] == str(tmp_path / "run")
        and found["about"]["data"] == str(data)
        and "commit" in found["about"]
    )
    command = f"--run {tmp_path / 'run'} --which q --suite clean --output {tmp_path / 'q.json'}"
    assert main(command.split()) == 0
    for more, words in (
        (["--which", "z"], "holds no encoder 'z'"),
        (["--encoder", "resnet18"], "leave --encoder out"),
        (["--data", str(tmp_path / "none")], "give their folder with --data"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--weights", "x.pt"], "give one of them"),
    ):
        with pytest.raises(UserError, match=words):
            main(["--run", str(tmp_path / "run"), *more])
    with pytest.raises(UserError, match="give --output"):
        main(["--weights", "x.pt", "--data", str(data), "--suite", "confusion"])


def test_weights_are_tested_as_they_were_validated_in_any_form(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", each=3)
    write_run(tmp_path / "run", data, "vanilla")
    file = tmp_path / "run" / "last.pt"
    content = torch.load(file)
    content["config"]["data"] |= {"test_crop_ratio": 0.6, "interpolation": "nearest", "test_size": 48}
    torch.save(content, file)
    export(file, "hf", tmp_path / "hub")
    results = []
    for chosen in (f"--run {tmp_path / 'run'}", f"--weights {file}", f"--weights {tmp_path / 'hub'}"):
        output = tmp_path / "out" / f"{len(results)}.json"
        command = (
            f"{chosen} --data {data / ('' if 'run ' in chosen else 'val')} --suite clean --output {output}"
        )
        assert main(command.split()) == 0
        results.append(json.loads(output.read_text()))
    for found in results:
        about = found["about"]
        assert (about["image_size"], about["test_crop_ratio"], about["interpolation"]) == (48, 0.6, "nearest")
        assert (found["top1"], found["images"]) == (results[0]["top1"], 9)


def test_parts_that_an_output_holds_already_stay_or_it_is_not_written_over(tmp_path: Path) -> None:
    data, run = write_images(tmp_path / "data", each=1), tmp_path / "run"
    write_run(run, data, "vanilla")
    for suite in ("calibration", "fgsm", "clean"):
        assert main(["--run", str(run), "--suite", suite]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert (
        {"nll", "reliability", "fgsm_error", "top1"} <= set(found)
        and "kept" not in found
        and found["about"]["suite"] == ["clean"]
    )
    assert (
        set(found["about"]["kept"]) == {"calibration", "fgsm"} and "commit" in found["about"]["kept"]["fgsm"]
    )
    for change, words in (
        (["--image-size", "16"], "image_size .32, now 16"),
        (["--limit", "2"], "limit .0, now 2"),
    ):
        with pytest.raises(UserError, match=f"evaluation.json .*{words}") as error:
            main(["--run", str(run), "--suite", "clean", *change])
        assert "\n" not in str(error.value)
    assert json.loads((run / "evaluation.json").read_text()) == found
    # everything is measured anew
    assert main(["--run", str(run), "--suite", "clean,calibration,fgsm", "--limit", "2"]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["images"] == 2 and "kept" not in found["about"]


def test_another_number_of_classes(files: Path, tmp_path: Path) -> None:
    torch.save(create_encoder("cifar_resnet8", 5).state_dict(), tmp_path / "five.pth")
    command = f"--encoder cifar_resnet8 --weights {tmp_path / 'five.pth'} --data {files / 'data'}"
    with pytest.raises(UserError, match="five.pth has 5 classes"):
        main(command.split())


@pytest.mark.slow
def test_the_fixed_network_on_real_images(shared: Path, shared_data, tmp_path: Path) -> None:
    """Every tenth image of CIFAR-10's test set; all 10,000 give 91.73 %, ECE 5.32 % and 83.93 % FGSM error
    (benchmarks/RESULTS.md)."""
    weights, output = shared / "weights" / "cifar10_resnet20.th", tmp_path / "out.json"
    command = (
        f"--encoder cifar_resnet20 --weights {weights} --data {shared_data('cifar10-test')} --limit 1000"
    )
    main([*command.split(), "--output", str(output), "--suite", "clean,calibration"])
    found = json.loads((tmp_path / "out.json").read_text())
    assert abs(found["top1"] - 91.73) < 2 and abs(found["ece15"] - 5.32) < 2


@pytest.mark.slow
def test_the_fixed_network_against_plain_loops(shared: Path, shared_data, tmp_path: Path) -> None:
    """25 real images, one by one: FGSM, PGD and two corruptions by loops that share nothing with the suite
    but `corrupt`, whose formulas have tests of their own; top-1 and ECE by torchmetrics."""
    weights, data = shared / "weights" / "cifar10_resnet20.th", shared_data("cifar10-test")
    command = (
        f"--encoder cifar_resnet20 --weights {weights} --data {data} --limit 25 --pgd-steps 3 "
        "--batch-size 16 --suite clean,calibration,fgsm,pgd,corruption --corruptions fog,impulse_noise "
        f"--output {tmp_path / 'out.json'}"
    )
    assert main(command.split()) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    encoder, info = load_encoder(weights, "cifar_resnet20")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (info.mean, info.std))
    files = sorted(
        (file for file in data.glob("test/*/*.png")), key=lambda file: (file.parent.name, file.name)
    )[::400]
    names = sorted({file.parent.name for file in files})
    labels, logits, hits = [names.index(file.parent.name) for file in files], [], {}

    def recognised(pixels: torch.Tensor, label: int) -> bool:
        return int(encoder(((pixels - mean) / std)[None]).argmax()) == label

    def gradient(pixels: torch.Tensor, label: int) -> torch.Tensor:
        pixels = pixels.clone().requires_grad_()
        return torch.autograd.grad(
            F.cross_entropy(encoder(((pixels - mean) / std)[None]), torch.tensor([label])), pixels
        )[0]

    for place, (file, label) in enumerate(zip(files, labels, strict=True)):
        image = np.asarray(Image.open(file).convert("RGB"))
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255
        with torch.no_grad():
            logits.append(encoder(((pixels - mean) / std)[None])[0])
        marks = {"fgsm": recognised((pixels + 8 / 255 * gradient(pixels, label).sign()).clamp(0, 1), label)}
        noise = 2 * torch.rand(pixels.shape, generator=derive_generator(0, "pgd", place)) - 1
        moved = (pixels + 8 / 255 * noise).clamp(0, 1)
        for _ in range(3):
            moved = moved + 2 / 255 * gradient(moved, label).sign()
            moved = (pixels + (moved - pixels).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
        marks["pgd"] = recognised(moved, label)
        for name in ("fog", "impulse_noise"):
            for severity in range(1, 6):
                noisy = (
                    torch.from_numpy(corrupt(image[None], name, severity, [place])[0]).permute(2, 0, 1) / 255
                )
                marks[f"{name} {severity}"] = recognised(noisy, label)
        for key, right in marks.items():
            hits[key] = hits.get(key, 0) + right
    rows, targets = torch.stack(logits), torch.tensor(labels)
    assert found["top1"] == pytest.approx(
        100 * float(multiclass_accuracy(rows, targets, 10, average="micro")), abs=1e-4
    )
    ece = float(multiclass_calibration_error(rows.softmax(1), targets, 10, n_bins=15, norm="l1"))
    assert found["ece15"] == pytest.approx(100 * ece, abs=1e-3)
    for name in ("fgsm", "pgd"):  # one image of 25 may turn on a gradient's rounding
        assert found[f"{name}_error"] == pytest.approx(100 - 4 * hits[name], abs=4)
    for name in ("fog", "impulse_noise"):
        assert found["corruption"][name] == pytest.approx(
            [4 * hits[f"{name} {severity}"] for severity in range(1, 6)]
        )


def test_the_order_of_numbered_classes_is_asked_for(tmp_path: Path) -> None:
    """A network that says class 2: folder 2 in the order of numbers, folder 10 in that of text."""
    for name in range(11):
        for number in range(3 if name == 2 else 1):
            (tmp_path / "data" / str(name)).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (20 * name, number, 0)).save(
                tmp_path / "data" / str(name) / f"{number}.png"
            )
    network = create_encoder("cifar_resnet8", 11)
    network.linear.weight.data.zero_()
    network.linear.bias.data.copy_(torch.eye(11)[2])
    torch.save(network.state_dict(), tmp_path / "net.pth")
    command = f"--encoder cifar_resnet8 --weights {tmp_path / 'net.pth'} --data {tmp_path / 'data'}".split()
    command += ["--suite", "clean", "--output", str(tmp_path / "out.json")]
    with pytest.raises(UserError, match="--class-order"):
        main(command)
    for order, right in (("number", 3), ("text", 1)):
        assert main([*command, "--class-order", order]) == 0
        assert json.loads((tmp_path / "out.json").read_text())["top1"] == pytest.approx(100 * right / 13)
