"""automix-transfer: each command is a function of this process, imported when it is asked for."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from automix_transfer import __version__, cli
from automix_transfer.command_line import command, leave_current_folder, this_command, typed
from automix_transfer.errors import UserError
from automix_transfer.host.launched import LAUNCHER

ROOT = Path(__file__).resolve().parents[1]
EVERY = [
    *([name] for name in cli.COMMANDS),
    *([name, sub] for name in cli.SUBCOMMANDS for sub in cli.SUBCOMMANDS[name]),
]


def run(*arguments: str, program: list[str] | None = None, **options) -> subprocess.CompletedProcess[str]:
    started = [*(program or command("")), *arguments]
    return subprocess.run(started, capture_output=True, text=True, **options)


def test_help_lists_every_command_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["help"]):
        assert cli.main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"  {name} " in text for name in cli.COMMANDS)
        assert max(map(len, text.splitlines())) <= 80
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("words", [words for words in EVERY if words != ["data"]], ids=" ".join)
def test_every_command_has_its_script(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its module has a ``main``, whose help has the command's name."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    name = " ".join(words).removesuffix(" train")
    assert not stopped.value.code
    assert capsys.readouterr().out.startswith(f"usage: automix-transfer {name} ")


def test_a_command_becomes_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its function takes the arguments as they are, and gives the exit code."""
    given = []

    def main(arguments: list[str]) -> int:
        given.append(arguments)
        return 7

    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(main=main))
    assert cli.main(["pretrain", "--config-file", "a b.yaml", "data.root=/x y"]) == 7
    cli.main(["detect", "compare", "--seeds", "3"])
    assert given == [["--config-file", "a b.yaml", "data.root=/x y"], ["--seeds", "3"]]


@pytest.mark.parametrize("name", ["detect", "export", "data"])
def test_a_launcher_does_not_start_a_command_several_times(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes would not know of each other; the first one says so."""
    for key, value in zip(LAUNCHER, ("0", "2", "0", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(key, value)
    words = [name, *(["pack"] if name == "data" else [])]
    with pytest.raises(UserError, match=rf"^{name} was started 2 times"):
        cli.main(words)
    monkeypatch.setenv("RANK", "1")
    assert cli.main(words) == 2
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(main=lambda arguments: 7))
    assert cli.main(["pretrain"]) == 7


def test_the_entry_point_is_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text().split("[project.scripts]\n")[1].split("\n\n")[0]
    assert declared == 'automix-transfer = "automix_transfer.cli:console"' and callable(cli.console)


def test_mistakes_name_the_remedy() -> None:
    for words, remedy in (
        (["pretran"], "did you mean pretrain"),
        (["xyz"], "choose one of pretrain"),
        (["data", "chek"], "did you mean check"),
        (["data"], "check, pack, synthetic"),
    ):
        with pytest.raises(UserError, match=remedy):
            cli.main(words)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("/opt/bin/automix-transfer", "automix-transfer pretrain a=1"),
        ("/opt/automix_transfer/__main__.py", "automix-transfer pretrain a=1"),
        ("pretrain/train.py", "python pretrain/train.py pretrain a=1"),
    ],
)
def test_a_process_knows_how_it_was_started(
    program: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "pretrain", "a=1"])
    assert " ".join(this_command()) == shown
    of_launcher = dict(zip(LAUNCHER, ("0", "8", "0", "127.0.0.1", "29500"), strict=True))
    for name, value in {**of_launcher, "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    launcher = "torchrun --nnodes=2 --nproc-per-node=4 "
    no_python = "--no-python " if shown.startswith("automix") else ""
    assert " ".join(this_command()) == launcher + no_python + shown.removeprefix("python ")


def test_commands_are_shown_as_they_are_typed() -> None:
    assert typed(["nice", *command("detect compare", "--seeds", "2")]) == [
        *("nice", "automix-transfer", "detect", "compare", "--seeds", "2")
    ]
    assert typed(["ls", "-l"]) == ["ls", "-l"]


@pytest.mark.slow
def test_exit_codes_and_help_are_the_scripts() -> None:
    unknown = run("pretran")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error: there is no command 'pretran'")
    missing = run("pretrain", "--config-file", "nowhere.yaml")
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
    assert "nowhere.yaml does not exist" in missing.stderr
    helped = run("doctor", "--help")
    assert helped.returncode == 0 and helped.stdout.startswith("usage: automix-transfer doctor")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["pretrain", "--help"], ["pretrain", "--list"]], ids=" ".join
)
def test_help_and_list_do_without_torch(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom automix_transfer import cli\ntry: cli.main({arguments})\nexcept SystemExit: pass\n"
    )
    done = run("-c", code + "assert not {'torch', 'timm'} & {*sys.modules}", program=[sys.executable])
    assert done.returncode == 0 and len(done.stdout) > 500, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "program, path",
    [
        ([sys.executable, "-m", "automix_transfer"], str(ROOT)),
        ([sys.executable, "-m", "automix_transfer"], f"{os.pathsep}{ROOT}"),
        (command(""), f"{ROOT}{os.pathsep}"),
        ([sys.executable, str(ROOT / "detection" / "train_net.py")], f"{os.pathsep}{ROOT}{os.pathsep}."),
        ([sys.executable, "-m", "automix_transfer.report"], f"{ROOT}{os.pathsep}"),
    ],
)
def test_nothing_is_imported_from_the_current_folder(program: list[str], path: str, tmp_path: Path) -> None:
    names = ("yaml", "scipy", "torch", "numpy", "omegaconf", "rich", "detectron2", "PIL", "matplotlib")
    for name in names:
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()")
    environment = {**os.environ, "PYTHONPATH": path}
    words = ["pretrain", "--list"] if program[-1].endswith("automix_transfer") else ["--help"]
    done = run(*words, program=[word for word in program if word], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_no_settings_are_read_from_the_current_folder(tmp_path: Path) -> None:
    """numba would load pickles from the folder that its file names, and Matplotlib draw otherwise."""
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 7")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: x")
    shows = (
        "from automix_transfer.command_line import leave_current_folder; leave_current_folder(); "
        "import os, matplotlib, numba; numba.core.config.reload_config(); "
        "print(matplotlib.rcParams['figure.dpi'], numba.config.CACHE_DIR, os.getcwd())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": ""}
    done = run(shows, program=[sys.executable, "-P", "-c"], cwd=tmp_path, env=environment)
    assert done.stdout.split() == ["100.0", str(tmp_path)], done.stderr


def test_children_do_not_import_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(ROOT), *sys.path])
    for given, left in ((f":{ROOT}:.", str(ROOT)), (":", None), (f"{tmp_path}:", str(tmp_path))):
        monkeypatch.setenv("PYTHONPATH", given)
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        leave_current_folder()
        assert os.environ["PYTHONSAFEPATH"] == "1" and os.environ.get("PYTHONPATH") == left
        assert str(tmp_path) not in sys.path
    assert command("doctor")[1] == "-P"
