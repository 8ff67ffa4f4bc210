"""The runs of a table: their commands, what is done of them, how long they take, and that the ablations'
settings train."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.paper import measured
from automix_transfer.paper import published as paper
from automix_transfer.paper.catalogue import alpha_of, catalogue, variant_of
from automix_transfer.paper.plans import plan, times
from automix_transfer.paper.plans.plan import Settings, planned
from automix_transfer.paper.plans.scale import Scale, parse_scale
from automix_transfer.paper.references import plain_config, training_key
from automix_transfer.report.cli import main
from automix_transfer.training.settings import flatten, load_experiment
from automix_transfer.training.setup.build_model import build_model
from tests.paper.folders import write_evaluation, write_trained

ABLATIONS = [
    cell
    for table in (*map(paper.table, ("9", "10", "11")), *paper.figures().values())
    for cell in table
    if "variant" in cell.attributes and variant_of(cell.attributes) is not None
]


@pytest.mark.parametrize(
    ("variant", "method"),
    dict.fromkeys((cell.attributes["variant"], cell.attributes["method"]) for cell in ABLATIONS),
)
def test_every_ablation_loads_and_takes_a_step(variant: str, method: str) -> None:
    """The recipe with the row's settings, checked as a run checks it, changes what it should and trains; the
    network is a tiny one."""
    cell = next(
        cell
        for cell in ABLATIONS
        if (cell.attributes["variant"], cell.attributes["method"]) == (variant, method)
    )
    reference = catalogue().of(cell.attributes)
    assert reference is not None
    tiny = ["data.root=.", "encoder.name=resnet10_32", "data.image_size=32"]
    experiment = load_experiment([reference.recipe], [*reference.overrides, *tiny])
    ours, plain = (
        flatten(dataclasses.asdict(each)) for each in (experiment, load_experiment([reference.recipe], tiny))
    )
    assert {key for key, value in ours.items() if plain[key] != value} == set(
        variant_of(cell.attributes) or ()
    )
    torch.manual_seed(0)
    trained = build_model(experiment, list("abcde"))[0].train()
    before = [parameter.detach().clone() for parameter in trained.parameters() if parameter.requires_grad]
    output = trained(torch.randn(4, 3, 32, 32), torch.arange(4), torch.Generator().manual_seed(0))
    output.loss.backward()
    torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.1).step()
    trained.after_step(0.5)
    assert torch.isfinite(output.loss)
    assert any(
        not torch.equal(old, new)
        for old, new in zip(before, (p for p in trained.parameters() if p.requires_grad), strict=True)
    )


def test_the_ablations_of_tables_9_to_11_are_all_there() -> None:
    """Every row that trains AutoMix with ResNet-18 has its recipe, and rows of one column differ."""
    for name in ("9", "10", "11", "fig9", "fig10"):
        for cell in paper.table(name):
            if cell.attributes["method"] == "automix" and cell.attributes.get("encoder") == "R-18":
                assert catalogue().of(cell.attributes) is not None, cell
    configs = [catalogue().of(cell.attributes) for row in paper.table("9").cells for cell in row[:1]]
    assert (
        len({json.dumps(reference.config, sort_keys=True, default=str) for reference in configs if reference})
        == 4
    )


def test_every_cell_has_a_recipe_but_those_that_the_library_does_not_offer() -> None:
    """Adapted recipes have appendix A.1's α as the shipped ones have, options that their methods know, and a
    folder of their own."""
    tables = [paper.table(str(number)) for number in (*range(1, 12), 13, 14)]
    found = planned([*tables, *paper.figures().values()], Settings(trials=1))
    assert found.without == ["Table 4, Swin-T, TransMix†"]
    assert len({run.folder for run in found.runs}) == len(found.runs)
    checked = set()
    for reference in catalogue().references.values():
        alpha = alpha_of(reference.attributes)
        assert alpha is None or float(reference.config["method.alpha"]) == alpha, reference.recipe.name
        assert reference.config["method.name"] == reference.attributes["method"]
        kind = (reference.attributes["method"], reference.attributes["procedure"])
        if (
            any(override.startswith("method.name=") for override in reference.overrides)
            and kind not in checked
        ):
            checked.add(kind)
            load_experiment([reference.recipe], [*reference.overrides, "data.root=."])
    assert len(checked) > 10


def test_plain_configs_are_what_training_reads() -> None:
    """The quick reading of recipes gives what the checked one gives, for one recipe of each procedure."""
    by_procedure = {
        (reference.attributes["procedure"], reference.attributes["method"]): reference
        for reference in catalogue().references.values()
        if reference.attributes["method"] in ("automix", "mixup_cutmix")
    }
    for reference in by_procedure.values():
        checked = load_experiment([reference.recipe], [*reference.overrides, "data.root=x"])
        ours = plain_config(reference.recipe, [*reference.overrides, "data.root=x"])
        for key, value in flatten(dataclasses.asdict(checked)).items():
            same = (
                ours[key] == value
                or (isinstance(value, tuple | list) and list(ours[key]) == list(value))
                or float(ours[key]) == value
            )
            assert same, (reference.recipe.name, key, ours[key], value)


def test_a_plan_is_what_the_table_needs() -> None:
    settings = Settings(data_roots={"cifar100": "/data/c"})
    found = planned([paper.table("1"), paper.table("14")], settings, ["CIFAR-100", "R-18", "automix,mixup"])
    # 800 epochs are in both tables
    assert len(found.runs) == 3 * 8 and not found.without and not found.roots_missing
    run = next(run for run in found.runs if run.reference.attributes["epochs"] == 800 and run.seed == 2)
    [step] = run.steps
    arguments = list(step.command[step.command.index("--config-file") + 2 :])
    experiment = load_experiment([run.reference.recipe], arguments)
    assert (experiment.seed, experiment.data.root, experiment.output) == (2, "/data/c", str(run.folder))
    assert len({run.folder for run in found.runs}) == len(found.runs)
    assert [cell.split(",")[0] for cell in run.cells] == ["Table 1", "Table 14"]
    missing = planned([paper.table("1")], Settings(), ["Tiny-ImageNet", "R-18"])
    assert missing.roots_missing == ["tiny_imagenet"]


def test_weights_that_trainings_start_from_are_asked_for(tmp_path: Path) -> None:
    options = [
        "run",
        "table5",
        "--only",
        "CUB-200",
        "R-18",
        "automix",
        "--data.root",
        "/d",
        "--output",
        str(tmp_path),
        "--print",
    ]
    with pytest.raises(UserError, match="R-18"):
        main(options)
    assert main([*options, "--weights", "R-18=r18.pth", "--trials", "1", "-o", str(tmp_path / "lines")]) == 0
    assert "encoder.weights=r18.pth" in shlex.split((tmp_path / "lines").read_text())
    assert planned([paper.table("4")], Settings(trials=1), ["Swin-T", "attentivemix"]).weights_missing == [
        "teacher"
    ]


def test_what_is_measured_after_training_is_planned_too() -> None:
    steps = {
        table: [step.name for step in planned([paper.table(table)], Settings(trials=1), words).runs[0].steps]
        for table, words in (("6", ["automix"]), ("7", ["automix"]), ("8", ["automix", "R-18"]))
    }
    assert steps == {
        "6": ["train", "evaluate"],
        "7": ["train", "export", "detect VOC", "detect COCO"],
        "8": ["train", "localize"],
    }
    [run] = planned([paper.table("7")], Settings(trials=1, scale=Scale(0.01, 1)), ["automix", "VOC"]).runs
    assert "SOLVER.MAX_ITER 240 SOLVER.STEPS '(180, 220)'" in shlex.join(run.steps[-1].command)


def test_an_evaluation_of_something_else_does_not_prove_table_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "plan",
        "table6",
        "--only",
        "automix",
        "--trials",
        "1",
        "--output",
        str(tmp_path),
        "--no-measure",
    ]
    reference = catalogue().of(paper.cell("6", "automix", "fgsm_error").attributes)
    assert reference is not None
    folder = write_trained(tmp_path / "a", reference, 80.0)
    figures = {"fgsm_error": 55.0, "corruption_top1_19": 50.0, "corruption_made": "generated"}
    for content, more, state in (
        ({"top1": 80.0}, [], "trained, to do: evaluate"),
        (figures, [], "done"),
        (figures, ["--corrupted", "/c"], "trained, to do: evaluate"),
        ({**figures, "corruption_made": "/c"}, ["--corrupted", "/c/"], "done"),
        ({**figures, "fgsm_error": None}, [], "trained, to do: evaluate"),
    ):
        write_evaluation(folder, content)
        assert main([*options, *more]) == 0
        assert f"seed 0: {state}" in capsys.readouterr().out


def test_scale() -> None:
    reference = catalogue().of(paper.cell("2", "R-50", "100 epochs", "automix").attributes)
    assert reference is not None
    assert Scale(0.05, 0.1).overrides(reference) == ["train.epochs=5", "data.limit_per_class=128"]
    assert (
        parse_scale("0.01") == Scale(0.01, 0.01)
        and parse_scale("epochs=0.5") == Scale(0.5, 1.0)
        and Scale().overrides(reference) == []
    )
    experiment = load_experiment(
        [reference.recipe], ["data.root=x", *Scale(0.001, 1e-6).overrides(reference)]
    )
    assert (
        experiment.train.epochs == 1 and experiment.data.limit_per_class * 1000 >= experiment.train.batch_size
    )


@given(
    st.text(max_size=12)
    | st.sampled_from(["0", "2", "nan", "epochs=", "data=0.1,epochs=-1", "inf", ",", "epochs=1e-400"])
)
def test_scales_that_are_none(text: str) -> None:
    try:
        scale = parse_scale(text)
    except UserError as error:
        assert "--scale" in str(error)
    else:
        assert 0 < scale.epochs <= 1 and 0 < scale.data <= 1


def cifar10(root: Path) -> Path:
    """Class folders with the released names: 10 training and 2 test images each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for name in (
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                    folder / f"{number}.png"
                )
    return root


