"""The paper's figures by their command, from runs of tiny random networks: pictures come out, and their
numbers are the right ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import mask_statistics, mixed_accuracy, shuffled_batches
from automix_transfer.evaluation.mixers import automix_mixer, mixup
from automix_transfer.evaluation.opened import common_data, open_run, open_runs
from automix_transfer.figures.cams import look
from automix_transfer.figures.masks import initial
from automix_transfer.io import load_torch, save_torch
from automix_transfer.mixing import build_method
from automix_transfer.report.cli import main
from automix_transfer.rng import reseed_globals
from tests.evaluation.small_runs import write_images, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and runs of five methods; automix/ also keeps its first epoch."""
    root = tmp_path_factory.mktemp("figures")
    data = write_images(root / "data")
    for name in ("vanilla", "mixup", "cutmix", "puzzlemix"):
        write_run(root / name, data, name)
    write_run(root / "automix", data, "automix", seed=4, epoch=1, name="epoch_0001.pt", init_std=1.0)
    write_run(root / "automix", data, "automix", seed=4, epoch=3, init_std=1.0)
    write_run(root / "joint", data, "automix", pipeline="joint")
    return root


def figure(name: str, runs: list[Path], output: Path, *more: str) -> dict[str, Any]:
    main(["figure", name, "--runs", *map(str, runs), "-o", str(output), *more])
    with Image.open(output) as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 200 and image.width <= 1300
        assert np.asarray(image.convert("L")).std() > 5
    found = json.loads(output.with_suffix(".json").read_text())
    assert found["figure"] and len(found["caption"]) > 40
    return found


def test_fig4_asks_every_run_about_the_same_pairs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("vanilla", "mixup", "cutmix", "puzzlemix", "automix")
    found = figure("fig4", [runs / name for name in names], tmp_path / "4.png", "--lams", "0.5", "0.2")
    assert "vanilla have no mixed samples of their own" in capsys.readouterr().err
    by_run = found["numbers"]["by_run"]
    assert (
        list(by_run) == list(names[1:])
        and len({(row["lam"], row["pairs"]) for rows in by_run.values() for row in rows}) == 2
    )
    for name, mixer in (("mixup", mixup), ("automix", automix_mixer(open_run(runs / "automix").method))):
        run = open_run(runs / name)
        batches = shuffled_batches(common_data([run]), 64, 0, 512)
        assert by_run[name] == [
            row.to_dict()
            for row in mixed_accuracy(run.method.inference_encoder(), batches, mixer, [0.2, 0.5])
        ]
    assert [row["method"] for row in found["runs"]] == list(names) and len(found["shown"]) == 2
    same = figure(
        "fig4",
        [runs / "vanilla", runs / "cutmix"],
        tmp_path / "same.png",
        "--mixed-by",
        "mixup",
        "--lams",
        "0.5",
    )
    assert list(same["numbers"]["by_run"]) == ["vanilla", "cutmix"]


def test_fig3_shows_the_two_top_classes(runs: Path, tmp_path: Path) -> None:
    found = figure(
        "fig3", [runs / "mixup", runs / "automix"], tmp_path / "3.png", "--pairs", "2", "--lam", "0.4"
    )
    run = open_run(runs / "mixup")
    dataset = common_data([run])
    for pair, row in zip(found["shown"], found["numbers"]["by_pair"], strict=True):
        truth = {pair["i"]["class"], pair["j"]["class"]}
        assert len(truth) == 2 and row["lam"] == 0.4
        i, j = (
            next(dataset[k][0] for k in range(len(dataset)) if str(dataset.path(k)) == pair[side]["file"])
            for side in "ij"
        )
        with torch.no_grad():
            probs, top = run.method.inference_encoder()((0.4 * i + 0.6 * j)[None]).softmax(1).topk(2)
        top2 = row["by_run"]["mixup"]["top2"]
        assert [guess["class"] for guess in top2] == [dataset.classes[k] for k in top[0]]
        assert [guess["probability"] for guess in top2] == pytest.approx(probs[0].tolist(), abs=1e-5)
        assert all(guess["right"] == (guess["class"] in truth) for guess in top2)
    images = torch.stack([dataset[k][0] for k in (0, 6)])
    maps = look(run, images, torch.tensor([1, 0]), mixup, 0.5, 0)[3]
    assert all(one.shape == (1, 32, 32) and one.min() >= 0 and one.max() <= 1 for one in maps)


