"""How processes meet, and make sure that they are about to train the same thing.

Rank 0 says for whom it waits and how long; then all compare what they are: versions, settings, checkpoint and
data. What differs is one sentence from rank 0, and every process ends.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import TypeVar

import timm
import torch
import torch.distributed as dist
from torch import Tensor

from automix_transfer.device import choose_device
from automix_transfer.errors import EXIT_USER_ERROR, UserError, first_line, sentence_of
from automix_transfer.host.launched import LAUNCHER
from automix_transfer.progress import duration, to_stderr
from automix_transfer.training.distributed import World, gather

T = TypeVar("T")

VERSIONS = {"torch": torch.__version__, "timm": timm.__version__, "Python": platform.python_version()}
FIRST_WORD, NEXT_WORD, LOOK = (
    10.0,
    60.0,
    0.2,
)  #: seconds until rank 0 says whom it waits for; between two looks
#: of the groups that this process has joined: each has keys of its own, and they last as long as the process,
#: or the others could meet at the store of the group before, which is about to go
_stores: list[dist.Store] = []


def start(device: str = "auto", wait_minutes: float = 10.0, option: str = "train.device=") -> World:
    """Join the processes of torchrun, or be the only one.

    Args:
        device: auto, cpu, or an accelerator: cuda, cuda:N, mps, xpu.
        wait_minutes: for the other processes.
        option: what gave the device, see `choose_device`.

    Raises:
        UserError: the device does not exist, or the others did not come.
    """
    rank, size, local = launched()
    chosen = choose_device(device, option, local)
    if chosen.type != "cpu":
        torch.accelerator.set_device_index(chosen)
    if size > 1 and not dist.is_initialized():
        join(rank, size, backends(chosen), wait_minutes)
    return World(rank, size, chosen)


def backends(device: torch.device) -> str:
    """What processes talk by: gloo on the CPU, which every process does, too, and the accelerator's own."""
    if device.type == "cpu":
        return "gloo"
    return f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"


def stop(world: World) -> None:
    """Leave the group of processes."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def launched() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine), as a launcher says; (0, 1, 0) without one.

    Raises:
        UserError: numbers that cannot be.
    """
    given = {key: os.environ[key] for key in LAUNCHER if os.environ.get(key)}
    if missing := [key for key in LAUNCHER if key not in given]:
        if given.get("WORLD_SIZE", "1") != "1":
            to_stderr(
                f"note: WORLD_SIZE={given['WORLD_SIZE']} is set but {', '.join(missing)} not, so no launcher "
                "did it, and this is the only process"
            )
        return 0, 1, 0
    try:
        rank, size, local = (int(given[key]) for key in LAUNCHER[:3])
        if not (0 <= rank < size and 0 <= local and 0 < int(given["MASTER_PORT"]) < 1 << 16):
            raise ValueError
    except ValueError as error:
        said = " ".join(f"{key}={value}" for key, value in given.items())
        raise UserError(f"{said} is no place among processes; start them by torchrun") from error
    return rank, size, local


def join(rank: int, size: int, backend: str, minutes: float) -> None:
    """Wait for all processes, at most ``minutes``, and make them a group.

    Raises:
        UserError: rank 0 cannot listen or be reached, or some did not come, or believe in another number of
            processes.
    """
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun holds the store
    patience = timedelta(minutes=minutes)
    try:
        held = dist.TCPStore(
            address, int(port), size, rank == 0 and not agent, patience, False, multi_tenant=True
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"automix_transfer/{attempt}/{len(_stores)}", held)
        _stores.append(store)
    except dist.DistError as error:
        if rank == 0 and not agent:
            raise UserError(
                f"rank 0 on {socket.gethostname()} cannot listen at port {port} (MASTER_PORT), most often "
                "because another run does; choose another port, e.g. torchrun --master-port 29501"
            ) from error
        raise UserError(
            f"rank {rank} on {socket.gethostname()} cannot reach rank 0 at {address}:{port} "
            "(MASTER_ADDR, MASTER_PORT); start all processes together, and see that this port is open"
        ) from error
    _meet(store, rank, size, minutes)
    try:
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size)
    except RuntimeError as error:
        raise UserError(
            f"rank {rank} on {socket.gethostname()} has met the others, but {backend} does not connect them "
            f"({first_line(error)}); where a host has several networks, name the one to use with "
            "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
        ) from error