@pytest.fixture
def tiny_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes of two cells of Table 1, with a network that trains in seconds."""
    configs = tmp_path / "pretrain"
    configs.mkdir(parents=True)
    for method in ("vanilla", "mixup"):
        (configs / f"cifar10_r18_{method}.yaml").write_text(
            f"reproduces: {{table: 1, cell: [CIFAR-10, R-18], method: {method}, top1: 95.50}}\n"
            "encoder: {name: resnet10_32}\nmethod: "
            f"{{name: {method}}}\n"
            "data: {dataset: cifar10, image_size: 32, crop: pad, workers: 0}\n"
            "train: {epochs: 800, batch_size: 100, device: cpu}\nschedule: {warmup_epochs: 5}\n"
        )
    for module in (plan, measured):
        monkeypatch.setattr(module, "catalogue", lambda: catalogue((configs,)))
    return tmp_path


@pytest.mark.slow
def test_a_plan_runs_is_shown_and_is_not_run_again(
    tiny_recipes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, output = cifar10(tiny_recipes / "data"), tiny_recipes / "runs"
    options = [
        "table1",
        "--only",
        "CIFAR-10",
        "R-18",
        "vanilla",
        "--trials",
        "1",
        "--output",
        str(output),
        "--no-measure",
        "--scale",
        "epochs=0.0025,data=0.002",
        "--data.root",
        f"cifar10={root}",
    ]
    assert main(["run", *options]) == 0
    out = capfd.readouterr().out
    assert "1 run: 0 done, 0 begun, 1 to do." in out and "done: 1 run;" in out
    assert main(["tables", str(output), "--table", "1", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    vanilla = next(row for row in rows if row[""] == "Vanilla")
    assert vanilla["CIFAR-10 R-18 trials"] == "1" and vanilla["CIFAR-10 R-18 paper"] == "95.50"
    assert vanilla["CIFAR-10 R-18 marks"] == "2 of 800 epochs; about 100 of 50,000 images"
    [log] = (output / "logs").iterdir()
    before = log.read_text()
    assert main(["run", *options]) == 0
    assert log.read_text() == before and "1 done" in capfd.readouterr().out
    # as if it had been stopped
    (output / "cifar10_r18_vanilla-epochs0.0025-data0.002" / "seed0" / "metrics.json").unlink()
    assert main(["plan", *options]) == 0
    text = capfd.readouterr().out
    assert "[.] seed 0: epoch 2 of 2" in text and "--resume" in text


@pytest.mark.slow
def test_commands_for_a_scheduler(tiny_recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tiny_recipes / "runs"
    options = [
        "run",
        "table1",
        "--only",
        "CIFAR-10",
        "R-18",
        "vanilla,mixup",
        "--trials",
        "2",
        "--output",
        str(output),
        "--data.root",
        "/d d",
    ]
    assert main([*options, "--print", "--launcher", "torchrun --nproc-per-node 8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(
        shlex.split(line)[:3] == ["torchrun", "--nproc-per-node", "8"] for line in lines
    )
    assert all("data.root=/d d" in shlex.split(line) for line in lines)
    written = json.loads((output / "cifar10_r18_mixup" / "seed1" / "planned.json").read_text())
    assert written["attributes"]["method"] == "mixup" and written["scale"] == {"epochs": 1.0, "data": 1.0}
    script = tiny_recipes / "array.sh"
    assert main([*options, "--print", "slurm", "-o", str(script)]) == 0
    text = script.read_text().replace("bash -c", "echo")
    done = subprocess.run(
        ["bash", "-c", text],
        capture_output=True,
        text=True,
        env={"SLURM_ARRAY_TASK_ID": "3", "PATH": "/bin:/usr/bin"},
    )
    assert done.returncode == 0 and done.stdout.strip() == shlex.join(
        shlex.split(lines[3].removeprefix("torchrun --nproc-per-node 8 --no-python "))
    ), done
    assert "--array=0-3" in text


def test_what_is_done_elsewhere_counts(tiny_recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = plan.catalogue().of(paper.cell("1", "CIFAR-10", "R-18", "vanilla").attributes)
    assert reference is not None
    folder = write_trained(tiny_recipes / "runs" / "mine", reference, 95.0, 1)
    options = [
        "plan",
        "table1",
        "--only",
        "CIFAR-10",
        "R-18",
        "vanilla",
        "--output",
        str(tiny_recipes / "runs"),
        "--no-measure",
    ]
    assert main(options) == 0
    assert (
        "[x] seed 1: done" in (out := capsys.readouterr().out)
        and "[ ] seed 0" in out
        and "3 runs: 1 done" in out
    )
    (folder / "metrics.json").unlink()
    assert main(options) == 0
    assert "3 runs: 0 done" in capsys.readouterr().out


def test_a_finished_run_of_other_settings_is_not_done(
    tiny_recipes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether --set changed the settings now or when it was trained; settings that change nothing of what is
    trained do not count."""
    output = tiny_recipes / "runs"
    reference = plan.catalogue().of(paper.cell("1", "CIFAR-10", "R-18", "vanilla").attributes)
    assert reference is not None
    folder = write_trained(output / "cifar10_r18_vanilla" / "seed0", reference, 95.0)
    options = [
        "table1",
        "--only",
        "CIFAR-10",
        "R-18",
        "vanilla",
        "--trials",
        "1",
        "--output",
        str(output),
        "--data.root",
        "/d",
        "--no-measure",
    ]
    for more in (
        [],
        ["--set", "data.workers=8"],
        ["--set", "optimizer.lr=5.0", f"optimizer.lr={reference.config['optimizer.lr']}"],
    ):
        assert main(["plan", *options, *more]) == 0
        assert "[x] seed 0: done" in capsys.readouterr().out
    other = ["--set", "optimizer.lr=5.0", "encoder.weights=w.pth"]
    assert main(["plan", *options, *other]) == 0
    text = capsys.readouterr().out
    assert (
        "[!] seed 0: trained otherwise\n" in text
        and "1 run: 0 done, 0 begun, 0 to do, 1 trained otherwise." in text
    )
    told = f"{folder} .*encoder.weights= instead of w.pth, optimizer.lr=0.1 instead of 5.0.*--output"
    assert re.search(told, text)
    for command in (["run", *options, *other], ["run", *options, *other, "--print"]):
        with pytest.raises(UserError, match=told):
            main(command)
    write_trained(folder, reference, 95.0, 0, ["optimizer.lr=5.0"])
    with pytest.raises(UserError, match="optimizer.lr=5.0 instead of 0.1"):
        main(["run", *options])


