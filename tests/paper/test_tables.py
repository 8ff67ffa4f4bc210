"""The paper's tables from run folders: what is shown, what is marked, what is left out, and in which form."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automix_transfer.config import to_yaml
from automix_transfer.errors import UserError
from automix_transfer.paper import published as paper
from automix_transfer.paper import render
from automix_transfer.paper.catalogue import catalogue
from automix_transfer.paper.measured import Measured, measure
from automix_transfer.paper.references import Reference
from automix_transfer.paper.tables import fill, where, with_runs
from automix_transfer.report.cli import main
from automix_transfer.training.settings import load_experiment
from tests.paper.folders import write_evaluation, write_trained


def reference(*tokens: str, table: str = "table1") -> Reference:
    found = catalogue().of(paper.cell(table, *tokens).attributes)
    assert found is not None
    return found


AUTOMIX, MIXUP, VANILLA = (
    reference("CIFAR-100", "R-18", method) for method in ("automix", "mixup", "vanilla")
)


def table1(folder: Path):
    return fill(paper.table("table1"), measure([folder]))


def shown(filled, *tokens: str):
    cell = paper.cell(filled.table.name, *tokens)
    return filled.ours[cell.row][cell.column]


def test_a_config_as_training_writes_it_is_the_papers_experiment(tmp_path: Path) -> None:
    write_trained(tmp_path / "a", AUTOMIX, 81.5)
    experiment = load_experiment(
        [AUTOMIX.recipe], ["data.root=/data", "seed=3", "data.workers=0", "train.channels_last=true"]
    )
    (tmp_path / "a" / "config.yaml").write_text(to_yaml(experiment))
    found = shown(table1(tmp_path), "CIFAR-100", "R-18", "automix")
    assert found.mean == 81.5 and found.marks == ()


def test_trials_are_averaged_and_the_gain_is_over_the_best_of_the_others(tmp_path: Path) -> None:
    for seed, value in enumerate((81.0, 82.0, 83.0)):
        write_trained(tmp_path / "deep" / "er" / f"a{seed}", AUTOMIX, value, seed)
    write_trained(tmp_path / "m", MIXUP, 79.5)
    write_trained(tmp_path / "v", VANILLA, 78.0)
    filled = table1(tmp_path)
    found = shown(filled, "CIFAR-100", "R-18", "automix")
    assert (found.mean, found.std, len(found.trials)) == (82.0, 1.0, 3)
    assert shown(filled, "CIFAR-100", "R-18", "mixup").std is None  # one trial has no deviation
    column = paper.cell("table1", "CIFAR-100", "R-18", "automix").column
    assert filled.gain[column] == 2.5 and filled.gain[0] is None
    assert any(note.startswith("3 of 70 cells have runs, of 1 to 3 trials") for note in filled.notes)
    assert any("CIFAR-100 R-18: CutMix" in note for note in filled.notes)
    [cell] = [cell for cell in where(filled) if cell["method"] == "automix"]
    assert [trial["run"] for trial in cell["trials"]] == [
        str(tmp_path / "deep" / "er" / f"a{seed}") for seed in range(3)
    ]
    assert cell["trials"][0]["commit"] == "0123456789" and cell["paper"] == 82.04
    assert {each.table.name for each in with_runs(measure([tmp_path]))} == {
        "table1",
        "table10",
        "table14",
        "fig9",
    }


def test_what_is_not_the_papers_experiment_is_marked_and_never_mixed_in(tmp_path: Path) -> None:
    write_trained(tmp_path / "whole", AUTOMIX, 82.0)
    write_trained(tmp_path / "short", AUTOMIX, 30.0, 1, ["train.epochs=8"])
    write_trained(tmp_path / "few", MIXUP, 99.0, 0, ["data.limit_per_class=50"], images=5_000)
    write_trained(tmp_path / "slow", VANILLA, 77.0, 0, ["optimizer.lr=0.05"], version="0.0.1")
    filled = table1(tmp_path)
    automix, mixup, vanilla = (
        shown(filled, "CIFAR-100", "R-18", method) for method in ("automix", "mixup", "vanilla")
    )
    assert automix.mean == 82.0 and len(automix.trials) == 1
    assert mixup.marks == ("about 5,000 of 50,000 images",)
    assert vanilla.marks == ("optimizer.lr=0.05 (recipe: 0.1)", "made by version 0.0.1")
    assert filled.gain[2] is None, "figures of other marks are not compared"
    text = render.to_text(filled)
    assert "99.00¹" in text or "99.00²" in text
    assert "about 5,000 of 50,000 images" in text and "trained alike" in text


def test_what_a_run_starts_from_is_part_of_the_experiment(tmp_path: Path) -> None:
    """Weights that the recipe does not start from are marked."""
    # without a file it does not matter how it would be read
    write_trained(tmp_path / "scratch", AUTOMIX, 82.0, 0, ["encoder.which=q"])
    for seed, name in ((1, "one"), (2, "other")):
        write_trained(tmp_path / name, AUTOMIX, 86.0 + seed, seed, [f"encoder.weights=/w/{name}.pth"])
    write_trained(tmp_path / "vanilla", VANILLA, 85.0, 0, ["encoder.weights=/w/a b.pth"])
    filled = table1(tmp_path)
    found = shown(filled, "CIFAR-100", "R-18", "automix")
    assert (found.mean, len(found.trials), found.marks) == (82.0, 1, ())
    assert shown(filled, "CIFAR-100", "R-18", "vanilla").marks == ("starts from /w/a b.pth",)
    assert {note.split("(")[1].split(";")[0] for note in filled.notes if "also there" in note} == {
        "starts from /w/one.pth",
        "starts from /w/other.pth",
    }
    bird = reference("CUB-200", "R-18", "automix", table="table5")
    for seed, options in enumerate(
        (
            ["encoder.weights=a.pth"],
            ["encoder.weights=a.pth"],
            ["encoder.weights=b.pth"],
            ["encoder.weights=a.pth", "encoder.which=q"],
        )
    ):
        write_trained(tmp_path / f"bird{seed}", bird, 80.0 + seed, seed, options)
    found = shown(fill(paper.table("5"), measure([tmp_path])), "CUB-200", "R-18", "automix")
    assert (found.mean, len(found.trials), found.marks) == (80.5, 2, ())


def test_fewer_classes_are_not_fewer_images(tmp_path: Path) -> None:
    write_trained(tmp_path / "classes", AUTOMIX, 95.0, 0, ["data.limit_classes=10"], images=5_000)
    write_trained(tmp_path / "images", MIXUP, 60.0, 0, ["data.limit_per_class=50"], images=5_000)
    write_trained(tmp_path / "all", VANILLA, 78.0, 0, ["data.limit_classes=100"])
    filled = table1(tmp_path)
    automix, mixup, vanilla = (
        shown(filled, "CIFAR-100", "R-18", method).marks for method in ("automix", "mixup", "vanilla")
    )
    assert automix == ("10 of 100 classes", "about 5,000 of 50,000 images")
    assert mixup == ("about 5,000 of 50,000 images",) and vanilla == ()
    assert all(gain is None for gain in filled.gain)


def test_a_shrunk_run_belongs_to_the_cell_that_it_was_planned_for(tmp_path: Path) -> None:
    folder = write_trained(tmp_path / "a", AUTOMIX, 30.0, 0, ["train.epochs=8", "method.alpha=0.3"])
    found = shown(table1(tmp_path), "CIFAR-100", "R-18", "automix")
    assert found.marks == ("8 of 800 epochs", "method.alpha=0.3 (recipe: 2.0)")
    variant = reference("CIFAR-100", "alpha 0.2", table="fig9")
    assert variant.recipe == AUTOMIX.recipe
    (folder / "planned.json").write_text(json.dumps({"attributes": dict(variant.attributes)}))
    assert shown(table1(tmp_path), "CIFAR-100", "R-18", "automix") is None
    found = shown(fill(paper.table("fig9"), measure([tmp_path])), "CIFAR-100", "alpha 0.2")
    assert found.marks == ("8 of 800 epochs", "method.alpha=0.3 (recipe: 0.2)")


def test_a_run_without_a_recipe_is_of_no_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trained(tmp_path / "a", AUTOMIX, 80.0)
    about = json.loads((folder / "run.json").read_text())
    for recipe in (None, {"name": "nowhere"}):
        (folder / "run.json").write_text(json.dumps({**about, "recipe": recipe}))
        assert not measure([tmp_path]).figures
    assert measure([tmp_path]).elsewhere == [folder]
    (folder / "run.json").write_text(json.dumps({**about, "recipe": None}))
    assert main(["tables", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("1 of 1 runs name no recipe in run.json") == 1


def test_runs_that_cannot_be_believed_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    for name in ("unfinished", "no_number", "no_config", "damaged"):
        write_trained(tmp_path / name, AUTOMIX, 80.0)
    (tmp_path / "unfinished" / "metrics.json").unlink()
    metrics = json.loads((tmp_path / "no_number" / "metrics.json").read_text())
    (tmp_path / "no_number" / "metrics.json").write_text(json.dumps({**metrics, "top1_median": float("nan")}))
    (tmp_path / "no_config" / "config.yaml").unlink()
    (tmp_path / "damaged" / "config.yaml").write_bytes(b"\xff\xfe: [")
    write_trained(tmp_path / "deep", AUTOMIX, 80.0)
    (tmp_path / "deep" / "config.yaml").write_text("- " * 200_000)
    measured = measure([tmp_path])
    assert not measured.figures and len(measured.problems) == 5
    told = "\n".join(measured.problems)
    for sentence in (
        "unfinished has not finished (15 epochs so far)",
        "no median top-1",
        "is missing or damaged",
    ):
        assert sentence in told
    assert all("\n" not in problem for problem in measured.problems)


def test_two_runs_of_one_seed_are_not_two_trials(tmp_path: Path) -> None:
    first, second = write_trained(tmp_path / "a", AUTOMIX, 80.0), write_trained(tmp_path / "b", AUTOMIX, 82.0)
    import os

    os.utime(first / "metrics.json", (1e9, 1e9))
    filled = table1(tmp_path)
    found = shown(filled, "CIFAR-100", "R-18", "automix")
    assert found.mean == 82.0 and len(found.trials) == 1
    assert any(f"seed 0 ran twice; {second} is later and counts" in note for note in filled.notes)


def test_robustness_localization_and_detection_lead_back_to_their_training(tmp_path: Path) -> None:
    robust = reference("automix", "RX-50", table="table6")
    bird = reference("CUB-200", "R-18", "automix", table="table5")
    backbone = reference("R-50", "100 epochs", "automix", table="table2")
    for name, trained in (("robust", robust), ("bird", bird), ("backbone", backbone)):
        write_trained(
            tmp_path / name, trained, 80.0, overrides=["encoder.weights=r18.pth"] if name == "bird" else []
        )
    write_evaluation(
        tmp_path / "robust",
        {"top1": 80.0, "fgsm_error": 55.5, "corruption_top1_19": 58.25, "corruption_made": "generated"},
    )
    (tmp_path / "wsol.json").write_text(
        json.dumps(
            {
                "MaxBoxAcc": 50.0,
                "MaxBoxAccV2": 54.5,
                "n_images": 5_794,
                "checkpoint": "elsewhere/bird/last.pt",
            }
        )
    )
    (tmp_path / "backbone" / "backbone.proof.json").write_text(
        json.dumps(
            {
                "file": "backbone.pkl",
                "source": str(tmp_path / "backbone" / "last.pt"),
                "matched": 1,
                "total": 1,
                "largest_difference": 0.0,
            }
        )
    )
    detection = tmp_path / "voc"
    detection.mkdir()
    (detection / "results.json").write_text(
        json.dumps(
            {
                "AP": 55.0,
                "AP50": 82.5,
                "AP75": 60.0,
                "data": "voc_2007_test",
                "detector": "Faster R-CNN, build_resnet_backbone, depth 50",
                "weights": str(tmp_path / "backbone" / "backbone.pkl"),
                "iterations": 12_000,
                "batch": 16,
                "seed": 1,
                "metrics": {},
            }
        )
    )
    measured = measure([tmp_path])
    six, seven, eight = (fill(paper.table(name), measured) for name in ("6", "7", "8"))
    assert shown(six, "automix", "corruption").mean == 58.25
    assert shown(six, "automix", "corruption").marks == ("corruptions made here, not the released files",)
    assert shown(six, "automix", "fgsm_error").mean == 55.5 and shown(six, "automix", "top1").mean == 80.0
    assert shown(eight, "R-18", "automix").mean == 54.5 and shown(eight, "R-18", "automix").marks == ()
    found = shown(seven, "VOC", "automix")
    assert found.mean == 82.5 and found.marks == ("12000 of 24,000 iterations",)
    assert shown(seven, "COCO", "ap", "automix") is None


@pytest.mark.parametrize(
    ("about", "images", "marks"),
    [
        # CIFAR's val is its test, and k is what AutoMix is evaluated by
        ({"which": "k", "split": "val"}, 10_000, ()),
        (
            {"split": "train", "which": "q"},
            50_000,
            (
                "evaluated with split train instead of test",
                "evaluated with encoder q instead of k",
                "evaluated on 50000 images instead of 10,000",
            ),
        ),
        (
            {"image_size": 64, "mean": [0, 0, 0], "test_crop_ratio": 0.5},
            10_000,
            (
                "evaluated with image_size 64 instead of 32",
                "evaluated with test_crop_ratio 0.5 instead of 1.0",
                "evaluated with mean [0, 0, 0] instead of [0.5071, 0.4867, 0.4408]",
            ),
        ),
        (
            {"dataset": "imagefolder", "std": None, "limit": 100},
            100,
            (
                "evaluated with dataset imagefolder instead of cifar100",
                "evaluated without saying its std",
                "evaluated on 100 images instead of 10,000",
            ),
        ),
    ],
)
def test_an_evaluation_that_is_not_the_papers_is_marked(
    tmp_path: Path, about: dict[str, object], images: int, marks: tuple[str, ...]
) -> None:
    run = write_trained(tmp_path / "a", reference("automix", "RX-50", table="table6"), 80.0)
    write_evaluation(run, {"fgsm_error": 55.5, "images": images}, **about)
    filled = fill(paper.table("6"), measure([tmp_path]))
    assert (
        shown(filled, "automix", "fgsm_error").marks == marks and shown(filled, "automix", "top1").marks == ()
    )


def test_table_11_counts_parameters_and_hours(tmp_path: Path) -> None:
    write_trained(tmp_path / "m", reference("Tiny-ImageNet", "R-18", "mixup"), 63.0, seconds=7200.0)
    write_trained(tmp_path / "a", reference("R-18", "l2", table="table11"), 67.0)
    filled = fill(paper.table("11"), measure([tmp_path]))
    assert (
        round(shown(filled, "mixup", "R-18", "params").mean, 2)
        == 11.27
        == paper.cell("11", "mixup", "R-18", "params").value
    )
    assert shown(filled, "mixup", "R-18", "hours").mean == 2.0 and shown(filled, "l2", "R-18").mean == 67.0
    # a classifier for mixed images and the Mix Block besides; the paper: 11.39
    assert round(shown(filled, "l2", "R-18", "params").mean, 2) == 11.38


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("some")
    for number, trained in enumerate(list(catalogue().references.values())[::4]):
        write_trained(
            folder / str(number),
            trained,
            50 + number % 40,
            number % 2,
            ["optimizer.lr=0.3"] if number % 3 == 0 else [],
        )
    return folder


def test_every_form_of_every_table(some: Path) -> None:
    every = with_runs(measure([some]))
    for filled in every:
        text = render.to_text(filled, 80)
        assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("  ")), (
            filled.table.name
        )
        assert max(map(len, text.splitlines())) <= 100
        rows = list(csv.reader(io.StringIO(render.to_csv(filled))))
        assert len({len(row) for row in rows}) == 1
        lines = [line for line in render.to_markdown(filled).splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1
        latex = render.to_latex(filled)
        width = re.search(r"\\begin\{tabular\}\{(l(r+))\}", latex)
        assert width
        for line in latex.splitlines():
            if line.endswith(r" \\") and "multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(width[2]), line
        body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
        assert body.isascii() and not re.search(r"(?<!\\)[%#]", body), filled.table.name
        for cell in where(filled):  # what is printed is what was measured
            assert f"{cell['mean']:.4f}" in render.to_csv(filled)
    found = json.loads(render.to_json(every))
    assert {table["table"] for table in found} == {filled.table.name for filled in every} and len(found) > 8


def test_latex_escapes() -> None:
    assert latex(r"50% & a_b #1 {x} ~^ \z $") == (
        r"50\% \& a\_b \#1 \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{}z \$"
    )
    assert latex("λ ± †") == r"$\lambda$ $\pm$ \dag{}" and latex("雪") == "?"


def latex(text: str) -> str:
    return render.latex_escaped(text)


def test_the_command(some: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", str(some), "--table", "Table 1", "--where"]) == 0
    out, err = capsys.readouterr()
    assert "Table 1. Top-1" in out and "where the figures are from" in out and "seed" in out
    assert (
        main(["tables", str(some), "--table", "table9", "--format", "csv", "-o", str(tmp_path / "t.csv")])
        == 0
    )
    assert "random grids" in (tmp_path / "t.csv").read_text()
    (tmp_path / "empty" / "run").mkdir(parents=True)
    write_trained(tmp_path / "foreign", AUTOMIX, 50.0, 0, ["encoder.name=resnet10_32"])
    assert main(["tables", str(tmp_path / "foreign"), "--table", "2"]) == 0
    out, err = capsys.readouterr()
    assert "No run of these 81 cells is there; `report plan table2` lists what is needed." in " ".join(
        out.split()
    )
    assert "1 of 1 runs are of a data set, encoder or method of no table" in err
    for arguments, sentence in (
        (["tables", str(some), "--table", "tabel1"], "did you mean table1"),
        (["tables", str(tmp_path / "nowhere")], "does not exist"),
    ):
        with pytest.raises(UserError, match=sentence):
            main(arguments)


def test_many_runs_take_seconds(tmp_path: Path) -> None:
    """A run costs a few milliseconds, so 2,000 of them are read in seconds; here 200, by CPU time."""
    write_trained(tmp_path / "0", AUTOMIX, 80.0)
    for number in range(1, 200):
        shutil.copytree(tmp_path / "0", tmp_path / str(number))
        config = (tmp_path / "0" / "config.yaml").read_text()
        (tmp_path / str(number) / "config.yaml").write_text(
            re.sub(r"(?m)^seed: 0", f"seed: {number}", config)
        )
        about = {"seed": number, "recipe": {"name": AUTOMIX.recipe.stem}}
        (tmp_path / str(number) / "run.json").write_text(json.dumps(about))
    begun = time.process_time()
    measured = measure([tmp_path])
    assert time.process_time() - begun < 5
    assert len(shown(fill(paper.table("1"), measured), "CIFAR-100", "R-18", "automix").trials) == 200


FILES = (
    "config.yaml",
    "metrics.json",
    "run.json",
    "log.csv",
    "planned.json",
    "evaluation.json",
    "wsol.json",
    "results.json",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@given(
    file=st.sampled_from(FILES),
    key=st.integers(0, 50),
    value=VALUES,
    cut=st.integers(0, 400),
    how=st.integers(0, 2),
)
def test_folders_damaged_by_hand_are_sentences(
    tmp_path_factory: pytest.TempPathFactory, file: str, key: int, value: object, cut: int, how: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    write_trained(folder, AUTOMIX, 80.0)
    (folder / "planned.json").write_text(json.dumps({"attributes": dict(AUTOMIX.attributes)}))
    write_evaluation(folder, {"fgsm_error": 50.0, "corruption_top1_19": 5.0})
    (folder / "wsol.json").write_text(
        json.dumps(
            {"MaxBoxAcc": 5.0, "MaxBoxAccV2": 5.0, "n_images": 5, "checkpoint": str(folder / "last.pt")}
        )
    )
    (folder / "results.json").write_text(
        json.dumps(
            {
                "AP": 5.0,
                "AP50": 5.0,
                "AP75": None,
                "detector": "x",
                "data": "voc_2007_test",
                "weights": str(folder / "last.pt"),
                "iterations": 5,
                "images": {},
            }
        )
    )
    path = folder / file
    text = path.read_text()
    if how == 0 and file.endswith(".json"):
        content = json.loads(text)
        content[list(content)[key % len(content)]] = value
        path.write_text(json.dumps(content))
    elif how == 1:
        path.write_text(text[: cut % max(len(text), 1)])
    else:
        lines = text.splitlines()
        lines[key % len(lines)] = json.dumps(value)[:30] + lines[key % len(lines)][cut % 7 :]
        path.write_text("\n".join(lines))
    measured = measure([folder])
    assert all("\n" not in problem for problem in measured.problems)
    for filled in with_runs(measured):
        for make in (render.to_text, render.to_markdown, render.to_latex, render.to_csv):
            make(filled)
    assert render.to_text(fill(paper.table("1"), Measured()))
