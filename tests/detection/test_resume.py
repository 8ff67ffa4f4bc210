"""A run that was killed and resumed ends with the bits of one that never stopped; files are whole."""

import json
import os
import signal
import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS, QUICK

FPN = CONFIGS / "embedded_R10_FPN.yaml"
OPTIONS = [
    *QUICK,
    "SOLVER.MAX_ITER",
    "8",
    "SOLVER.CHECKPOINT_PERIOD",
    "3",
    "TEST.EVAL_PERIOD",
    "4",
    "TEST.PRECISE_BN.ENABLED",
    "True",
    "TEST.PRECISE_BN.NUM_ITER",
    "2",
    "INPUT.MIN_SIZE_TRAIN",
    "(48, 64)",
    "INPUT.MAX_SIZE_TRAIN",
    "96",
]
KILLED = """
import os, signal, sys
from automix_transfer.detection import engine, trainer
step = engine.Trainer.run_step
def run_step(self):
    if self.iter == 7:
        os.kill(os.getpid(), signal.SIGKILL)  # after checkpoints 3 and 6 and an evaluation
    step(self)
engine.Trainer.run_step = run_step
trainer.run(sys.argv[1], "", sys.argv[2], sys.argv[3], sys.argv[4:], seed=3)
"""


def arguments(data, output, *options, resume=True, **others):
    return Namespace(
        config_file=str(FPN),
        opts=["OUTPUT_DIR", str(output), *options],
        data_root=data,
        class_names=None,
        num_gpus=0,
        num_machines=1,
        **{"resume": resume, "eval_only": False, **others},
    )


def resume(data, output, *options):
    from automix_transfer.detection.trainer import prepare, train

    given = arguments(data, output, *options)
    return train(prepare(given), given)