def test_fine_tuning_from_other_weights_is_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "plan",
        "table5",
        "--only",
        "CUB-200",
        "R-18",
        "automix",
        "--trials",
        "1",
        "--output",
        str(tmp_path),
        "--no-measure",
    ]
    reference = catalogue().of(paper.cell("5", "CUB-200", "R-18", "automix").attributes)
    assert reference is not None
    write_trained(tmp_path / "a", reference, 80.0, 0, ["encoder.weights=/w/a.pth"])
    for weights, state in (
        ([], "done"),
        (["--weights", "R-18=/w/../w/a.pth"], "done"),
        (["--weights", "R-18=/w/b.pth"], "trained otherwise"),
    ):
        assert main([*options, *weights]) == 0
        assert f"seed 0: {state}" in capsys.readouterr().out


def test_the_last_of_a_setting_counts(
    tiny_recipes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        times.StepTimes, "hours", lambda self, reference, epochs, images: asked.append((epochs, images))
    )
    assert (
        main(
            [
                "plan",
                "table1",
                "--only",
                "CIFAR-10",
                "R-18",
                "vanilla",
                "--trials",
                "1",
                "--output",
                str(tiny_recipes),
                "--scale",
                "0.01",
                "--set",
                "train.epochs=70",
                "train.epochs=60",
                "data.limit_per_class=7",
                "data.limit_per_class=9",
            ]
        )
        == 0
    )
    assert asked == [(60, 90)]


