"""Training in processes of their own, which start in milliseconds and can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from automix_transfer.io import load_torch
from automix_transfer.training import loop
from automix_transfer.training.loop import train
from automix_transfer.training.settings import Experiment
from automix_transfer.training.setup.run_state import Run

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["automix_transfer.training.loop", "torch.utils.tensorboard"])


def start(experiment: Experiment, resume: bool = True) -> BaseProcess:
    process = CONTEXT.Process(target=_train, args=(experiment, resume))
    process.start()
    return process


def _train(experiment: Experiment, resume: bool) -> None:
    # a child of a fork server would start its loader's workers from another one
    multiprocessing.set_start_method("fork", force=True)
    train(experiment, resume)


def at_each_update(monkeypatch: pytest.MonkeyPatch, action: Callable[[Run], None]) -> None:
    """Call ``action(run)`` after each step of the optimizer, before the run counts it."""
    build = loop.build_run

    def build_watched(*arguments: Any) -> Run:
        run = build(*arguments)
        run.optimizer.register_step_post_hook(lambda *_: action(run))
        return run

    monkeypatch.setattr(loop, "build_run", build_watched)


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start_ranks(
    experiment: Experiment,
    size: int = 2,
    resume: bool = True,
    work: Callable[[Experiment, bool], object] = train,
) -> list[BaseProcess]:
    """As torchrun would: ``work(experiment, resume)`` on each of ``size`` ranks."""
    port, processes = free_port(), []
    for rank in range(size):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        processes.append(CONTEXT.Process(target=_on_rank, args=(environment, work, experiment, resume)))
        processes[-1].start()
    return processes


def _on_rank(
    environment: dict[str, str],
    work: Callable[[Experiment, bool], object],
    experiment: Experiment,
    resume: bool,
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    work(experiment, resume)


def finish_ranks(processes: list[BaseProcess], codes: tuple[int, ...] = (0, 0)) -> None:
    """Wait for all ranks; their exit codes are ``codes``."""
    for process in processes:
        process.join(600)
    assert tuple(process.exitcode for process in processes) == codes


def finish(experiment: Experiment) -> None:
    """Train to the end."""
    process = start(experiment)
    process.join(900)
    assert process.exitcode == 0


def kill_at(experiment: Experiment, step: int, delay: float) -> bool:
    """Train, and SIGKILL the process ``delay`` seconds after it has logged ``step``; whether it was still
    alive then."""
    process, deadline = start(experiment), time.monotonic() + 600
    while process.is_alive() and last_logged(Path(experiment.output)) < step and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    alive = process.is_alive()
    if alive and process.pid:
        os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if alive else 0)
    return alive


def kill_and_resume(experiment: Experiment, seed: int, total: int, kills: int = 2) -> int:
    """Kill the run ``kills`` times at random, resume each time, and finish; how many kills met it alive."""
    rng = random.Random(seed)
    met = sum(kill_at(experiment, rng.randint(1, total - 1), rng.uniform(0, 0.15)) for _ in range(kills))
    finish(experiment)
    return met


def rows(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    path = folder / "log.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # being written
    return [row for row in found if row["kind"] == kind]


def last_logged(folder: Path) -> int:
    return max((row["step"] for row in rows(folder)), default=0)


def assert_same_run(one: Path, other: Path) -> None:
    """The last checkpoints hold the same bits: weights, optimizer, history, best."""
    first, second = load_torch(one / "last.pt"), load_torch(other / "last.pt")
    for name in ("model", "model_extra", "optimizer", "best", "history", "averages", "step", "epoch"):
        assert_same(timeless(first[name]), timeless(second[name]), name)


def timeless(value: Any) -> Any:
    """``value`` without speeds."""
    if isinstance(value, dict):
        return {
            key: timeless(item) for key, item in value.items() if key not in ("images_per_s", "data_share")
        }
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same(one: Any, other: Any, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), f"{where} differs by {(one.double() - other.double()).abs().max()}"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
    else:
        assert one == other, where
