"""A command as a process of its own: started, sent signals to, and ended."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from automix_transfer.command_line import PROGRAM, command
from automix_transfer.errors import UserError

OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Process:
    """A command that has been started, leading a group of processes; its words go to ``log``."""

    def __init__(self, words: Sequence[str], log: Path, cold: bool) -> None:
        self.code: int | None = None
        with log.open("ab") as file:
            if cold:
                self.pid = subprocess.Popen(
                    command(*words),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    preexec_fn=hear_all,
                ).pid
                return
            sys.stdout.flush()
            self.pid = os.fork()
            if not self.pid:
                _become(words, file.fileno())

    def poll(self) -> int | None:
        """The exit code, as `subprocess` gives it; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = 3600.0) -> int | None:
        """Its exit code; None where it still runs after ``seconds``."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return self.code

    def send(self, number: int, group: bool) -> None:
        """A signal to it, or to its group too."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def leaves_others(self, seconds: float = 20.0) -> bool:
        """Whether a process of its group outlives it by ``seconds``; it is ended then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.05)
        self.send(signal.SIGKILL, True)
        return True


def hear_all() -> None:
    """The signals as a shell in a terminal leaves them to a command."""
    for number in OBEYED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)


def _become(words: Sequence[str], output: int) -> None:
    """Be the command ``words``, in a fork, and end."""
    code: Any = 1
    try:
        os.setsid()
        hear_all()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [PROGRAM, *words]
        from automix_transfer.cli import console

        console()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def ended(process: Process, log: Path) -> None:
    """Wait for a command that nobody disturbs.

    Raises:
        UserError: it failed, or left a process.
    """
    code = process.wait()
    if code or process.leaves_others():
        last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"it ended with exit code {code}, see {log}: {last}")