def test_times_are_measured_once(
    tiny_recipes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "plan",
        "table1",
        "--only",
        "CIFAR-10",
        "R-18",
        "vanilla,mixup",
        "--trials",
        "1",
        "--output",
        str(tiny_recipes / "runs"),
    ]
    assert main(options) == 0
    out, err = capsys.readouterr()
    assert err.count("measuring") == 2 and "one after another on this machine" in out and "not counted" in out
    kept = json.loads((tiny_recipes / "runs" / "step_times.json").read_text())
    assert len(kept) == 2 and all(row["step"] > 0 and row["evaluate"] > 0 for row in kept.values())
    monkeypatch.setattr(times, "measure", lambda *_: pytest.fail("measured again"))
    assert main(options) == 0
    assert capsys.readouterr().out == out
    (tiny_recipes / "runs" / "step_times.json").write_text('{"damaged": ')
    assert main([*options, "--no-measure"]) == 0
    assert "time not measured" in (text := capsys.readouterr().out) and "not valid JSON" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", "tabel3"], "did you mean table3"),
        (["plan", "table12"], "settings and no results"),
        (["plan", "table1", "--trials", "0"], "--trials 0"),
        (["plan", "table1", "--scale", "2"], "--scale 2"),
        (["plan", "table1", "--only", "R-1800"], "no cell of table1"),
        (["plan", "table1", "--set", "train.epochs"], "not of the form key=value"),
        pytest.param(
            ["run", "table1", "--only", "CIFAR-10", "R-18", "vanilla", "--no-measure"],
            "folder of cifar10",
            id="arguments6-the folder of cifar10 is not known",
        ),
        (
            [
                "run",
                "table1",
                "--only",
                "CIFAR-10",
                "R-18",
                "vanilla",
                "--data.root",
                "/d",
                "--set",
                "train.epoch=3",
                "--no-measure",
            ],
            "did you mean 'epochs'",
        ),
        (["plan", "table1", "--weights", "R-18"], "NAME=FILE"),
        pytest.param(
            ["plan", "table1", "--only", "CIFAR-10", "--set", "train.epochs=abc"],
            "'train.epochs'",
            id="arguments9-'train.epochs' has a value of the wrong type",
        ),
        (["plan", "table1", "--only", "CIFAR-10", "--set", "train.epochs=["], "not valid YAML"),
        pytest.param(
            ["plan", "table1", "--set", "output=x", "seed=7"],
            "--set output=x .*--output DIR",
            id="arguments11---set output=x .* give --output DIR",
        ),
        (["plan", "table1", "--set", "seed=7"], "give --trials N"),
        (["plan", "table1", "--set", "data.root=x"], "give --data.root DIR"),
        (["plan", "table1", "--set", "data={root: x}"], "SECTION.KEY=VALUE"),
        (["plan", "table1", "--data.root", "/d", "--data.root", "cifr100=/c"], "did you mean cifar100"),
        pytest.param(
            ["plan", "table1", "--data.root", "x=y"], r"\./x=y", id="arguments16-or write ./x=y for a folder"
        ),
        (["plan", "table1", "--data.root", "cifar10="], "names no folder"),
        (["plan", "table1", "--launcher", "torchrun '"], "open quote"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        main([*arguments, "--output", str(tmp_path / "runs")])
    assert "\n" not in str(caught.value)


def test_a_recipe_that_cannot_be_read_is_told_and_the_others_serve(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(
        "reproduces: {table: 1, cell: [CIFAR-10, R-18], method: vanilla, top1: 95.50}\n"
        "method: {name: vanilla}\n"
    )
    (tmp_path / "bad.yaml").write_text(
        "reproduces: {table: 1, cell: [CIFAR-10, R-18], method: mixup, top1: 96.62}\nbase: nowhere.yaml\n"
    )
    found = catalogue((tmp_path,))
    assert len(found.problems) == 1 and "nowhere.yaml does not exist" in found.problems[0]
    assert training_key(paper.cell("1", "CIFAR-10", "R-18", "vanilla").attributes) in found.references
