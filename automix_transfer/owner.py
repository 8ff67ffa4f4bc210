"""One owner a folder: who writes into it holds a lock that dies with the process.

The lock is POSIX's, on a file in the folder: a killed process and a copied folder do not keep it, and loader
workers do not inherit it. Where the file system has no locks, the file's content is the lock: its owner
changes it every few seconds, and whoever finds one looks whether it changes.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.host.writable import can_write, existing

LOCK = ".owner.lock"
#: `io.atomic_write`'s files; what a killed owner has left of them is removed by the next
PART = f"{8 * '[0-9a-f]'}.part"
RUN_FILES = ("run.json", "last_checkpoint")  #: in a folder of pretraining or fine-tuning, of detection
BEAT, WATCH = 2.0, 7.0  #: seconds: between two beats, and that a beat of somebody else is waited for
HELD: set[Path] = set()  #: the locks of this process


@contextmanager
def owned(folder: str | Path, remedy: str = "choose another folder", wait: bool = False) -> Iterator[None]:
    """Own ``folder``, which is made if need be, while this is entered; inside another one it does nothing.

    Args:
        remedy: besides waiting for the owner; the end of the sentence that refuses.
        wait: for the owner, instead of refusing.

    Raises:
        UserError: another process owns it; the message names its host and its number.
        OSError: the folder cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / LOCK, f"{folder} is being written by {{}}; wait for it, or {remedy}", wait):
            for place in _unowned(folder):
                clear(place)
            yield
    finally:
        with suppress(OSError):  # it holds something
            for path in made:
                path.rmdir()


def clear(folder: Path, stem: str = "") -> None:
    """Remove half-written files directly in ``folder``, which only their owner may: those of ``stem``.json
    and its like, or all."""
    for part in folder.glob(f".{glob.escape(stem)}.*{PART}" if stem else f".*.{PART}"):
        part.unlink(missing_ok=True)


def _unowned(folder: Path) -> Iterator[Path]:
    """``folder`` and all below it, without folders that have an owner of their own."""
    places = [folder]
    while places:
        yield (place := places.pop())
        with suppress(OSError), os.scandir(place) as entries:
            below = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
            places += [path for path in below if not (path / LOCK).exists()]


def refuse_foreign(file: Path, ours: Callable[[Path], bool], what: str) -> None:
    """Refuse an output that exists, is not empty, and is not what this command writes: ``ours`` says so, and
    ``what`` is its name."""
    try:
        fits = not os.path.lexists(file) or (file.is_file() and (not file.stat().st_size or ours(file)))
    except (UserError, OSError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"{file} exists and is no {what}, so it is not written over; choose another name")


def refuse_top_folder(folder: str | Path, key: str) -> None:
    """Refuse ``/``, what lies directly in it and holds other files, and the home folder as a run's folder."""
    path = Path(os.path.realpath(folder))
    top = path.parent == path or (path.parent.parent == path.parent and path.is_dir() and any(path.iterdir()))
    if (top or path == Path(os.path.realpath(os.path.expanduser("~")))) and not any(
        (path / name).exists() for name in RUN_FILES
    ):
        raise UserError(f"{key} is {folder}, which holds other things than a run; give a folder of its own")


@contextmanager
def owned_file(
    file: str | Path, ours: Callable[[Path], bool] | None = None, what: str = "", alone: bool = False
) -> Iterator[None]:
    """Own ``file``, an output that a command writes: with its folder where that is a run's or has an owner.

    Args:
        ours, what: see `refuse_foreign`; None: whatever is there is written over.
        alone: without its folder in any case, for a file that no run has itself.

    Raises:
        UserError, OSError: as `owned` and `refuse_foreign`.
    """
    if ours is not None:
        refuse_foreign(Path(file), ours, what)
    file = Path(os.path.realpath(file))
    remedy = "write to a file elsewhere"
    lock: AbstractContextManager[None]
    if not file.parent.is_dir():  # so nobody writes there
        if not can_write(file.parent):
            above = existing(file.parent)
            raise UserError(f"{file} could not be written, for {above} takes no new folder; {remedy}")
        lock = nullcontext()
    elif not alone and any((file.parent / name).exists() for name in (*RUN_FILES, LOCK)):
        lock = owned(file.parent, remedy)
    else:
        refusal = f"{file} is being written by {{}}; wait for it, or {remedy}"
        lock = _locked(file.with_name(f".{file.name}.lock"), refusal)
    with lock:
        clear(file.parent, file.stem)
        yield


@contextmanager
def _locked(path: Path, refusal: str, wait: bool = False) -> Iterator[None]:
    if path in HELD:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(_taken(path, refusal, wait))
        HELD.add(path)
        stack.callback(HELD.discard, path)
        yield


@contextmanager
def _taken(path: Path, refusal: str, wait: bool) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            descriptor = _open_locked(path, wait)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN) and error.filename is None:
                raise UserError(refusal.format(_named(path))) from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            stack.enter_context(_beating(path, refusal, wait))
        else:
            stack.callback(os.close, descriptor)
            with suppress(OSError):  # a full disk; the lock holds all the same
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_about()).encode())
        stack.callback(path.unlink, missing_ok=True)
        yield


def _open_locked(path: Path, wait: bool) -> int:
    """The lock file's descriptor. This process must not open it again: to close that would unlock it.

    A folder of somebody else's may hold a link or a pipe of the lock's name, and what it leads to would be
    emptied, or waited for.
    """
    while True:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise UserError(f"{path} is no file of ours but a link, a folder or a pipe; remove it")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with suppress(FileNotFoundError):  # the owner before removed it after we had opened it
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def _beating(path: Path, refusal: str, wait: bool) -> Iterator[None]:
    """Own ``path`` by changing it."""
    mine, ended = {**_about(), "owner": secrets.token_hex(8)}, threading.Event()
    while True:
        while _beats(path):
            if not wait:
                raise UserError(refusal.format(_named(path)))
        path.write_text(json.dumps(mine))
        time.sleep(BEAT / 2)  # of two that take it at the same time, the later
        if _read(path).get("owner") == mine["owner"]:
            break

    def beat() -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                path.write_text(json.dumps({**mine, "beat": time.time()}))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beats(path: Path) -> bool:
    """Whether somebody changes the file; no clock of another host is asked."""
    before, until = _text(path), time.monotonic() + WATCH
    while before and time.monotonic() < until:
        time.sleep(BEAT / 10)
        if _text(path) != before:
            return True
    return False


def _about() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _named(path: Path) -> str:
    for _ in range(20):
        if {"host", "pid"} <= (found := _read(path)).keys():
            return f"process {found['pid']} on {found['host']}"
        time.sleep(0.05)  # it has just taken the lock
    return "another process"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
