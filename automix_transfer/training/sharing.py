"""Images that the processes of a launcher measure for the first of them.

The batches of one process are dealt out in turn, whole, so that each image is measured beside the same
others. Whatever is measured goes to the first process as it is done, by a connection of each of the others to
it. That tells it at once who fails, is interrupted, or dies, and then all end with its one sentence.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from automix_transfer.console import LOGGER
from automix_transfer.errors import EXIT_USER_ERROR, UserError, first_line
from automix_transfer.host.causes import cause_of
from automix_transfer.signals import Interrupted
from automix_transfer.training import joining
from automix_transfer.training.distributed import World, gather

T = TypeVar("T")

PATIENCE = 60.0  #: seconds to connect, of processes that have met before
LAST_WORDS = 0.5  #: seconds that what may have ended another process is waited for
PIECE, END, VALUE, FAILED, LEFT = range(5)  #: what a message is


class Team:
    """The processes that share a measurement; the first one has its results, prints and writes.

    Args:
        to: connections by rank: of the first process to all others, of the others to rank 0.
        hosts: of all, for messages.
    """

    def __init__(self, world: World, to: Mapping[int, Connection], hosts: Mapping[int, str]) -> None:
        self.world, self.hosts = world, hosts
        self._to = dict(to)

        # else a loader's worker would hold the connection of a process that died
        if to:
            os.register_at_fork(after_in_child=self._close)

    @property
    def main(self) -> bool:
        return self.world.main

    def pieces(self, own: Iterable[T]) -> Iterator[tuple[int, T]]:
        """(number, piece) of all processes' pieces, as they come, in the first one; nothing in the others.

        Piece n of the process of rank r among W, of its ``own``, has the number n·W + r.

        Raises:
            UserError: another process failed or died.
            Interrupted: it was interrupted.
        """
        rank, size = self.world.rank, self.world.size
        numbered = ((size * number + rank, piece) for number, piece in enumerate(own))
        if not self.main:
            for item in numbered:
                self._to[0].send((PIECE, item))
            self._to[0].send((END, None))
            return
        measuring = list(self._to)
        for item in numbered:
            yield item
            yield from self._arrived(measuring, 0)
        while measuring:
            yield from self._arrived(measuring, None)

    def in_order(self, own: Iterable[T], told: Callable[[T], object] = lambda piece: None) -> list[T]:
        """All pieces by their numbers in the first process, which tells each as it comes; in the others
        none."""
        found = []
        for number, piece in self.pieces(own):
            told(piece)
            found.append((number, piece))
        return [piece for _, piece in sorted(found, key=lambda item: item[0])]

    def of_first(self, value: T) -> T:
        """The ``value`` of the first process, in all."""
        if self.main:
            for connection in self._to.values():
                connection.send((VALUE, value))
            return value
        return self._hear(0)[1]

    def _arrived(self, measuring: list[int], timeout: float | None) -> Iterator[Any]:
        """What the processes of the ranks ``measuring`` have sent, until there is nothing more; ranks that
        are done leave the list."""
        while measuring and (ready := wait([self._to[rank] for rank in measuring], timeout)):
            for rank in [rank for rank in measuring if self._to[rank] in ready]:
                kind, value = self._hear(rank)
                if kind == PIECE:
                    yield value
                elif kind == END:
                    measuring.remove(rank)
                else:
                    self._end(rank, "ended early; give the same command again")
            timeout = 0

    def _hear(self, rank: int) -> tuple[int, Any]:
        """The next message of another process; one of its end is raised."""
        try:
            kind, value = self._to[rank].recv()
        except (EOFError, OSError):
            del self._to[rank]
            self._end(
                rank,
                "ended without a word, as one does that is killed for want of memory; give the same command "
                "again, with a smaller batch or fewer processes if it does so again",
            )
        if kind == FAILED:
            self._end(rank, value)
        if kind == LEFT:
            del self._to[rank]
            if value is not None and not self.main:
                raise SystemExit(EXIT_USER_ERROR)  # rank 0 says why
            if value:
                raise Interrupted(value)
            if value is not None:
                self._end(rank, "ended early; give the same command again")
        return kind, value

    def _end(self, rank: int, why: str) -> None:
        """End, because of another process, which rank 0 says, or where that is the one, rank 1."""
        if self.world.rank != (0 if rank else 1):
            raise SystemExit(EXIT_USER_ERROR)
        colon = "" if why.startswith("ended") else ":"
        raise UserError(f"rank {rank} on {self.hosts[rank]}{colon} {why}")

    def leave(self, error: BaseException | None = None) -> None:
        """Tell the others that this process is done, or that ``error`` ends it; all wait for the first one.

        What another process ended of before, which may be why, is raised in its place.
        """
        if isinstance(error, KeyboardInterrupt | RuntimeError | OSError):
            until = time.monotonic() + 10 * LAST_WORDS  # others may go on measuring, and tell of it
            while time.monotonic() < until and (ready := wait(self._to.values(), LAST_WORDS)):
                for rank in [rank for rank, connection in self._to.items() if connection in ready]:
                    with suppress(Interrupted):  # as the others are too where one died
                        self._hear(rank)
        silent = not self.main
        word: tuple[int, Any] = (LEFT, None if error is None else 0)
        if isinstance(error, KeyboardInterrupt):
            silent, word = False, (LEFT, getattr(error, "number", 2))
        elif isinstance(error, Exception) and not self.main:
            why = str(error) if isinstance(error, UserError) else cause_of(error)
            word = (FAILED, why or f"{type(error).__name__}: {first_line(error)}")
            # not so what this process says because rank 0 cannot
            silent = bool(self._to) and isinstance(error, UserError | OSError | MemoryError | RuntimeError)
        for connection in self._to.values():
            with suppress(OSError):
                connection.send(word)
        if error is None and not self.main:
            self._hear(0)
        self._close()
        if error is not None and silent:
            raise SystemExit(EXIT_USER_ERROR)

    def _close(self) -> None:
        for connection in self._to.values():
            connection.close()


#: one process, which does everything itself
ALONE = Team(World(0, 1, torch.device("cpu")), {}, {})


@contextmanager
def team(device: str) -> Iterator[Team]:
    """All processes of the launcher, or this one alone, on ``--device``; but for the first they are silent.

    Raises:
        UserError: as `joining.start`; another process failed or died.
    """
    world = joining.start(device, option="--device ")
    level = LOGGER.level
    try:
        if not world.main:
            LOGGER.setLevel(logging.CRITICAL + 1)
        found = _connect(world)
        try:
            yield found
        except BaseException as error:
            found.leave(error)
            raise
        found.leave()
    finally:
        LOGGER.setLevel(level)
        joining.stop(world)


def _apart(rank: int, host: str, error: OSError) -> str:
    return (
        f"rank {rank} on {host} cannot connect to rank 0 at {os.environ['MASTER_ADDR']} ({error}); let "
        "processes of these hosts connect at any port, or start all on one host"
    )


def _connect(world: World) -> Team:
    """Connect all to the first process; a secret that it hands out keeps strangers away."""
    if world.size == 1:
        return Team(world, {}, {})
    host = socket.gethostname()
    if not world.main:
        (_, port, secret), *_ = found = gather((host, 0, b""), world)
        try:
            plain = socket.create_connection((os.environ["MASTER_ADDR"], port), PATIENCE)
        except OSError as error:
            raise UserError(_apart(world.rank, host, error)) from error
        plain.settimeout(None)
        to = {0: Connection(plain.detach())}
        to[0].send_bytes(secret + world.rank.to_bytes(4, "big"))
    else:
        secret, both = secrets.token_bytes(32), socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        with socket.create_server(("", 0), family=family, backlog=world.size, dualstack_ipv6=both) as server:
            found = gather((host, server.getsockname()[1], secret), world)
            server.settimeout(PATIENCE)
            to = {}
            while len(to) < world.size - 1:
                try:
                    line = Connection(server.accept()[0].detach())
                except OSError as error:
                    rank = next(rank for rank in range(1, world.size) if rank not in to)
                    raise UserError(_apart(rank, found[rank][0], error)) from error
                with suppress(EOFError, OSError):
                    word = line.recv_bytes(36) if line.poll(PATIENCE) else b""
                    if hmac.compare_digest(word[:32], secret):
                        to[int.from_bytes(word[32:], "big")] = line
    return Team(world, to, {rank: name for rank, (name, *_) in enumerate(found)})
