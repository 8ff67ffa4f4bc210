"""Errors of the installed libraries are recognised, so that an upgrade in other words is noticed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from multiprocessing import reduction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.utils.data import DataLoader

from automix_transfer.host import causes


def raised_by(action: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


class Dying(torch.utils.data.Dataset):
    """One image, whose reader ends the process."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> None:
        self.end()


@pytest.mark.parametrize("take", [torch.empty, np.empty])
def test_memory_of_the_machine(take: Callable[[int], object]) -> None:
    error = raised_by(lambda: take(2**50))
    assert causes.main_memory_ran_out(error) and "memory" in causes.cause_of(error)


def test_memory_of_a_gpu_is_not_the_machines() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    assert causes.gpu_memory_ran_out(error) and not causes.main_memory_ran_out(error)


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_worker_that_died(end: Callable[[], None]) -> None:
    error = raised_by(lambda: list(DataLoader(Dying(end), num_workers=1)))
    assert causes.worker_died(error) and "data.workers" in causes.cause_of(error)


@pytest.mark.parametrize("make", ["_new_using_fd_cpu", "_new_using_filename_cpu"])
def test_shared_memory(make: str) -> None:
    error = raised_by(lambda: getattr(torch.UntypedStorage, make)(2**60))
    assert causes.shared_memory_ran_out(error) and "/dev/shm" in causes.cause_of(error)


def test_another_process_that_is_gone(tmp_path: Path) -> None:
    def join(rank: int) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=rank, world_size=2)

    other = multiprocessing.get_context("fork").Process(target=lambda: (join(1), os._exit(9)))
    other.start()
    join(0)
    try:
        error = raised_by(lambda: [dist.all_reduce(torch.ones(1)) for _ in range(100)])
    finally:
        dist.destroy_process_group()
    assert causes.peer_is_gone(error) and "another process" in causes.cause_of(error)


def test_no_more_threads() -> None:
    code = (
        "import resource, threading, time; resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))\n"
        "try:\n"
        "    for _ in range(1000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "except RuntimeError as error: print(error, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ulimit -u" in causes.cause_of(RuntimeError(done.stdout))
    assert "ulimit -u" in causes.cause_of(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))  # of fork


@pytest.mark.parametrize("number", (*causes.FULL, *causes.BROKEN))
def test_a_disk_that_is_full_or_broken_and_not_named(number: int) -> None:
    assert os.strerror(number) in causes.cause_of(OSError(number, os.strerror(number)))
    assert not causes.cause_of(OSError(number, os.strerror(number), "a.json"))  # which says more


def test_no_number_for_another_file() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.send(b"x")
        lost = raised_by(lambda: reduction.recvfds(there, 1))
    wrapped = RuntimeError("what torch makes of it")
    wrapped.__context__ = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    for error in (lost, wrapped, OSError(errno.ENFILE, "")):
        assert causes.too_many_files(error) and "ulimit -n" in causes.cause_of(error)


def test_batch_norm_of_one_value() -> None:
    assert causes.norm_of_one_value(raised_by(lambda: torch.nn.BatchNorm1d(2)(torch.ones(1, 2))))


def test_an_image_that_ends_early() -> None:
    buffer = BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    assert causes.image_ends_early(raised_by(Image.open(BytesIO(buffer.getvalue()[:-200])).load))


def test_other_errors_have_no_cause() -> None:
    for error in (RuntimeError("shapes differ"), ValueError("x"), OSError(errno.ENOENT, "", "file")):
        assert causes.cause_of(error) == ""
