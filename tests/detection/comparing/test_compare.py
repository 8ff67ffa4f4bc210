"""The comparison: what is checked before it starts, what runs, what is not run again, and what the table
says."""

import csv
import json

import pytest

from automix_transfer.commands import detect_compare
from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS, QUICK


def plan_of(tmp_path, rows, seeds=(1, 2), **changes):
    from automix_transfer.detection.comparing.compare import Plan

    return Plan(
        **{
            "output": tmp_path / "out",
            "config_file": CONFIGS / "embedded_R10_FPN.yaml",
            "rows": tuple(rows),
            "seeds": seeds,
            "overrides": tuple(QUICK),
            **changes,
        }
    )


def write_run(folder, ap: float | None, seed: int, extra: dict | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"AP": ap, "AP50": None if ap is None else 2 * ap, "AP75": None if ap is None else ap / 2}
    (folder / "results.json").write_text(
        json.dumps(
            {
                **figures,
                "rule": "11-point rule",
                "data": "x:test",
                "detector": "Faster R-CNN",
                "weights": "",
                "loaded": "all",
                "iterations": 9,
                "batch": 2,
                "seed": seed,
                "images": {"x:test": 4},
                "metrics": {"x:test": {"bbox": figures, "bbox_area": extra or {"AP": ap}}},
            }
        )
    )


def test_rows(tmp_path):
    from automix_transfer.detection.comparing.compare import Row, parse_rows

    file, odd = tmp_path / "r10.pkl", tmp_path / "a=b.pkl"
    for path in (file, odd):
        path.write_bytes(b"")
    assert parse_rows(["random", str(file), f"Auto Mix={file}", str(odd), "from scratch=random"]) == (
        Row("random", ""),
        Row("r10", str(file)),
        Row("Auto Mix", str(file)),
        Row("a=b", str(odd)),
        Row("from scratch", ""),
    )
    assert Row("Auto Mix/q", "x").folder == "Auto_Mix_q" and Row("../..", "x").folder == "row"
    for values, message in (
        ([str(file), f"r10={file}"], "two rows called 'r10'"),
        (["a b=random", f"a_b={file}"], "two rows"),
        (["x=nosuch.pkl"], "nosuch.pkl does not exist"),
        (["=x"], "NAME=FILE"),
        (["x="], "NAME=FILE"),
        (["random", "SOLVER.MAX_ITER"], "KEY VALUE overrides go last"),
    ):
        with pytest.raises(UserError, match=message):
            parse_rows(values)


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(AP="nan"),
        lambda c: c.update(AP=1e299),
        lambda c: c.pop("metrics"),
        lambda c: c.update(images=3),
        lambda c: c.update(data=["x"]),
    ],
)
def test_a_result_that_was_edited_is_named(tmp_path, edit):
    from automix_transfer.detection.comparing.collected import collect
    from automix_transfer.detection.comparing.compare import Row

    plan = plan_of(tmp_path, [Row("a", "")], seeds=(1,))
    folder = plan.folder(plan.rows[0], 1)
    write_run(folder, 10.0, 1)
    assert collect(plan).rows[0].means["AP"].mean == 10
    content = json.loads((folder / "results.json").read_text())
    edit(content)
    (folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"seed1/results\.json"):
        collect(plan)


def test_seeds():
    from automix_transfer.compared.named import parse_seeds

    assert parse_seeds("3") == (1, 2, 3) and parse_seeds("5,7") == (5, 7) and parse_seeds("5,") == (5,)
    for text in (
        "0",
        "-1",
        "x",
        "1,1",
        "1,-2",
        ",",
        "1.5",
        "",
        "1001",
        "99999999999999999999",
        "1,99999999999999999999",
    ):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(text)


def test_everything_is_checked_before_the_first_run(tmp_path, voc, r10):
    from automix_transfer.detection.comparing.compare import Row, check

    good = [Row("random", ""), Row("r10", str(r10))]
    inputs = check(plan_of(tmp_path, good, data_root=voc))
    assert len(inputs) == 4 and not list((tmp_path / "out").rglob("results.json"))
    damaged = tmp_path / "damaged.pkl"
    damaged.write_bytes(r10.read_bytes()[:-20])
    (tmp_path / "file").write_text("")
    for rows, changes, message in (
        ([*good, Row("broken", str(damaged))], {}, "row 'broken': .*damaged.pkl is damaged"),
        (good, {"config_file": tmp_path / "none.yaml"}, "row 'random': .*none.yaml does not exist"),
        (good, {"output": tmp_path / "file" / "x"}, "OUTPUT_DIR"),
        (good, {"data_root": tmp_path / "nowhere"}, "nowhere does not exist"),
        (good, {"num_gpus": 99}, "--num-gpus 99"),
        (good, {"coco_evaluator": "fast"}, "--coco-evaluator fast"),
        (good, {"overrides": (*QUICK, "SEED", "4")}, "SEED differs from run to run"),
        (good, {"overrides": (*QUICK, "SOLVER.NOSUCH", "4")}, "unknown config key SOLVER.NOSUCH"),
    ):
        with pytest.raises(UserError, match=message):
            check(plan_of(tmp_path, rows, **{"data_root": voc, **changes}))


