"""automix-transfer: each command is its script, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from automix_transfer import __version__, cli
from automix_transfer.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_help_lists_every_command_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["help"]):
        assert cli.main(arguments) == 0
        text = capsys.readouterr().out
        assert all(
            f"  {name} " in text
            for name in (
                "pretrain",
                "export",
                "detect",
                "localize",
                "finetune",
                "evaluate",
                "report",
                "demo",
                "doctor",
            )
        )
        assert max(map(len, text.splitlines())) <= 80
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "command", [*([name] for name in cli.COMMANDS), *(["detect", name] for name in cli.DETECT)], ids=" ".join
)
def test_every_command_has_its_script(command: list[str]) -> None:
    found, name = cli.command_of([*command, "--key", "value"])
    assert found[0] == sys.executable and found[-2:] == ["--key", "value"] and name == " ".join(command)
    assert (
        Path(found[1]).is_file()
        if found[1] != "-m"
        else (ROOT / found[2].replace(".", "/")).with_suffix(".py").is_file()
        or (ROOT / found[2].replace(".", "/") / "__main__.py").is_file()
    )


def test_a_command_becomes_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is replaced, so that signals and exit codes are the script's; the arguments are passed as
    they are."""
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, command: became.append([program, *command]))
    cli.main(["pretrain", "--config-file", "a b.yaml", "data.root=/x y"])
    cli.main(["report", "tables", "runs"])
    assert became[0][1:] == [
        sys.executable,
        str(ROOT / "pretrain" / "train.py"),
        "--config-file",
        "a b.yaml",
        "data.root=/x y",
    ]
    assert became[1][2:] == ["-m", "automix_transfer.report", "tables", "runs"]


def test_the_entry_point_is_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text().split("[project.scripts]\n")[1].split("\n\n")[0]
    assert declared == 'automix-transfer = "automix_transfer.cli:console"' and callable(cli.console)


def test_mistakes_name_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean pretrain"):
        cli.main(["pretran"])
    with pytest.raises(UserError, match="choose one of pretrain"):
        cli.main(["xyz"])
    monkeypatch.setattr(cli, "ROOT", tmp_path)  # a wheel has no scripts
    with pytest.raises(UserError, match="clone the repository"):
        cli.main(["pretrain", "--help"])
    # the library's own need none
    assert cli.command_of(["evaluate"])[0][1:] == ["-m", "automix_transfer.evaluation"]


def test_exit_codes_and_help_are_the_scripts() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "automix_transfer", *arguments], capture_output=True, text=True
        )

    unknown = run("pretran")
    assert (unknown.returncode, unknown.stdout) == (2, "") and unknown.stderr.startswith(
        "error: there is no command 'pretran'"
    )
    missing = run("pretrain", "--config-file", "nowhere.yaml")
    assert (
        missing.returncode == 2
        and "nowhere.yaml does not exist" in missing.stderr
        and "Traceback" not in missing.stderr
    )
    helped = run("doctor", "--help")
    assert helped.returncode == 0 and helped.stdout.startswith("usage: automix-transfer doctor")
    first, second = helped.stdout.splitlines()[:2]
    assert not second.strip() or second.index("[") == first.index("[")