def test_fig6_tells_flat_masks_from_learned_ones(runs: Path, tmp_path: Path) -> None:
    found = figure("fig6", [runs / "automix", runs / "joint"], tmp_path / "6.png", "--samples", "12")
    rows = {row["label"]: row for row in found["numbers"]["by_run"]}
    assert (
        rows["joint"]["pipeline"] == "joint"
        and rows["joint"]["masks"]["spatial_std"] < 0.01 < rows["automix"]["masks"]["spatial_std"]
    )
    run = open_run(runs / "automix")
    health = mask_statistics(run.method, shuffled_batches(common_data([run]), 64, 0, 12), [0.5], 0)[0]
    assert rows["automix"]["masks"] == health.to_dict() and rows["automix"]["top1_last"] == 33.0


def test_fig7_goes_from_the_start_to_the_end(runs: Path, tmp_path: Path) -> None:
    found = figure("fig7", [runs / "automix"], tmp_path / "7.png")
    assert [(row["stage"], row["epoch"]) for row in found["numbers"]["stages"]] == [
        ("start", 0),
        ("epoch 1", 1),
        ("epoch 3", 3),
    ]
    run = open_run(runs / "automix")
    state = torch.get_rng_state()
    start = initial(run)
    assert torch.equal(torch.get_rng_state(), state)
    reseed_globals(4, "initial weights")
    expected = build_method("automix", run.info.build(), {"init_std": 1.0}).state_dict()
    assert all(
        torch.equal(value, expected[key])
        for key, value in start.state_dict().items()
        if isinstance(value, torch.Tensor)
    )
    with pytest.raises(UserError, match="one run's"):
        figure("fig7", [runs / "automix", runs / "joint"], tmp_path / "two.png")


@pytest.mark.parametrize("name", ["fig12", "fig13"])
def test_fig12_shows_masks_by_lam(runs: Path, tmp_path: Path, name: str) -> None:
    found = figure(name, [runs / "automix"], tmp_path / "12.png", "--pairs", "4", "--lams", "0.1", "0.9")
    by_lam = found["numbers"]["automix"]["by_lam"]
    assert [row["lam"] for row in by_lam] == [0.1, 0.9] and all(len(row["masks"]) == 3 for row in by_lam)
    assert by_lam[0]["masks"][0]["mean"] < by_lam[1]["masks"][0]["mean"]


def test_fig8_and_confusion_evaluate_what_was_not(runs: Path, tmp_path: Path) -> None:
    for name in ("mixup", "cutmix"):
        shutil.copytree(runs / name, tmp_path / name)
    found = figure(
        "fig8", [tmp_path / "mixup", tmp_path / "cutmix"], tmp_path / "8.png", "--labels", "A", "B"
    )
    for row, name in zip(found["numbers"], ("mixup", "cutmix"), strict=True):
        out = json.loads((tmp_path / name / "evaluation.json").read_text())
        assert row["ece15"] == out["ece15"] and row["bins"] == [
            bin for bin in out["reliability"] if bin["count"]
        ]
    single = figure("fig8", [tmp_path / "mixup" / "evaluation.json"], tmp_path / "one.png")
    assert [row["label"] for row in single["numbers"]] == ["mixup"]
    main(
        [
            "figure",
            "confusion",
            "--runs",
            str(tmp_path / "mixup"),
            "-o",
            str(tmp_path / "mixup" / "confusion.png"),
        ]
    )
    kept = (tmp_path / "mixup" / "confusion.json").read_bytes()
    found = figure("confusion", [tmp_path / "mixup"], tmp_path / "classes.png")
    assert (
        found["numbers"] == json.loads(kept) and (tmp_path / "mixup" / "confusion.json").read_bytes() == kept
    )
    shutil.rmtree(tmp_path / "mixup" / "confusion")  # pictures that are gone are grey
    figure("confusion", [tmp_path / "mixup" / "confusion.json"], tmp_path / "grey.png")


