"""Loggers beside the run's own files: what W&B gets, over a resume too, and that none can end a training."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from automix_transfer.errors import UserError
from automix_transfer.signals import Interrupted
from automix_transfer.training.loop import train
from automix_transfer.training.record.loggers import STATE, _state, refuse_settings_here
from tests.training.processes import CONTEXT, at_each_update

BOTH = ["train.loggers=[tensorboard,wandb]", "train.picture_epochs=[1]"]


class FakeWandb(ModuleType):
    """The calls that a run makes, kept; ``failing`` are the names of those that raise."""

    run = None
    Image = staticmethod(lambda pixels: f"picture of {pixels.shape}")
    Settings = staticmethod(lambda **settings: settings)

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.ended: list[Any] = []
        self.failing: set[str] = set()

    def _fail(self, name: str) -> None:
        if name in self.failing:
            raise RuntimeError(f"{name}: the server is away\nand so on")

    def init(self, **given: Any) -> Any:
        self.begun.append(given)
        self._fail("init" if "mode" not in given else "offline")

        def log(values: dict[str, Any], step: int) -> None:
            self._fail("log")
            self.rows.append((step, values))

        def finish(exit_code: int) -> None:
            self._fail("finish")
            self.ended.append(exit_code)

        return SimpleNamespace(log=log, finish=finish)

    def teardown(self) -> None:
        self.ended.append("teardown")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def log_of(folder: Path) -> dict[int, dict[str, float]]:
    """The rows of log.jsonl as W&B names them: step -> {"train/loss": ..., "epoch/top1": ...}."""
    steps: dict[int, dict[str, float]] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        kind, step = row.pop("kind"), row.pop("step")
        del row["time"], row["epoch"]
        steps.setdefault(step, {}).update({f"{kind}/{key}": value for key, value in row.items()})
    return steps


def test_wandb_gets_what_the_log_has_and_the_picture(
    experiment: Any, wandb: FakeWandb, tmp_path: Path
) -> None:
    train(experiment(*BOTH))
    logged = log_of(tmp_path / "run")
    assert [step for step, _ in wandb.rows] == list(logged) == [1, 2, 3, 4, 5, 6]
    pictures = [(step, row.pop("mixed samples")) for step, row in wandb.rows if "mixed samples" in row]
    assert [step for step, _ in pictures] == [3] and "picture of" in pictures[0][1]
    assert dict(wandb.rows) == logged and "epoch/top1" in logged[6]
    (begun,) = wandb.begun
    assert begun["dir"] == str(tmp_path / "run") and begun["config"]["optimizer"]["lr"] == 0.05
    assert wandb.ended == [0, "teardown"] and list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("stopped", [2, 3, 4], ids=["in an epoch", "at its end", "after it"])
def test_a_resumed_run_goes_on_and_sends_each_step_once(
    experiment: Any, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stopped: int
) -> None:
    def interrupt(run: Any) -> None:
        if run.at.step + 1 == stopped and len(wandb.begun) == 1:
            signal.raise_signal(signal.SIGTERM)

    at_each_update(monkeypatch, interrupt)
    with pytest.raises(Interrupted):
        train(experiment(*BOTH))
    assert wandb.ended == [1, "teardown"]
    train(experiment("train.loggers=[wandb]"), resume=True)
    first, second = wandb.begun
    assert first["id"] == second["id"] and second["resume"] == "allow"
    for _, row in wandb.rows:
        row.pop("mixed samples", None)
    assert dict(wandb.rows) == log_of(tmp_path / "run") and len(wandb.rows) == 6
    assert [step for step, _ in wandb.rows] == [1, 2, 3, 4, 5, 6]


def test_steps_that_are_done_again_are_not_sent_again(
    experiment: Any, wandb: FakeWandb, tmp_path: Path
) -> None:
    """As after a kill: W&B has more than the checkpoint."""
    train(experiment(*BOTH, "train.keep_epochs=[1]"))
    (tmp_path / "run" / "epoch_0001.pt").rename(tmp_path / "run" / "last.pt")
    train(experiment(*BOTH), resume=True)
    assert [step for step, _ in wandb.rows] == [1, 2, 3, 4, 5, 6]
    wandb.rows.clear()
    for file in (tmp_path / "run").glob("*.pt"):
        file.unlink()
    train(experiment(*BOTH, "optimizer.lr=0.01"))  # another training: nothing of it is there yet
    assert [step for step, _ in wandb.rows] == [1, 2, 3, 4, 5, 6]
    assert len({begun["id"] for begun in wandb.begun}) == 2


def test_wandb_that_comes_later_gets_what_was_before(
    experiment: Any, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train(experiment("train.loggers=[]", "train.keep_epochs=[1]"))
    assert not wandb.begun and not (tmp_path / "run" / "tensorboard").exists()
    (tmp_path / "run" / "epoch_0001.pt").rename(tmp_path / "run" / "last.pt")
    train(experiment("train.loggers=[wandb]"), resume=True)
    assert dict(wandb.rows) == log_of(tmp_path / "run")


@pytest.mark.parametrize("failing", ["init", "log", "finish", "offline"])
def test_a_logger_that_fails_is_one_line(
    experiment: Any, wandb: FakeWandb, tmp_path: Path, capsys: pytest.CaptureFixture[str], failing: str
) -> None:
    wandb.failing = {failing, "init"} if failing == "offline" else {failing}
    train(experiment(*BOTH))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert all("server is away" in line for line in said) and len(said) == (2 if failing == "offline" else 1)
    assert list(log_of(tmp_path / "run")) == [1, 2, 3, 4, 5, 6]
    if failing == "init":
        assert wandb.begun[-1]["mode"] == "offline" and len(wandb.rows) == 6
        assert wandb.ended == ["teardown", 0, "teardown"]
    if failing == "log":
        assert wandb.ended == [1, "teardown"]


@pytest.mark.parametrize(
    "state",
    ['{"id": "../../x", "sent": 2}', '{"id": "a\\nb", "sent": 2}', '{"id": "a", "sent": 1e999}', "[" * 2000],
)
def test_a_state_that_w_and_b_was_not_given_begins_anew(tmp_path: Path, state: str) -> None:
    (tmp_path / STATE).write_text(state)
    assert _state(tmp_path / STATE) == {}
    (tmp_path / STATE).write_text('{"id": "0a1b2c3d", "sent": 2}')
    assert _state(tmp_path / STATE) == {"id": "0a1b2c3d", "sent": 2}


def test_the_current_folder_names_no_server_that_gets_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nentity = us\nproject = birds\n")
    refuse_settings_here()
    (tmp_path / "wandb" / "settings").write_text("[default]\nproject = birds\nbase_url: https://else.where\n")
    with pytest.raises(UserError, match="base_url"):
        refuse_settings_here()
    monkeypatch.setenv("WANDB_BASE_URL", "https://ours")  # which W&B takes before the file
    refuse_settings_here()
    (tmp_path / "wandb" / "settings").write_text("base_url")
    with pytest.raises(UserError, match="settings"):
        refuse_settings_here()


def test_a_logger_that_is_not_installed_is_refused_before_anything_starts(
    experiment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"train\.loggers .*pip install wandb"):
        train(experiment(*BOTH))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"train\.loggers.*tensorbord"):
        experiment("train.loggers=[tensorbord]")


def test_a_dry_run_logs_nowhere(experiment: Any, wandb: FakeWandb) -> None:
    train(experiment(*BOTH), dry_run=True)
    assert not wandb.begun


def history_of(file: Path) -> list[dict[str, Any]]:
    """The rows of a .wandb file: a LevelDB log (blocks of 32 KiB, records in parts) of protobufs."""
    from wandb.proto import wandb_internal_pb2

    content, at, record, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, part = struct.unpack("<HB", content[at + 4 : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last part
            parsed = wandb_internal_pb2.Record.FromString(record)
            record = b""
            if parsed.WhichOneof("record_type") == "history":
                items = parsed.history.item
                rows.append(
                    {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
                )
    return rows


def children_of(process: int) -> list[int]:
    """What ``process`` has started and left behind, told by the number on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"--pid" in words and words[words.index(b"--pid") + 1] == str(process).encode():
            found.append(int(entry.name))
    return found


def _train_offline(experiment: Any) -> None:
    os.environ["WANDB_MODE"] = "offline"
    train(experiment, resume=True)


@pytest.mark.slow
def test_the_real_wandb_offline(experiment: Any, tmp_path: Path) -> None:
    """Stopped by a signal and resumed: each step once, in order, under one id; no process is left."""
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    settings = experiment(*BOTH, "train.epochs=6")
    for attempt in range(2):
        process = CONTEXT.Process(target=_train_offline, args=(settings,))
        process.start()
        deadline = time.monotonic() + 300
        while attempt == 0 and process.is_alive() and time.monotonic() < deadline:
            rows = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else []
            if len(rows) > 4:
                os.kill(process.pid, signal.SIGTERM)
                break
            time.sleep(0.01)
        process.join(300)
        assert process.exitcode == (0 if attempt else 1) and not children_of(process.pid)
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    rows = [row for file in files for row in history_of(file)]
    steps = [row["_step"] for row in rows]
    assert steps == list(log_of(run)) == list(range(1, 19))
    for row, expected in zip(rows, log_of(run).values(), strict=True):
        assert {key: row[key] for key in expected} == expected
