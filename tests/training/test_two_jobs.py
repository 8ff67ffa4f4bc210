"""Two jobs of torchrun in one run folder: the second is refused, the first is not disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automix_transfer.io import load_torch, read_json
from automix_transfer.owner import LOCK
from tests.training.processes import last_logged, rows
from tests.training.tiny import FAST


def torchrun(words: list[str]) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*launcher, "-m", "automix_transfer", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["afresh", "resumed"])
def test_a_second_job_of_torchrun_is_refused_within_seconds(
    images: Path, tmp_path: Path, resume: list[str]
) -> None:
    output, recipe = tmp_path / "run", tmp_path / "empty.yaml"
    recipe.write_text("{}\n")
    words = [
        "pretrain",
        "--config-file",
        str(recipe),
        *FAST,
        "train.epochs=100000",
        "train.save_every_steps=5",
    ]
    words += [f"data.root={images}", f"output={output}"]
    first = torchrun(words)
    deadline = time.monotonic() + 300
    while last_logged(output) < 5 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    owner = json.loads((output / LOCK).read_text())
    second = torchrun([*words, *resume])
    said, _ = second.communicate(timeout=300)
    assert second.returncode and "exitcode  : 2" in said, said[-3000:]
    assert said.count(f"is being written by process {owner['pid']} on {owner['host']}") == 1
    assert "Traceback (most recent call last):\n  File" not in said.split("error: ")[0]

    step = last_logged(output)
    while last_logged(output) < step + 5 and first.poll() is None and time.monotonic() < deadline + 300:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=300)
    steps = [row["step"] for row in rows(output)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= step + 5
    assert load_torch(output / "last.pt")["step"] == steps[-1], said[-3000:]
    assert len(read_json(output / "run.json")["starts"]) == 1
    assert not list(output.glob(".*"))