def weights(file):
    return torch.load(file, weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole(voc, tmp_path_factory):
    """A run that was not interrupted."""
    from automix_transfer.detection import trainer

    folder = tmp_path_factory.mktemp("whole")
    trainer.run(FPN, "", voc, folder, OPTIONS, seed=3)
    return folder


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(voc, whole, tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(FPN), str(voc), str(tmp_path), *OPTIONS],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000005.pth"
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["iteration"] == 4
    # the number of workers does not matter
    resume(voc, tmp_path, *OPTIONS, "SEED", "3", "DATALOADER.NUM_WORKERS", "2")
    a, b = weights(whole / "model_final.pth"), weights(tmp_path / "model_final.pth")
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    momenta = [
        torch.load(folder / "model_final.pth", weights_only=True)["trainer"]["_trainer"]["optimizer"][
            "state"
        ].values()
        for folder in (whole, tmp_path)
    ]
    for one, other in zip(*momenta, strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
    lines, lines_of_whole = (
        [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]
        for folder in (tmp_path, whole)
    )
    assert lines == lines_of_whole and len(lines) == len(set(lines)), "an iteration is written once"
    assert (
        json.loads((tmp_path / "results.json").read_text())["metrics"]
        == json.loads((whole / "results.json").read_text())["metrics"]
    )
    assert (
        json.loads((tmp_path / "best.json").read_text())["value"]
        == json.loads((whole / "best.json").read_text())["value"]
    )


@pytest.mark.parametrize("newest", ["model_0000000.pth", "model_0000001.pth", "model_final.pth"])
def test_what_comes_after_the_newest_checkpoint_is_made_up_for(voc, tmp_path, newest):
    """After the evaluation of the first iteration; after the last iteration, before or after
    ``model_final.pth``, and before metrics.json's lines of that iteration."""
    options = ["MODEL.WEIGHTS", "", *QUICK, "SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "1"]
    resume(voc, tmp_path, *options)
    final = tmp_path / "model_final.pth"
    before, lines = torch.load(final, weights_only=True), (tmp_path / "metrics.json").read_text()
    (tmp_path / "metrics.json").write_text(lines.splitlines(True)[0])
    for name in ("model_final.pth", "model_0000001.pth"):
        if newest < name:
            (tmp_path / name).unlink()
    (tmp_path / "last_checkpoint").write_text(newest)
    resume(voc, tmp_path, *options)
    after = torch.load(final, weights_only=True)
    assert all(torch.equal(before["model"][key], after["model"][key]) for key in before["model"])
    assert before["iteration"] == after["iteration"] and before.keys() == after.keys()
    assert before["trainer"]["iteration"] == after["trainer"]["iteration"]
    assert before["trainer"]["curves"] == after["trainer"]["curves"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"

    def curves(text):
        rows = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in row.items() if "time" not in k and "eta" not in k} for row in rows]

    assert curves((tmp_path / "metrics.json").read_text()) == curves(lines)


def test_a_resumed_run_needs_nothing_but_its_folder(voc, whole):
    """Finished: it is evaluated again. The settings that the config does not name are the run's own."""
    again = resume(voc, whole, "SOLVER.MAX_ITER", "8")
    assert again["seed"] == 3 and again["batch"] == 2


def test_order_is_the_same_for_any_start():
    from automix_transfer.detection.loader import Batches
    from automix_transfer.rng import derive_generator

    def batches(start, rank=0, world=1):
        made = Batches(
            [n % 3 == 0 for n in range(10)],
            3,
            lambda e: torch.randperm(10, generator=derive_generator(0, "o", e)).tolist(),
            rank,
            world,
        )
        made.start = start
        iterator = iter(made)
        return [next(iterator) for _ in range(12 - start)]

    assert batches(0)[5:] == batches(5)
    assert all(len({index % 3 == 0 for _, index in batch}) == 1 for batch in batches(0)), (
        "landscape and portrait apart"
    )
    positions = sorted(position for batch in batches(0) for position, _ in batch)
    assert len(set(positions)) == len(positions) == 36
    both = [{position for batch in batches(0, rank, 2) for position, _ in batch} for rank in (0, 1)]
    assert not both[0] & both[1] and {position % 2 for position in both[0]} == {0}


@pytest.mark.parametrize(
    "name", ["TrainingSampler", "RandomSubsetTrainingSampler", "RepeatFactorTrainingSampler", "NoSampler"]
)
def test_samplers(name):
    from automix_transfer.detection.config import default_config
    from automix_transfer.detection.loader import sample_order

    cfg = default_config()
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.RANDOM_SUBSET_RATIO = (
        name,
        0.9,
        0.5,
    )
    records = [{"annotations": [{"category_id": int(n == 0)}]} for n in range(10)]
    if name == "NoSampler":
        with pytest.raises(ValueError, match="NoSampler"):
            sample_order(cfg, records)
        return
    order = sample_order(cfg, records)
    assert order(1) == order(1) and order(0) != order(1)
    if name == "TrainingSampler":
        assert sorted(order(0)) == list(range(10))
    elif name == "RandomSubsetTrainingSampler":
        assert len(order(0)) == 5 and set(order(0)) == set(order(1))
    else:  # class 1 is in a tenth of the images: repeated sqrt(0.9 / 0.1) = 3 times
        assert order(0).count(0) == 3 and order(0).count(5) == 1


@pytest.mark.parametrize(
    ("iteration", "file"), [(3, "model_0000003.pth"), (7, "model_final.pth")], ids=["first", "last"]
)
def test_an_evaluation_hears_signals_and_is_made_up_for(
    iteration, file, voc, whole, tmp_path, monkeypatch, capsys
):
    """What was stopped is made up for, so the curves and the best are those of the whole run."""
    from automix_transfer.detection import engine, trainer
    from automix_transfer.signals import Interrupted

    test = engine.Trainer.test

    def stopped(cfg, model):
        if iteration <= int(os.environ.get("AT", "0")):
            os.kill(os.getpid(), signal.SIGINT)
        return test(cfg, model)

    def run_step(self, step=engine.Trainer.run_step):
        monkeypatch.setenv("AT", str(self.iter))
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(engine.Trainer, "test", staticmethod(stopped))
        patched.setattr(engine.Trainer, "run_step", run_step)
        with pytest.raises(Interrupted, match=f"{file} is written") as ended:
            trainer.run(FPN, "", voc, tmp_path, OPTIONS, seed=3)
    assert ended.value.code == 130 and (tmp_path / "last_checkpoint").read_text() == file
    resume(voc, tmp_path, *OPTIONS, "SEED", "3")
    times = {"time", "data_time", "eta_seconds", "rank_data_time"}
    curves = [
        [
            {key: value for key, value in json.loads(line).items() if key not in times}
            for line in (folder / "metrics.json").read_text().splitlines()
        ]
        for folder in (whole, tmp_path)
    ]
    assert curves[0] == curves[1] and sum("bbox/AP" in row for row in curves[0]) == 2
    a, b = (json.loads((folder / "best.json").read_text()) for folder in (whole, tmp_path))
    assert a == b


def test_a_stop_after_an_evaluation_leaves_the_checkpoint_before_it_as_it_was(voc, tmp_path, monkeypatch):
    from automix_transfer.detection import trainer
    from automix_transfer.detection.resuming.unfinished import Curves
    from automix_transfer.signals import Interrupted

    files = []

    def after_step(self, step=Curves.after_step):
        step(self)
        files.append((tmp_path / "model_0000000.pth").read_bytes())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Curves, "after_step", after_step)
    with pytest.raises(Interrupted, match="model_0000000.pth is written"):
        trainer.run(
            FPN, "", voc, tmp_path, [*QUICK, "SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "1"]
        )
    assert files == [(tmp_path / "model_0000000.pth").read_bytes()]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"


def test_an_evaluation_that_fails_leaves_the_detector_and_a_command(voc, tmp_path, monkeypatch):
    from automix_transfer.detection import engine, trainer

    def fails(cfg, model):
        raise MemoryError("no room")

    monkeypatch.setattr(engine.Trainer, "test", staticmethod(fails))
    monkeypatch.setattr(sys, "argv", ["detection/train_net.py", "--num-gpus", "0", "SOLVER.MAX_ITER", "2"])
    with pytest.raises(UserError, match=r"no room.*model_final\.pth.*--eval-only --resume --num-gpus 0"):
        trainer.run(FPN, "", voc, tmp_path, QUICK)
    assert (tmp_path / "model_final.pth").is_file() and not (tmp_path / "results.json").exists()


def test_a_signal_writes_a_checkpoint_and_names_the_command(voc, tmp_path, monkeypatch):
    from automix_transfer.detection import engine, trainer
    from automix_transfer.signals import Interrupted

    step = engine.Trainer.run_step

    def run_step(self):
        if self.iter == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(engine.Trainer, "run_step", run_step)
    monkeypatch.setattr(sys, "argv", ["detection/train_net.py", "--num-gpus", "0", "SOLVER.MAX_ITER", "8"])
    with pytest.raises(
        Interrupted, match=r"stopped after iteration 2.*--resume --num-gpus 0 SOLVER.MAX_ITER 8"
    ) as stopped:
        trainer.run(FPN, "", voc, tmp_path, OPTIONS)
    assert stopped.value.code == 143
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert torch.load(tmp_path / "model_0000001.pth", weights_only=True)["iteration"] == 1


def test_several_processes_stop_after_the_same_step(monkeypatch):
    """Only at every tenth step they ask each other; whoever got the signal stops all."""
    from automix_transfer.detection import engine
    from automix_transfer.signals import StopRequest

    asked = []
    monkeypatch.setattr(
        engine.comm, "all_gather", lambda number: asked.append(number) or [number, signal.SIGTERM]
    )
    stop = StopRequest()
    assert [engine.stop_number(stop, step, 2) for step in (9, 10, 11, 20)] == [
        0,
        signal.SIGTERM,
        0,
        signal.SIGTERM,
    ]
    assert len(asked) == 2
    stop.number = signal.SIGINT
    assert engine.stop_number(stop, 7, 1) == signal.SIGINT and len(asked) == 2


def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path):
    from automix_transfer.detection.resuming.checkpoints import latest

    assert latest(tmp_path) is None
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    (tmp_path / "model_0000005.pth").write_bytes((whole / "model_0000005.pth").read_bytes()[:1000])
    with pytest.raises(UserError, match="no checkpoint in .* can be resumed.*damaged"):
        latest(tmp_path)
    (tmp_path / "model_0000002.pth").write_bytes((whole / "model_0000002.pth").read_bytes())
    assert latest(tmp_path)[0].name == "model_0000002.pth"
    torch.save({"model": {}, "iteration": 9, "trainer": {"iteration": 9}}, tmp_path / "model_0000009.pth")
    (tmp_path / "model_0000002.pth").unlink()
    with pytest.raises(UserError, match="no state of the optimizer"):
        latest(tmp_path)


def test_a_checkpoint_replaces_the_old_one_only_when_it_reads_back(tmp_path, monkeypatch):
    from automix_transfer.detection.resuming import checkpoints

    model = torch.nn.Linear(2, 2)
    keeper = checkpoints.SafeCheckpointer(model, str(tmp_path))
    keeper.save("model_final", iteration=1)
    before = (tmp_path / "model_final.pth").read_bytes()
    monkeypatch.setattr(checkpoints, "save_torch", lambda path, value: path.write_bytes(b"half a file"))
    with pytest.raises(UserError, match="damaged"):
        keeper.save("model_final", iteration=2)
    assert (tmp_path / "model_final.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_final.pth"]
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN or infinite after iteration 3.*BASE_LR"):
        keeper.save("model_final", iteration=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SEED", "4"], "begun with SEED 3, but now it is 4"),
        (["SOLVER.BASE_LR", "0.5"], "begun with SOLVER.BASE_LR 0.03, but now it is 0.5"),
        (["SOLVER.IMS_PER_BATCH", "4"], "begun with SOLVER.IMS_PER_BATCH 2"),
    ],
)
def test_a_resumed_run_trains_what_was_begun(voc, whole, options, message):
    from automix_transfer.detection.trainer import prepare

    with pytest.raises(UserError, match=message):
        prepare(arguments(voc, whole, *options))


