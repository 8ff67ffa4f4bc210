"""Processes that meet, or do not: who is waited for, and what must be equal."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.host.causes import cause_of
from automix_transfer.host.launched import LAUNCHER
from automix_transfer.training import joining, sharing
from automix_transfer.training.distributed import World
from automix_transfer.training.joining import launched, refuse_differences, together
from tests.training.processes import free_port

CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in LAUNCHER:
        monkeypatch.delenv(key, raising=False)


def test_what_no_launcher_set_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched() == (0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "3")
    assert launched() == (0, 1, 0) and "LOCAL_RANK, MASTER_ADDR, MASTER_PORT" in capsys.readouterr().err


@pytest.mark.parametrize("key, value", [("RANK", "2"), ("WORLD_SIZE", "two"), ("MASTER_PORT", "99999")])
def test_a_place_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    for name, given in zip(LAUNCHER, ("1", "2", "0", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(name, value if name == key else given)
    with pytest.raises(UserError, match=f"{key}={value}"):
        launched()


def _on_rank(environment: dict[str, str], work: Callable[[Path], object], folder: Path) -> None:
    os.environ.update(environment)
    try:
        work(folder)
    except UserError as error:
        (folder / f"rank{environment['RANK']}.txt").write_text(str(error))
        raise SystemExit(2) from error


def on_ranks(sizes: list[int], work: Callable[[Path], object], folder: Path) -> list[int | None]:
    """Exit codes of ``work(folder)`` on one rank for each size, which is the WORLD_SIZE it is told; what a
    rank says of a mistake lies in the folder."""
    port, processes = free_port(), []
    for rank, size in enumerate(sizes):
        values = (str(rank), str(size), str(rank), "127.0.0.1", port)
        given = dict(zip(LAUNCHER, values, strict=True))
        processes.append(CONTEXT.Process(target=_on_rank, args=(given, work, folder)))
        processes[-1].start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def _join(folder: Path) -> joining.World:
    joining.FIRST_WORD = 0.5
    return joining.start("cpu", wait_minutes=1.5 / 60)


def _differ(folder: Path) -> None:
    world = _join(folder)
    refuse_differences(world, {"training images": f"{100 + world.rank // 2} images"})


def _fail(folder: Path) -> None:
    world = _join(folder)

    def work() -> None:
        if world.rank == 1:
            raise UserError("data.root is not there")

    together(world, work)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes, work, said",
    [
        ([3], _join, "ranks 1, 2"),
        ([2, 3], _join, "one of 3 processes"),
        ([3, 3, 3], _differ, "has training images 101 images, but rank 0"),
        ([2, 2], _fail, "data.root is not there"),
    ],
    ids=["missing", "another size", "other data", "one fails"],
)
def test_rank_0_says_what_is_wrong_and_all_end(
    tmp_path: Path, sizes: list[int], work: Callable[[Path], object], said: str
) -> None:
    begin = time.monotonic()
    assert on_ranks(sizes, work, tmp_path) == [2] * len(sizes)
    assert said in (tmp_path / "rank0.txt").read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["rank0.txt"]
    assert time.monotonic() - begin < 100


def test_a_port_that_another_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(UserError, match="MASTER_PORT"):
            joining.join(0, 2, "gloo", 1)


def test_processes_that_meet_and_cannot_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hosts with several networks, or a firewall between them."""
    for name, value in zip(LAUNCHER, ("0", "2", "0", "127.0.0.1", free_port()), strict=True):
        monkeypatch.setenv(name, value)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed with no error")

    monkeypatch.setattr(joining, "_meet", lambda *_: None)
    monkeypatch.setattr(joining.dist, "init_process_group", refuse)
    with pytest.raises(UserError, match="GLOO_SOCKET_IFNAME"):
        joining.join(0, 2, "gloo", 1)
    monkeypatch.setattr(sharing, "PATIENCE", 0.1)
    for rank, port in ((1, int(free_port())), (0, 0)):  # nobody listens; nobody comes
        monkeypatch.setattr(sharing, "gather", lambda value, _, port=port: [("a", port, b""), ("b", 0, b"")])
        with pytest.raises(UserError, match="rank 1 on"):
            sharing._connect(World(rank, 2, torch.device("cpu")))


@pytest.mark.slow
def test_rank_0_that_is_killed_while_it_waits() -> None:
    port, queue = free_port(), CONTEXT.Queue()
    ranks = [CONTEXT.Process(target=_wait, args=(rank, port, queue)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    time.sleep(3)
    ranks[0].kill()
    assert "another process" in queue.get(timeout=60)
    for process in ranks:
        process.join(60)


def _wait(rank: int, port: str, queue: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    try:
        joining.join(rank, 3, "gloo", 1)
    except RuntimeError as error:
        queue.put(cause_of(error))


def _join_thrice(folder: Path) -> None:
    for number in range(3):
        world = joining.start("cpu", wait_minutes=2)
        if world.rank == 0:
            (folder / f"group{number}.txt").touch()
            time.sleep(0.5)  # the other is at the next group before this one has left
        joining.stop(world)


@pytest.mark.slow
def test_a_process_may_join_one_group_after_the_other(tmp_path: Path) -> None:
    assert on_ranks([2, 2], _join_thrice, tmp_path) == [0, 0]
    assert len(list(tmp_path.iterdir())) == 3
