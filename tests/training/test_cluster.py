"""The scripts in pretrain/cluster/: a worker that dies is replaced, and SLURM's variables and signals reach
the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from automix_transfer.io import load_torch, read_json
from tests.training.processes import assert_same_run, finish_ranks, last_logged, start_ranks
from tests.training.tiny import FAST

ROOT = Path(__file__).parents[2]
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds a worker by its environment, on Linux"
)


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **variables}


def worker(rank: int, output: Path) -> int:
    """The process of that rank which trains into ``output``."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables, command = (
                (place / "environ").read_bytes().split(b"\0"),
                (place / "cmdline").read_bytes(),
            )
        except OSError:
            continue
        if f"RANK={rank}".encode() in variables and str(output).encode() in command:
            return int(place.name)
    raise AssertionError(f"no worker of rank {rank}")


@pytest.mark.slow
@needs_proc
def test_a_worker_that_dies_is_replaced(experiment, images: Path, tmp_path: Path) -> None:
    """kill -9 of one of two workers: both are started again, go on from the checkpoint, and end with the bits
    of an undisturbed run."""
    output, long = tmp_path / "run", ["train.epochs=6", "train.save_every_steps=2"]
    process = subprocess.Popen(
        [ROOT / "pretrain/cluster/elastic.sh", *FAST, *long, f"data.root={images}", f"output={output}"],
        env=environment(PROCESSES="2", RESTARTS="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 300
    while last_logged(output) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(worker(1, output), signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    starts = read_json(output / "run.json")["starts"]
    assert len(starts) == 2 and starts[1]["from_step"] >= 2 and load_torch(output / "last.pt")["step"] == 18
    whole = replace(experiment(*long), output=str(tmp_path / "whole"))
    finish_ranks(start_ranks(whole))
    assert_same_run(tmp_path / "whole", output)


SRUN = """#!/usr/bin/env bash
# Two tasks on this machine, as srun starts them; ends with the first bad exit code.
shift  # --kill-on-bad-exit
pids=()
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & pids+=($!); done
trap 'kill -TERM "${pids[@]}"' TERM
code=0
for pid in "${pids[@]}"; do
  while true; do wait "$pid" && last=0 || last=$?; kill -0 "$pid" 2>/dev/null || break; done
  [ "$last" -eq 0 ] || code=$last
done
exit "$code"
"""
SCONTROL = """#!/usr/bin/env bash
case "$1" in show) echo localhost;; requeue) echo "requeued $2" >> "$REQUEUED";; esac
"""


@pytest.mark.slow
@needs_proc
def test_slurm_asks_for_a_checkpoint_and_queues_the_job_again(images: Path, tmp_path: Path) -> None:
    """With stand-ins for srun and scontrol: two ranks train together; SIGTERM leaves a checkpoint, and the
    job is queued again."""
    output, tools = tmp_path / "run", tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    variables = environment(
        PATH=f"{tools}:{os.environ['PATH']}",
        SLURM_JOB_ID="12345",
        SLURM_JOB_NODELIST="localhost",
        SLURM_NTASKS="2",
        SLURM_NTASKS_PER_NODE="2",
        SLURM_SUBMIT_DIR=str(ROOT),
        REQUEUED=str(tmp_path / "requeued"),
    )
    command = [
        "bash",
        ROOT / "pretrain/cluster/slurm.sh",
        *FAST,
        "train.epochs=6",
        f"data.root={images}",
        f"output={output}",
    ]
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 300
    while last_logged(output) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    for rank in (0, 1):
        os.kill(worker(rank, output), signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 143 and "queued again" in said, said[-3000:]
    assert (tmp_path / "requeued").read_text() == "requeued 12345\n"
    assert "--resume" in said and "torchrun" not in said  # each task is started by srun
    stopped = load_torch(output / "last.pt")
    assert stopped["processes"] == 2 and stopped["step"] >= 2