def test_folders_of_other_runs(voc, whole, tmp_path):
    from automix_transfer.detection.trainer import prepare

    with pytest.raises(UserError, match="OUTPUT_DIR .* --resume"):
        prepare(arguments(voc, whole, "MODEL.WEIGHTS", "", resume=False))
    with pytest.raises(UserError, match="does not set MODEL.WEIGHTS"):
        prepare(arguments(voc, tmp_path))  # nothing to resume: it starts, and so it has to know from what
    (tmp_path / "last_checkpoint").write_text("x.pth")
    with pytest.raises(UserError, match="no config.yaml"):
        prepare(arguments(voc, tmp_path))


def test_a_diverging_run_says_what_to_do(voc, tmp_path):
    from automix_transfer.detection import trainer

    with pytest.raises(UserError, match="infinite or NaN.*lower SOLVER.BASE_LR"):
        trainer.run(
            FPN,
            "",
            voc,
            tmp_path,
            [*OPTIONS, "SOLVER.BASE_LR", "1e30", "SOLVER.CLIP_GRADIENTS.ENABLED", "False"],
        )


def test_an_image_that_vanishes_is_named(voc, tmp_path):
    from automix_transfer.detection.loader import Samples

    samples = Samples(
        [{"file_name": str(tmp_path / "gone.jpg")}], lambda record: open(record["file_name"]), 0, "x"
    )
    with pytest.raises(UserError, match="gone.jpg"):
        samples[(0, 0)]
