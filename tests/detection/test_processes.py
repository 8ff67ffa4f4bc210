"""A detector trained by two processes: on the CPU with gloo, since this needs GPUs otherwise.

Detectron2's `launch` asks for CUDA, and its DistributedDataParallel for a GPU of each process. Both are
replaced here by the least that starts on a CPU; all else is what `automix-transfer detect --num-gpus 2` runs
in each process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.detection.test_resume import FPN
from tests.detection.tiny import QUICK
from tests.training.processes import free_port

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["automix_transfer.detection.trainer", "torch.utils.tensorboard"])
OPTIONS = [
    *QUICK,
    "SOLVER.CHECKPOINT_PERIOD",
    "2",
    "TEST.EVAL_PERIOD",
    "2",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "0",
]
pytestmark = pytest.mark.slow


def _on_rank(rank: int, size: int, port: str, words: list[str], log: Path) -> None:
    import torch.distributed as dist
    from detectron2.engine import defaults
    from detectron2.utils import comm

    from automix_transfer.commands import detect
    from automix_transfer.detection import config

    torch.set_num_threads(1)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=size, rank=rank)
        comm._LOCAL_PROCESS_GROUP = dist.new_group(range(size))
        defaults.create_ddp_model = partial(defaults.create_ddp_model, device_ids=None)
    choose = config._set_device
    config._set_device = lambda cfg, explicit, *_: choose(cfg, explicit, 0, 1)
    options = detect.parser().parse_args(words)
    options.num_gpus, options.data_checked = size, size > 1
    detect.work(options)


class Job:
    """``detect`` in processes of its own; ``words`` for all, or for each."""

    def __init__(
        self, folder: Path, data: Path, *options: str, size: int = 2, each: Any = None, flags: Any = ()
    ) -> None:
        self.log = folder.with_name(f"{folder.name}_{time.monotonic_ns()}.log")
        port, self.processes = free_port(), list[BaseProcess]()
        for rank in range(size):
            more = each[rank] if each else []
            words = ["--config-file", str(FPN), "--resume", *flags, "--data-root", str(data)]
            words += ["MODEL.WEIGHTS", "", "OUTPUT_DIR", str(folder), *OPTIONS, *options, *more]
            process = CONTEXT.Process(target=_on_rank, args=(rank, size, port, words, self.log))
            process.start()
            self.processes.append(process)

    def codes(self) -> list[int | None]:
        for process in self.processes:
            process.join(300)
        return [process.exitcode for process in self.processes]

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def until(condition: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def same(one: Path, other: Path) -> None:
    first, second = (
        torch.load(each / "model_final.pth", weights_only=True)["model"] for each in (one, other)
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    curves = [
        [{k: v for k, v in json.loads(line).items() if "time" not in k and "eta" not in k} for line in file]
        for file in ((each / "metrics.json").read_text().splitlines() for each in (one, other))
    ]
    assert curves[0] == curves[1]


@pytest.fixture(scope="module")
def whole(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "whole"
    job = Job(folder, voc, "SOLVER.MAX_ITER", "14")
    assert job.codes() == [0, 0], job.said[-3000:]
    return folder


def test_two_processes_measure_what_one_does(whole: Path, voc: Path) -> None:
    """The test images are shared out, and all count once."""
    results = json.loads((whole / "results.json").read_text())
    alone = Job(whole, voc, "SOLVER.MAX_ITER", "14", size=1, flags=["--eval-only"])
    assert alone.codes() == [0], alone.said[-3000:]
    measured = json.loads((whole / "results_eval.json").read_text())
    assert [results[key] for key in ("AP", "AP50", "AP75")] == [
        measured[key] for key in ("AP", "AP50", "AP75")
    ]


@pytest.mark.parametrize("number, codes", [(signal.SIGTERM, [143, 143]), (signal.SIGKILL, [-9, -9])])
def test_two_processes_go_on_as_if_nothing_had_happened(
    whole: Path, voc: Path, tmp_path: Path, number: signal.Signals, codes: list[int]
) -> None:
    """SIGTERM to the second process alone stops both at the same iteration."""
    folder = tmp_path / "run"
    job = Job(folder, voc, "SOLVER.MAX_ITER", "14")
    until(lambda: (folder / "model_0000003.pth").exists())
    for process in job.processes[1:] if number == signal.SIGTERM else job.processes:
        os.kill(process.pid or 0, number)
    assert job.codes() == codes, job.said[-3000:]
    again = Job(folder, voc, "SOLVER.MAX_ITER", "14")
    assert again.codes() == [0, 0], again.said[-3000:]
    assert f"resumed from {folder / 'model_0000'}" in again.said
    same(whole, folder)


def test_a_second_pair_of_processes_is_refused_within_seconds(voc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = Job(folder, voc, "SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "100000")
    until(lambda: (folder / "metrics.json").exists())
    second = Job(folder, voc, "SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "100000")
    assert second.codes() == [2, 2], second.said[-3000:]
    assert second.said.count(f"process {first.processes[0].pid} on ") == 1
    assert "Traceback" not in second.said
    assert all(process.is_alive() for process in first.processes)
    os.kill(first.processes[0].pid or 0, signal.SIGTERM)
    assert first.codes() == [143, 143], first.said[-3000:]


@pytest.mark.parametrize(
    "each, named",
    [
        ([["SOLVER.BASE_LR", "0.01"], ["SOLVER.BASE_LR", "0.02"]], "SOLVER.BASE_LR"),
        ([["SEED", "1"], ["SEED", "2"]], "SEED"),
    ],
)
def test_processes_that_differ_end_with_one_sentence(
    voc: Path, tmp_path: Path, each: list[list[str]], named: str
) -> None:
    job = Job(tmp_path / "run", voc, each=each)
    assert job.codes() == [2, 2], job.said[-3000:]
    assert job.said.count("rank 1 on ") == 1 and named in job.said and "Traceback" not in job.said
    assert not list((tmp_path / "run").glob("*.pth"))