def _meet(store: dist.Store, rank: int, size: int, minutes: float) -> None:
    """Every rank says that it is there; rank 0 says when all are."""
    store.set(f"here/{rank}", f"{size} {socket.gethostname()}")
    begin = time.monotonic()
    if rank:
        while not store.check(["met"]) and time.monotonic() < begin + 60 * minutes:
            time.sleep(LOOK)
        if not store.check(["met"]) or store.get("met").decode() != str(size):
            raise SystemExit(EXIT_USER_ERROR)  # rank 0 says why
        return
    missing, word = list(range(size)), begin + FIRST_WORD
    while missing := [other for other in missing if not store.check([f"here/{other}"])]:
        names = f"{len(missing)} of {size} processes (ranks {', '.join(map(str, missing))})"
        now = time.monotonic()
        if now >= begin + 60 * minutes:
            _part(store)
            raise UserError(
                f"{names} did not come within {duration(60 * minutes)}; start them, or let a training wait "
                "longer with train.wait_minutes"
            )
        if now >= word:
            to_stderr(f"waiting for {names}, at most {duration(begin + 60 * minutes - now)} more")
            word = now + NEXT_WORD
        time.sleep(LOOK)
    for other in range(size):
        theirs, host = store.get(f"here/{other}").decode().split(" ", 1)
        if int(theirs) != size:
            _part(store)
            raise UserError(
                f"rank {other} on {host} was started as one of {theirs} processes, but rank 0 as one of "
                f"{size}; give all the same WORLD_SIZE"
            )
    store.set("met", str(size))


def _part(store: dist.Store) -> None:
    """Send the others away, and hold the store until they have looked."""
    store.set("met", "no")
    time.sleep(5 * LOOK)


def together(world: World, work: Callable[[], T]) -> T:
    """``work()`` in all processes; if it fails in one, rank 0 says which and why, and all end.

    ``work`` talks to no other process. An error that nobody knows also keeps its traceback.

    Raises:
        UserError: in rank 0; the others leave with its exit code.
    """
    if world.size == 1:
        return work()
    problem, results, unknown = "", list[T](), None
    try:
        results.append(work())
    except Exception as error:
        problem = sentence_of(error)
        if not problem:
            problem, unknown = f"{type(error).__name__}: {first_line(error)}", error
    for rank, (host, theirs) in enumerate(gather((socket.gethostname(), problem), world)):
        if theirs and unknown is not None:
            raise unknown
        if theirs:
            _end(world, theirs if rank == 0 else f"rank {rank} on {host}: {theirs}")
    return results[0]


@contextmanager
def by_first(world: World, lock: AbstractContextManager[object]) -> Iterator[None]:
    """``lock`` for all processes: the first holds it, and where it is refused all end.

    Raises:
        UserError, OSError: as ``lock``, in the first process; the others exit with its code.
    """
    with ExitStack() as stack:
        refusal = None
        if world.main:
            try:
                stack.enter_context(lock)
            except (UserError, OSError) as error:
                refusal = error
        if gather(refusal is not None, world)[0]:
            raise refusal or SystemExit(EXIT_USER_ERROR)
        yield


def refuse_differences(world: World, facts: Mapping[str, str]) -> None:
    """All processes must hold the same ``facts`` (name -> value), and the same versions.

    Raises:
        UserError: in rank 0, with the first that differs; the others leave with its exit code.
    """
    found = gather((socket.gethostname(), {**VERSIONS, **facts}), world)
    if sentence := difference(found):
        _end(world, sentence)


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Twelve digits that the names and bits of a model's state have."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def difference(found: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """The first of the facts of each rank, with its host, that is not rank 0's, as a sentence; or nothing."""
    first_host, mine = found[0]
    for rank, (host, theirs) in enumerate(found):
        for name in dict.fromkeys([*mine, *theirs]):
            ours, other = mine.get(name, "nothing"), theirs.get(name, "nothing")
            if ours != other:
                return (
                    f"rank {rank} on {host} has {name} {other}, but rank 0 on {first_host} has {ours}; give "
                    "all processes the same"
                )
    return ""


def _end(world: World, sentence: str) -> None:
    if world.main:
        raise UserError(sentence)
    raise SystemExit(EXIT_USER_ERROR)
