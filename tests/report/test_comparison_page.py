"""The page of a detection comparison, from made-up runs: what is drawn, what is said, and what a killed run
leaves."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from automix_transfer.report import comparison_page as page


def spread(mean: float, std: float | None = 1.0) -> dict:
    return {"mean": mean, "std": std, "n": 2 if std else 1}


def made_up(folder: Path, seeds: tuple[int, ...] = (1, 2)) -> dict:
    rows = []
    for number, (name, label) in enumerate((("random", "random"), ("Auto<Mix>", "Auto_Mix"))):
        runs = {
            str(seed): {
                "AP": 10.0 + number + seed,
                "AP50": 30.0 + number,
                "AP75": None if number else 5.0,
                "AP, area rule": 9.0,
            }
            for seed in seeds
        }
        means = {
            "AP": spread(11.5 + number, 0.5 if len(seeds) > 1 else None),
            "AP50": spread(30.0 + number),
            "AP75": None,
        }
        gains = {key: spread(-1.0) if number and key == "AP" else None for key in page.HEADLINE}
        rows.append({"name": name, "folder": label, "weights": None, **means, "gain": gains, "runs": runs})
        for seed in seeds:
            run = folder / "runs" / label / f"seed{seed}"
            run.mkdir(parents=True)
            lines = [{"iteration": k, "total_loss": 2.0 - k / 100 + seed} for k in (19, 39, 59)]
            lines += [{"iteration": 39, "bbox/AP50": 20.0}, {"iteration": 60, "bbox/AP50": 30.0}]
            (run / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    about = {
        "detector": "Faster R-CNN",
        "data": "VOC2007:test",
        "rule": "11-point rule",
        "iterations": 60,
        "batch": 8,
        "seeds": list(seeds),
        "images": 4,
        "config_file": "c.yaml",
        "overrides": ["SEED", "3"],
        "data_root": "d",
        "num_gpus": 0,
        "loaded": {"random": "all random", "Auto<Mix>": "65 of 65 keys"},
        "config_differences": ["MODEL.X: random 1, Auto<Mix> 2"],
    }
    return {"about": about, "rows": rows}


def test_page_says_everything_and_asks_for_nothing(tmp_path):
    file = page.build(tmp_path, made_up(tmp_path), count=0)
    text = file.read_text()
    assert text.count("data:image/png;base64,") == 2 and "http" not in text.replace("http-equiv", "")
    for words in (
        "Auto&lt;Mix&gt;",
        "12.50<small> ± 0.50",
        "−1.00<small> ± 1.00",
        "over seeds 1, 2",
        "65 of 65 keys",
        "with SEED 3",
        "AP, area rule",
        "runs/Auto_Mix/seed2",
        "MODEL.X: random 1, Auto&lt;Mix&gt; 2",
        "60 iterations of batch 8",
    ):
        assert words in text, words
    assert (
        "Auto<Mix>" not in text
        and 'class="number gain down"' in text
        and "Detections side by side" not in text
    )
    assert set(json.loads((tmp_path / "figures" / "captions.json").read_text())) == {"scores", "curves"}


def test_one_seed_is_not_called_a_mean(tmp_path):
    text = page.build(tmp_path, made_up(tmp_path, seeds=(4,)), count=0).read_text()
    assert "One run each (seed 4)" in text and "Mean ±" not in text


def test_a_run_without_its_log_is_said(tmp_path):
    content = made_up(tmp_path)
    (tmp_path / "runs" / "random" / "seed1" / "metrics.json").unlink()
    text = page.build(tmp_path, content, count=0).read_text()
    assert re.search(r"seed1/metrics.json[^<]*its run is not among the curves", text)


def test_metrics_of_a_resumed_run(tmp_path):
    """An iteration that was done again counts once, with its last value; half a line of a killed process is
    left out."""
    (tmp_path / "metrics.json").write_text(
        '{"iteration": 19, "total_loss": 3.0}\n{"iteration": 39, "total_loss": 2.0}\n'
        '{"iteration": 39, "total_loss": 1.5, "lr": 0.1}\n[1]\n{"iteration": 59, "tot'
    )
    rows = page.read_metrics(tmp_path, [])
    assert page.points(rows, "total_loss") == ([20.0, 40.0], [3.0, 1.5])
    rows.append({"iteration": 40, "bbox/AP50": 7.0, "total_loss_of": float("nan")})
    assert page.points(rows, "bbox/AP50") == ([40.0], [7.0]), (
        "the evaluation at the end belongs to the last iteration"
    )
    assert page.points(rows, "total_loss_of") == ([], [])


def test_mean_over_what_all_seeds_have():
    assert page.mean_curve([([20.0, 40.0], [1.0, 2.0]), ([20.0, 60.0], [3.0, 9.0])]) == ([20.0], [2.0])
    assert page.mean_curve([]) == ([], [])


def test_colours_are_each_rows_own():
    names = ["AutoMix", "random", "vanilla", *(f"row {k}" for k in range(9))]
    colours = page.colours_of(names)
    assert colours["AutoMix"] == "#0072b2" and len(set(colours.values())) >= 11
    assert page.colours_of(names) == colours


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (33, 77)])
def test_boxes_fall_where_their_objects_are(shape):
    """A white object on black, scaled and centred as the pictures are: its box, moved the same way, holds it
    and nothing else."""
    pytest.importorskip("detectron2")
    from automix_transfer.detection.showing.rectangles import fit

    image = np.zeros((*shape, 3), np.uint8)
    box = np.array([[5.0, 10.0, 25.0, 30.0]])
    image[10:30, 5:25] = (0, 255, 0)
    x0, y0, x1, y1 = page.place(box, image, 160)[0]
    green = np.argwhere((fit(image, 160)[:, :, 1] > 128) & (fit(image, 160)[:, :, 0] < 128))
    assert (
        np.abs(
            np.array([x0, y0, x1 - 1, y1 - 1]) - [*green.min(axis=0)[::-1], *green.max(axis=0)[::-1]]
        ).max()
        <= 1.5
    )
