"""INT, TERM, HUP and USR1 end every command with one line and 128 + their number, while it imports, too."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix_transfer import signals
from automix_transfer.errors import run_script
from automix_transfer.signals import Interrupted, StopRequest, held, kept, leave_to_parent, listening

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("number", signals.ALL)
def test_a_signal_ends_a_command_with_one_line(number: int, capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        with kept("what is done lies in out"):
            os.kill(os.getpid(), number)
            time.sleep(10)

    before = [signal.signal(each, signal.SIG_DFL) for each in signals.ALL]  # nohup's, if it started us
    try:
        with pytest.raises(SystemExit) as ended:
            run_script(main)
    finally:
        for each, handler in zip(signals.ALL, before, strict=True):
            signal.signal(each, handler)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "what is done lies in out\n"


def test_an_interruption_that_others_turned_into_an_error_is_one(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            raise KeyError("from somebody else's context manager")

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"{signals.UNTOUCHED}\n"
    with pytest.raises(KeyError):
        run_script(lambda: {}["a mistake in the program"])


def test_nohup_keeps_its_meaning() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening(), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.number == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in signals.ALL]
    with pytest.raises(Interrupted), listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(10)
    assert [signal.getsignal(number) for number in signals.ALL] == before


@pytest.mark.slow
@pytest.mark.parametrize("number", signals.ALL)
def test_a_command_that_still_imports_ends_at_once(number: int, tmp_path: Path) -> None:
    """Even where the module that is imported catches everything."""
    slow = "import os, time\ntry:\n os.kill(os.getpid(), {})\n time.sleep(10)\nexcept BaseException: pass\n"
    (tmp_path / "slow.py").write_text(slow.format(int(number)))
    code = "from automix_transfer.errors import run_script\nrun_script(lambda: __import__('slow'))"
    place = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=place)
    assert done.returncode == 128 + number and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.slow
def test_a_worker_that_still_starts_leaves_signals_to_its_parent() -> None:
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    worker = spawn.Process(target=_answer, args=(queue,))
    with held():
        worker.start()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(worker.pid, number)
    assert queue.get(timeout=60) == "alive"
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == -signal.SIGTERM


def _answer(queue: multiprocessing.Queue) -> None:
    leave_to_parent()
    queue.put("alive")
    time.sleep(60)