def test_runs_of_other_settings_never_stand_in_one_table(tmp_path, voc, r10):
    from automix_transfer.detection.comparing.compare import Row, check, command, jobs, write_inputs

    weights = tmp_path / "w.pkl"
    weights.write_bytes(r10.read_bytes())
    weights.with_suffix(".yaml").write_bytes(r10.with_suffix(".yaml").read_bytes())
    plan = plan_of(tmp_path, [Row("r10", str(weights))], data_root=voc)
    made = jobs(plan)
    write_inputs(check(plan))
    assert [job.name for job in made] == ["r10 seed 1", "r10 seed 2"] and "--resume" not in made[0].command
    more = plan_of(tmp_path, [Row("r10", str(weights)), Row("random", "")], seeds=(1, 2, 3), data_root=voc)
    assert len(jobs(more)) == len(check(more)) == 6  # rows and seeds may be added
    longer = plan_of(tmp_path, plan.rows, data_root=voc, overrides=(*QUICK, "SOLVER.MAX_ITER", "7"))
    check(longer)  # no run is begun yet, so none holds other settings
    (plan.folder(plan.rows[0], 1) / "last_checkpoint").write_text("model_0000001.pth")
    assert "--resume" in command(plan, plan.rows[0], 1) and "--resume" not in command(plan, plan.rows[0], 2)
    with pytest.raises(UserError, match="started with SOLVER.MAX_ITER 2, but now it is 7"):
        check(longer)
    overlay = weights.with_suffix(".yaml")
    overlay.write_text(overlay.read_text().replace("60.0", "61.0"))
    with pytest.raises(UserError, match="trained from other weights"):
        check(plan)
    overlay.write_bytes(r10.with_suffix(".yaml").read_bytes())
    noted = plan.folder(plan.rows[0], 1) / "inputs.json"
    for content in ("[]", "{}", '{"config": []}'):
        noted.write_text(content)
        with pytest.raises(UserError, match="inputs.json does not say what .* was started with"):
            check(plan)
    foreign = plan_of(tmp_path, plan.rows, data_root=voc, output=tmp_path / "foreign")
    write_run(foreign.folder(plan.rows[0], 1), 1.0, 1)
    with pytest.raises(UserError, match="did not start"):
        check(foreign)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"AP": 1.0, "iterations": 1}',
            "figures of 1 iterations, but this comparison's runs have 2; remove the folder",
        ),
        ('{"AP": 1.0}', "an unknown number of iterations"),
        ("[1]", "an unknown number of iterations"),
    ],
)
def test_runs_that_are_not_finished_never_pass_for_done(tmp_path, voc, content, words):
    from automix_transfer.detection.comparing.compare import Row, check

    plan = plan_of(tmp_path, [Row("random", "")], data_root=voc)
    folder = plan.folder(plan.rows[0], 1)
    (inputs,) = (item for path, item in check(plan).items() if path == folder)
    write_run(folder, 1.0, 1)
    (folder / "inputs.json").write_text(json.dumps(inputs))
    (folder / "results.json").write_text(content)
    with pytest.raises(UserError, match=words):
        check(plan)


def test_what_rows_differ_in(tmp_path, voc, r10):
    from automix_transfer.detection.comparing.compare import Row, check, differences

    found = differences(check(plan_of(tmp_path, [Row("random", ""), Row("r10", str(r10))], data_root=voc)))
    assert "MODEL.PIXEL_STD: random [58.395, 57.12, 57.375], r10 [60.0, 60.0, 60.0]" in found
    assert not any(line.startswith(("MODEL.WEIGHTS", "OUTPUT_DIR", "SEED")) for line in found)


