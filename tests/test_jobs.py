"""Jobs side by side: order, what is done stays done, and a failure names its log."""

import os
import signal
import subprocess
import sys
import time

import pytest

from automix_transfer.errors import UserError
from automix_transfer.jobs import Job, plan_table, run_jobs, side_by_side
from automix_transfer.signals import Interrupted


def job(tmp_path, name, needs=(), code=""):
    result = tmp_path / f"{name}.done"
    return Job(
        name,
        [sys.executable, "-c", code or f"print('{name} ran'); open({str(result)!r}, 'w').close()"],
        result,
        needs,
    )


def test_jobs_wait_for_what_they_need_and_are_not_repeated(tmp_path, capsys):
    jobs = [
        job(tmp_path, "last", ["left", "right"]),
        job(tmp_path, "left", ["first"]),
        job(tmp_path, "right", ["first"]),
        job(tmp_path, "first"),
    ]
    assert set(run_jobs(jobs, tmp_path / "logs", parallel=2)) == {"first", "left", "right", "last"}
    said = capsys.readouterr().out
    order = [said.index(f"{name} ran") for name in ("first", "left", "right", "last")]
    assert order[0] < min(order[1:3]) and max(order[1:3]) < order[3]
    assert run_jobs(jobs, tmp_path / "logs", parallel=2) == {}
    (tmp_path / "last.done").unlink()
    assert set(run_jobs(jobs, tmp_path / "logs", parallel=2)) == {"last"}


def test_logs_that_are_links_or_pipes_are_neither_written_nor_waited_for(tmp_path):
    precious, logs = tmp_path / "precious", tmp_path / "logs"
    precious.write_text("mine")
    logs.mkdir()
    (logs / "a.log").symlink_to(precious)
    os.mkfifo(logs / "b.log")
    assert set(run_jobs([job(tmp_path, "a"), job(tmp_path, "b")], logs, parallel=2)) == {"a", "b"}
    assert precious.read_text() == "mine"


def test_a_file_may_be_looked_into_for_whether_a_job_is_done(tmp_path):
    one = job(tmp_path, "one")
    one.proves = lambda file: file.exists() and file.read_text() == ""
    one.result.write_text("another command's")
    assert set(run_jobs([one], tmp_path, parallel=1)) == {"one"}
    assert run_jobs([one], tmp_path, parallel=1) == {}


def test_a_failed_job_stops_the_chain_and_names_its_log(tmp_path):
    jobs = [
        job(tmp_path, "bad", code="print('the reason'); raise SystemExit(3)"),
        job(tmp_path, "after", ["bad"]),
        job(tmp_path, "long", code="import time; time.sleep(60)"),
    ]
    with pytest.raises(UserError, match=r"'bad'.*3 \(the reason\).*bad\.log"):
        run_jobs(jobs, tmp_path / "logs", parallel=2)
    assert not (tmp_path / "after.done").exists()


@pytest.mark.slow
def test_sigterm_ends_the_jobs_too(tmp_path):
    """Jobs are sessions of their own, so they would go on, and the same command would start them a second
    time."""
    seen = tmp_path / "seen"
    wait = (
        "import os, pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(seen)!r}).touch(), sys.exit(0)))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="the same command goes on") as ended:
        run_jobs([job(tmp_path, "long", code=wait)], tmp_path / "logs", parallel=1)
    assert ended.value.code == 143 and seen.exists() and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")
def test_a_launcher_that_is_killed_takes_its_jobs_along_and_they_save_first(tmp_path):
    seen, ready = tmp_path / "saved", tmp_path / "ready"
    wait = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(seen)!r}).touch(), sys.exit(0)))\n"
        f"pathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"
    )
    launcher = (
        "import sys\nfrom pathlib import Path\nfrom automix_transfer.jobs import Job, run_jobs\n"
        f"command = [sys.executable, '-c', {wait!r}]\n"
        f"run_jobs([Job('long', command, Path({str(tmp_path / 'x')!r}))], Path({str(tmp_path)!r}), 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.DEVNULL)
    appears(ready)
    process.kill()
    process.wait()
    assert appears(seen)


def appears(file):
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return file.exists()


def test_plans_say_what_is_done_and_how_long_the_rest_takes(tmp_path, capsys):
    jobs = [job(tmp_path, "first"), job(tmp_path, "second", ["first"]), job(tmp_path, "third", ["second"])]
    for one, minutes in zip(jobs, (1.0, 30.0, 60.0), strict=True):
        one.minutes = minutes
    jobs[0].result.touch()
    rows = [line.split() for line in plan_table(jobs).splitlines()[2:]]
    assert rows == [["first", "done", "1.0"], ["second", "to", "do", "30.0"], ["third", "to", "do", "60.0"]]
    run_jobs(jobs, tmp_path / "logs", parallel=2)
    said = capsys.readouterr().out
    assert "1 of 3 jobs done, about 1.5 h left" in said, (
        "one waits for the other, so two at a time are no faster"
    )
    assert "2 of 3 jobs done, about" in said and "3 of 3 jobs done\n" in said
    for one in jobs[1:]:
        one.result.unlink()
    (tmp_path / "last.pt").touch()
    run_jobs(jobs, tmp_path / "logs", parallel=2)
    assert "2 of 3 jobs done, about 1.0 h left" in capsys.readouterr().out, "what goes on tells no pace"


def test_jobs_share_no_gpu():
    assert side_by_side(3) == 3 and side_by_side(None, num_gpus=8) == 1 and 1 <= side_by_side(None) <= 4
    for given, gpus, end in ((0, 0, "at least 1$"), (2, 1, "GPUs$")):
        with pytest.raises(UserError, match=f"--jobs {given}: .*{end}"):
            side_by_side(given, gpus)


def test_where_failures_are_collected_the_others_go_on(tmp_path):
    jobs = [
        job(tmp_path, "bad", code="print('error: the reason'); raise SystemExit(2)"),
        job(tmp_path, "after", ["bad"]),
        job(tmp_path, "later", ["after"]),
        job(tmp_path, "killed", code="import os; print('epoch 3', flush=True); os.kill(os.getpid(), 9)"),
        job(tmp_path, "good"),
    ]
    failures = {}
    assert set(run_jobs(jobs, tmp_path / "logs", 1, failures=failures)) == {"good"}
    assert failures["bad"] == "the reason" and set(failures) == {"bad", "after", "later", "killed"}
    assert "-9" in failures["killed"] and "epoch 3" in failures["killed"]
    assert "'bad'" in failures["later"]


def test_each_job_that_runs_has_a_device_of_its_own(tmp_path):
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    files = [tmp_path / name for name in ("a", "b", "c")]
    jobs = [Job(file.name, [sys.executable, "-c", code, str(file)], file) for file in files]
    run_jobs(jobs, tmp_path / "logs", 1, devices=["5"])
    assert [(tmp_path / name).read_text() for name in ("a", "b", "c")] == ["5", "5", "5"]
    for name in ("a", "b"):
        (tmp_path / name).unlink()
    run_jobs(jobs[:2], tmp_path / "logs", 2, devices=["0", "1"])
    assert {(tmp_path / name).read_text() for name in ("a", "b")} == {"0", "1"}
