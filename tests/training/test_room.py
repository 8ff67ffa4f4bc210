"""Disk and shared memory are looked at before a run starts."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.training import room
from automix_transfer.training.distributed import World
from automix_transfer.training.loop import train
from automix_transfer.training.room import check_room, checkpoint_bytes
from automix_transfer.training.setup.build_run import build_run

WORLD = World(0, 1, torch.device("cpu"))
Usage = namedtuple("Usage", "total used free")


def free(monkeypatch: pytest.MonkeyPatch, disk: float, shared: float = 1e12) -> None:
    """This much is free."""
    usage = {room.SHARED: shared}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(usage.get(path, disk))))


def test_a_checkpoint_is_as_large_as_it_is_said(experiment) -> None:
    given = experiment("train.epochs=1")
    train(given)
    said = checkpoint_bytes(build_run(given, WORLD))
    assert said == pytest.approx((Path(given.output) / "last.pt").stat().st_size, rel=0.05)


def test_a_disk_that_is_too_small_is_known_first(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_run(experiment("train.keep_epochs=[1,2,9]"), WORLD)
    size = checkpoint_bytes(run)
    free(monkeypatch, 6 * size)  # new, last, previous, best, and epochs 1 and 2
    check_room(run, tmp_path / "not" / "there")
    free(monkeypatch, 6 * size - 1)
    with pytest.raises(UserError, match="2 of train.keep_epochs"):
        check_room(run, tmp_path / "not" / "there")
    (tmp_path / "last.pt").write_bytes(b"0")  # what is there will be written over
    check_room(run, tmp_path)


def test_shared_memory_that_is_too_small_is_known_first(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_run(experiment("data.workers=2"), WORLD)
    needed = 2 * 2 * 8 * 3 * 32 * 32 * 4  # workers, batches of each, images, bytes of each
    free(monkeypatch, 1e12, needed)
    check_room(run, tmp_path)
    free(monkeypatch, 1e12, needed - 1)
    if room.SHARED.is_dir():
        with pytest.raises(UserError, match="data.workers=2"):
            check_room(run, tmp_path)