def test_table_by_hand(tmp_path):
    """AP 10, 20 against 13, 27: means 15 and 20, std 7.07 and 9.90; paired gains 3 and 7: 5 ± 2.83."""
    from automix_transfer.detection.comparing.collected import collect
    from automix_transfer.detection.comparing.compare import Row

    plan = plan_of(tmp_path, [Row("random", ""), Row("Auto|Mix", "a.pkl")])
    for row, values in zip(plan.rows, ((10.0, 20.0), (13.0, 27.0)), strict=True):
        for seed, value in zip(plan.seeds, values, strict=True):
            write_run(plan.folder(row, seed), value, seed)
    comparison = collect(plan)
    first, second = comparison.rows
    assert first.gains == {"AP": None, "AP50": None, "AP75": None}
    assert (second.means["AP"].mean, second.gains["AP"].mean, second.gains["AP50"].mean) == pytest.approx(
        (20, 5, 10)
    )
    assert (first.means["AP"].std, second.means["AP"].std, second.gains["AP"].std) == pytest.approx(
        (50**0.5, 98**0.5, 8**0.5)
    )
    text = comparison.text()
    assert (
        "20.00 ± 9.90  +5.00 [-20.41, +30.41]" in text
        and "seeds 1, 2" in text
        and "9 iterations of batch 2, on x:test (11-point rule)" in text
    )
    comparison.write(plan.output)
    assert (
        "| Auto\\|Mix | 20.00 ± 9.90 | +5.00 [-20.41, +30.41] |"
        in (plan.output / "comparison.md").read_text()
    )
    with open(plan.output / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["AP50_gain"] == "10.0000" and rows[0]["AP_gain"] == "" and rows[0]["weights"] == "random"
    with open(plan.output / "runs.csv", newline="") as file:
        assert [(row["method"], row["seed"], row["AP, area rule"]) for row in csv.DictReader(file)] == [
            ("random", "1", "10.0000"),
            ("random", "2", "20.0000"),
            ("Auto|Mix", "1", "13.0000"),
            ("Auto|Mix", "2", "27.0000"),
        ]
    assert json.loads((plan.output / "comparison.json").read_text())["rows"][1]["gain"]["AP"]["n"] == 2


def test_a_missing_figure_is_a_dash_and_one_seed_has_no_deviation(tmp_path):
    from automix_transfer.detection.comparing.collected import collect
    from automix_transfer.detection.comparing.compare import Row

    plan = plan_of(tmp_path, [Row("random", ""), Row("b", "b.pkl")], seeds=(4,))
    for row, value in zip(plan.rows, (10.0, None), strict=True):
        write_run(plan.folder(row, 4), value, 4)
    cells = collect(plan).cells()
    assert cells[1][1:3] == ["10.00", "–"] and cells[2][1:3] == ["–", "–"]
    assert "one run each (seed 4), so a difference may be the seed's" in collect(plan).text()


def test_progress_lines():
    from automix_transfer.jobs import is_progress

    shown = (
        "[11/22 d2.utils.events]:  eta: 0:00:00  iter: 3  total_loss: 2.4",
        "error: no",
        "x on VOC: AP 1.00  AP50 2.00  AP75 0.50  (rule)",
    )
    hidden = ("#   AP50 30 against 14;", "VOC2007:test, %   AP  AP50  AP75", "model.backbone", "")
    assert all(is_progress(line) for line in shown) and not any(is_progress(line) for line in hidden)


@pytest.mark.slow
def test_runs_resumes_and_reports(tmp_path, voc, r10, capsys):
    """The whole script on a tiny data set; the second start trains nothing; a page without the network, with
    every row in it."""
    command = [
        "--weights",
        "random",
        f"R-10={r10}",
        "--seeds",
        "2,",
        "--data-root",
        str(voc),
        "--config-file",
        str(CONFIGS / "embedded_R10_FPN.yaml"),
        "--images",
        "2",
        "--jobs",
        "1",
        "--output",
        str(tmp_path / "out"),
        *QUICK,
    ]
    assert detect_compare.main(["--check-only", *command, "SOLVER.MAX_ITER", "5"]) == 0
    assert not (tmp_path / "out" / "runs").exists(), "a check starts nothing"
    capsys.readouterr()
    assert detect_compare.main(command) == 0
    shown = capsys.readouterr().out
    assert "0 of 2 jobs done" in shown and "one run each (seed 2)" in shown
    out = tmp_path / "out"
    for name in (
        "comparison.txt",
        "comparison.md",
        "comparison.csv",
        "comparison.json",
        "runs.csv",
        "figures/detections.png",
        "figures/curves.png",
        "figures/scores.png",
        "runs/R-10/seed2/results.csv",
        "logs/random_seed_2.log",
    ):
        assert (out / name).is_file(), name
    page = (out / "report.html").read_text()
    assert (
        page.count("data:image/") >= 3
        and "http" not in page.replace("http-equiv", "")
        and "65 of 65 keys" in page
    )
    assert "MODEL.PIXEL_STD" in page and "runs/R-10/seed2" in page
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/model_final.pth")}
    assert detect_compare.main(command) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 jobs done" in shown and "started" not in shown
    assert len(before) == 2 and all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        detect_compare.parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    wanted = ("random", "AutoMix=r10.pkl", "--seeds", "KEY VALUE", "resumes", "report.html")
    assert stop.value.code == 0 and all(word in shown for word in wanted)
