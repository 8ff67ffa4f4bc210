"""Two processes on gloo, started by torchrun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from automix_transfer.data.loader import eval_loader, train_loader
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.errors import UserError
from automix_transfer.io import load_torch, read_json
from automix_transfer.mixing.methods.vanilla import Vanilla
from automix_transfer.models import create_encoder
from automix_transfer.training import distributed
from automix_transfer.training.distributed import World, shares
from automix_transfer.training.loop import train
from automix_transfer.training.settings import TrainConfig
from automix_transfer.training.setup.build_run import build_run
from automix_transfer.training.validation import evaluate
from tests.training.processes import assert_same_run, finish_ranks, start_ranks
from tests.training.tiny import FAST

# Each rank trains a run to its end, then the same run again, which a SIGTERM to rank 1 alone stops in step 4
# and which is then resumed.
SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from automix_transfer.training import joining
from automix_transfer.training.loop import fit
from automix_transfer.training.record.checkpoint import load_latest
from automix_transfer.training.settings import load_experiment
from automix_transfer.training.setup.build_run import build_run
from automix_transfer.signals import Interrupted

whole = load_experiment(overrides=sys.argv[1:])
stopped = replace(whole, output=whole.output + "_stopped")
world = joining.start("cpu")
run = build_run(whole, world)
fit(run)
torch.save(run.method.state_dict(), Path(whole.output) / f"rank{world.rank}.pt")

run = build_run(stopped, world)
after_step = run.method.after_step
def stop_in_step_4(progress):
    after_step(progress)
    if run.at.step == 4 and world.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
run.method.after_step = stop_in_step_4
try:
    fit(run)
    sys.exit("was not stopped")
except Interrupted as interrupted:
    assert interrupted.code == 143 and run.at.step == 4
torch.distributed.barrier()
fit(build_run(stopped, world, load_latest(Path(stopped.output))))
joining.stop(world)
"""


@pytest.mark.slow
def test_two_processes(experiment, images: Path, tmp_path: Path) -> None:
    script, output = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    overrides = [
        *FAST,
        f"data.root={images}",
        f"output={output}",
        "method.name=automix",
        "train.eval_batch_size=3",
        "train.accumulate=2",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            str(script),
            *overrides,
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    first, second = load_torch(output / "rank0.pt"), load_torch(output / "rank1.pt")
    assert first.keys() == second.keys()
    tensors = [name for name in first if isinstance(first[name], torch.Tensor)]
    # weights, moving average and BatchNorm statistics
    assert all(torch.equal(first[name], second[name]) for name in tensors)
    assert_same_run(output, Path(f"{output}_stopped"))

    # 13 images over two ranks in batches of 3 (7 and 6 images): the same figures as one process that counts
    # them all
    run = build_run(experiment("method.name=automix", "train.accumulate=2"), World(0, 1, torch.device("cpu")))
    run.method.load_state_dict(first)
    alone = evaluate(
        run.method.inference_encoder(), eval_loader(eval_dataset(run.experiment.data), 13), run.world
    )
    last = load_torch(output / "last.pt")["history"][-1]
    assert (last["top1"], last["top5"]) == (alone["top1"], alone["top5"])
    assert abs(last["val_loss"] - alone["loss"]) < 1e-6
    assert read_json(output / "metrics.json")["top1_last"] == alone["top1"]

    with pytest.raises(UserError, match="2 processes"):
        train(experiment(*overrides), resume=True)


def test_two_ranks_see_what_one_process_sees(experiment) -> None:
    """The images of each step are those of the single process, so train.batch_size means the same for any
    number of processes."""
    settings = experiment()
    data = train_dataset(settings.data, settings.seed)

    def steps(size: int) -> list[list[int]]:
        loaders = [
            train_loader(data, 8 // size, settings.seed, rank=rank, world_size=size) for rank in range(size)
        ]
        return [
            sorted(index for part in parts for index in part[2].tolist())
            for parts in zip(*loaders, strict=True)
        ]

    assert steps(1) == steps(2)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(experiment, tmp_path: Path) -> None:
    """Without BatchNorm and draws in the step the same network up to the order of float32 sums, in any
    division of the batch."""
    plain = ("encoder.name=test_convnext", "train.epochs=2", "optimizer.lr=0.1")
    runs = {
        "one": experiment(*plain, f"output={tmp_path / 'one'}"),
        "passes": experiment(*plain, f"output={tmp_path / 'passes'}", "train.accumulate=4"),
        "both": experiment(*plain, f"output={tmp_path / 'both'}", "train.accumulate=2"),
    }
    ranks = start_ranks(runs["both"])
    train(runs["one"])
    train(runs["passes"])
    finish_ranks(ranks)
    found = {name: load_torch(tmp_path / name / "last.pt") for name in runs}
    start = build_run(experiment(*plain), World(0, 1, torch.device("cpu"))).method.state_dict()
    for name in ("passes", "both"):
        for key, value in found["one"]["model"].items():
            moved = (value - start[key]).abs().max()
            assert (found[name]["model"][key] - value).abs().max() <= 1e-4 * moved + 1e-7, (name, key)
        for ours, theirs in zip(found[name]["history"], found["one"]["history"], strict=True):
            assert ours["top1"] == theirs["top1"] and ours["val_loss"] == pytest.approx(
                theirs["val_loss"], rel=1e-4
            )
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)  # of the images of all processes


def test_sync_batchnorm_keeps_the_activations_behind_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's norms with an activation in them, which torch's own conversion drops."""
    monkeypatch.setattr(distributed, "DistributedDataParallel", lambda method, **_: method)
    method, images = Vanilla(create_encoder("efficientnet_b0", 4)).eval(), torch.randn(2, 3, 64, 64)
    before = method.encoder(images)
    parameters = list(method.parameters())
    distributed.wrap(method, World(0, 2, torch.device("cpu")), sync_batchnorm=True)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in method.modules())
    assert torch.equal(method.encoder(images), before)
    # the optimizer holds them
    assert all(one is other for one, other in zip(method.parameters(), parameters, strict=True))


def test_sync_batchnorm_on_cpus_is_refused(experiment) -> None:
    with pytest.raises(UserError, match="train.sync_batchnorm"):
        build_run(experiment("train.sync_batchnorm=true"), World(0, 2, torch.device("cpu")))


def test_how_a_step_is_dealt_out_is_said() -> None:
    config, cpu = TrainConfig(batch_size=256, accumulate=4), torch.device("cpu")
    assert shares(config, World(0, 2, cpu)).startswith(
        "a step is 256 images = 2 processes x 4 passes x 32, as train.batch_size says; "
    )
    assert "= 1 process x 4 passes x 64" in shares(config, World(0, 1, cpu))
    assert shares(TrainConfig(batch_size=256), World(0, 1, cpu)) == ""
