"""Outputs that fail do not end the work, and foreign text does not steer them."""

from __future__ import annotations

import csv
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from automix_transfer import console
from automix_transfer.cli import main
from automix_transfer.command_line import command
from automix_transfer.console import Device, Output, show
from automix_transfer.errors import UserError, run_script
from automix_transfer.paper.cli import FORMATS, begins_as
from automix_transfer.paper.plans.run_plan import is_list
from automix_transfer.shown import clean, clean_lines, csv_text, from_csv
from tests.training.tiny import write_images

HOSTILE = "cat\x1b[31m\x1b]0;owned\x07\x9b2J\u202egnp.exe\r\n"


def output(path: str, encoding: str = "utf-8") -> Output:
    return Output(Device(os.open(path, os.O_WRONLY)), encoding)


def closed_pipe() -> Output:
    reading, writing = os.pipe()
    os.close(reading)
    return Output(Device(writing), "utf-8")


def gone_terminal() -> Output:
    ours, theirs = pty.openpty()
    os.close(ours)
    return Output(Device(theirs), "utf-8")


@pytest.mark.parametrize("opened", [closed_pipe, gone_terminal, lambda: output("/dev/full")])
def test_a_broken_output_takes_everything(opened) -> None:
    broken = opened()
    for _ in range(3):
        print("é" * 100_000, file=broken, flush=True)
    assert broken.device.failure is not None and not broken.isatty()


def test_a_result_that_stands_nowhere_else_must_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    show("table")  # `| head` has seen enough
    monkeypatch.setattr(sys, "stdout", output("/dev/full"))
    with pytest.raises(OSError, match="standard output"):
        show("table")


def test_letters_that_an_encoding_lacks_are_replaced(tmp_path) -> None:
    (tmp_path / "out").touch()
    print("données λ \udce9", file=output(str(tmp_path / "out"), "ascii"))
    assert (tmp_path / "out").read_bytes() == rb"donn\xe9es \u03bb \udce9" + b"\n"


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    reader = subprocess.Popen([sys.executable, "-c", "print(len(input()))"], stdin=reading, stdout=-1)
    print("x" * 500_000, file=Output(Device(writing), "utf-8"))
    assert reader.communicate()[0] == b"500000\n"


def test_foreign_text_steers_no_terminal(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "out").touch()
    print(f"a\tb\n{HOSTILE}", file=output(str(tmp_path / "out")))
    said = (tmp_path / "out").read_text()
    assert said == "a\tb\n" + clean_lines(HOSTILE) + "\n" and not set("\x1b\x07\x9b\u202e\r") & set(said)
    assert clean(HOSTILE) == r"cat\x1b]0;owned\x07\x9b2J\u202egnp.exe\r\n"

    def main() -> None:
        raise UserError(f"{HOSTILE} does not exist", "  second line")

    with pytest.raises(SystemExit, match="2"):
        run_script(main)
    assert capsys.readouterr().err == f"error: {clean(HOSTILE)} does not exist\n  second line\n"


def test_no_name_is_a_formula_of_a_spreadsheet() -> None:
    formulas = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "\t=1", "'quoted"]
    kept = ["-1.5", "+0.32", "1e-3", "cat", "", "a=b"]
    [written, others] = csv.reader(io.StringIO(csv_text([formulas, [*kept, -1.5, None]])))
    assert written == ["'" + formula for formula in formulas] and list(map(from_csv, written)) == formulas
    assert others == [*kept, "-1.5", ""]


def test_streams_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    console.open_outputs()
    assert sys.stdout is stream


@pytest.mark.parametrize("redirected", [">&-", ">/dev/full", "| true", "2>&-", "2>/dev/full >&-", "<&-"])
def test_help_needs_no_output(redirected: str) -> None:
    line = f"set -o pipefail; {' '.join(command('--help'))} {redirected}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


RUN_FILE = '{"top1_last": 71.2}\n'  #: metrics.json of a run, which no command below writes


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "--output", "FILE"],
        ["report", "tables", "FOLDER", "--format", "json", "-o", "FILE"],
        ["report", "tables", "FOLDER", "-o", "FILE"],
        ["report", "run", "table9", "--no-measure", "--print", "-o", "FILE"],
        ["report", "figure", "fig4", "--runs", "FOLDER", "-o", "PICTURE"],
    ],
    ids=" ".join,
)
def test_nothing_foreign_is_written_over(tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(RUN_FILE)
    places = {"FILE": str(file), "FOLDER": str(tmp_path), "PICTURE": str(file.with_suffix(".png"))}
    with pytest.raises(UserError, match=r"metrics\.json exists"):
        main([places.get(word, word) for word in words])
    assert [path.name for path in tmp_path.iterdir()] == [file.name] and file.read_text() == RUN_FILE


def test_what_a_command_wrote_it_may_write_again(tmp_path: Path) -> None:
    texts = {
        "text": "Table 1. Top-1",
        "markdown": "**Figure 9.** Top-1",
        "latex": "\\begin{table}\n",
        "csv": ",CIFAR-10 ours,CIFAR-10 std\n",
        "json": '[\n  {\n    "table": "table1"',
    }
    for form in FORMATS:
        text = texts[form]
        (tmp_path / form).write_text(text)
        assert begins_as(form, tmp_path / form)
    for text in (
        "#!/bin/bash\n# 3 runs; sbatch jobs.sh starts them",
        "torchrun -m automix_transfer pretrain",
    ):
        (tmp_path / "jobs.sh").write_text(text)
        assert is_list(tmp_path / "jobs.sh")
    (tmp_path / "jobs.sh").write_text("#!/bin/bash\nrm -r runs\n")
    assert not is_list(tmp_path / "jobs.sh")


def test_a_plan_for_a_scheduler_must_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands nowhere else: a full disk behind stdout is an error."""
    write_images(tmp_path / "images")
    monkeypatch.setattr(sys, "stdout", output("/dev/full"))
    words = ["--backbones", "random", "--encoder", "resnet10_32", "--tasks", "knn"]
    words += ["--data", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    for last in (["--print", "slurm"], ["--plan"]):
        with pytest.raises(OSError, match="standard output"):
            main(["transfer", *words, *last])