def test_robustness_of_several_outputs(tmp_path: Path) -> None:
    names = ("fog", "snow", "contrast")
    for number, name in enumerate(("a", "b")):
        corruption = {kind: [90.0 - 10 * s - number for s in range(5)] for kind in names[number:]}
        (tmp_path / f"{name}.json").write_text(
            json.dumps(
                {"top1": 95.0, "fgsm_error": 80.0, "corruption": corruption, "corruption_made": "generated"}
            )
        )
    found = figure("robustness", [tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "r.png")
    assert found["corruptions"] == ["snow", "contrast"] and "generated" in found["caption"]
    assert [row["mean_by_severity"] for row in found["numbers"]] == [
        [90, 80, 70, 60, 50],
        [89, 79, 69, 59, 49],
    ]
    (tmp_path / "c.json").write_text(json.dumps({"corruption": {"frost": [1, 2, 3, 4, 5]}}))
    for file, words in (("c.json", "different corruptions"), ("bad.json", "bad.json.*corruption")):
        (tmp_path / "bad.json").write_text('{"corruption": {"fog": [1, null]}}')
        with pytest.raises(UserError, match=words):
            main(
                [
                    "figure",
                    "robustness",
                    "--runs",
                    str(tmp_path / "a.json"),
                    str(tmp_path / file),
                    "-o",
                    str(tmp_path / "x.png"),
                ]
            )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig4", "--runs", "nowhere"], "nowhere does not exist"),
        (["fig4", "--runs", "data"], "holds no last.pt"),
        (["fig4", "--runs", "vanilla"], "no run mixes pairs"),
        (["fig12", "--runs", "mixup"], "no Mix Block"),
        (["fig4", "--runs", "mixup", "mixup"], "given twice"),
        (["fig4", "--runs", "mixup", "--labels", "a", "b"], "2 names for 1 runs"),
        pytest.param(
            ["fig4", "--runs", "mixup", "--data", "none"],
            "none.*--data",
            id="arguments6-none, are not there; give their folder with --data",
        ),
        (["fig4", "--runs", "mixup", "--pairs", "50"], "ask for fewer"),
        (["fig4", "--runs", "mixup", "--lam", "2"], "not the share"),
        (["fig4", "--runs", "mixup", "--mixed-by", "vanilla"], "mixes nothing"),
        (["fig8", "--runs", "text.json"], "holds no reliability bins"),
        (["confusion", "--runs", "text.json"], "holds no confused pairs"),
        (["confusion", "--runs", "mixup", "cutmix"], "shows one run"),
    ],
)
def test_a_mistake_is_one_sentence(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (runs / "text.json").write_text('{"reliability": [{"low": "x"}], "pairs": [1]}')
    monkeypatch.chdir(runs)
    with pytest.raises(UserError, match=words) as error:
        main(["figure", *arguments, "-o", str(tmp_path / "x.png")])
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_runs_of_other_data_are_not_shown_together(runs: Path, tmp_path: Path) -> None:
    content = load_torch(runs / "mixup" / "last.pt")
    for key, value, words in (
        ("image_size", 16, "image size"),
        ("mean", [0.1, 0.2, 0.3], "data.mean"),
        ("dataset", "cub", "data.dataset"),
    ):
        changed = {
            **content,
            "config": {**content["config"], "data": {**content["config"]["data"], key: value}},
        }
        save_torch(tmp_path / key / "last.pt", changed)
        with pytest.raises(UserError, match=words):
            common_data(open_runs([runs / "cutmix", tmp_path / key]))


junk = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "encoder",
                    "config",
                    "step",
                    "epoch",
                    "history",
                    "model",
                    "config.data",
                    "config.method",
                    "encoder.name",
                    "encoder.num_classes",
                    "config.data.image_size",
                    "config.data.mean",
                    "config.method.name",
                ]
            ),
            junk,
        ),
        min_size=1,
        max_size=2,
    )
)
def test_a_checkpoint_edited_by_hand_is_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, runs: Path, edits: list[tuple[str, Any]]
) -> None:
    content = load_torch(runs / "mixup" / "last.pt")
    for path, value in edits:
        *parents, last = path.split(".")
        inner: Any = content
        for key in parents:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[last] = value
    folder = tmp_path_factory.mktemp("edited")
    save_torch(folder / "last.pt", content)
    try:
        run = open_run(folder)
        common_data([run])
    except UserError as error:
        assert "\n" not in str(error)
