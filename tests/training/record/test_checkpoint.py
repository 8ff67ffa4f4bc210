"""A checkpoint is complete, and the old one outlives every failure to write a new one."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from automix_transfer import io
from automix_transfer.errors import UserError
from automix_transfer.io import load_torch
from automix_transfer.training.loop import train
from automix_transfer.training.record import checkpoint
from automix_transfer.training.record.checkpoint import Checkpoint


def content(step: int, **more: Any) -> Checkpoint:
    weights = {"w": torch.full((1000,), float(step))}
    return Checkpoint(
        **{**dict(encoder={}, encoders={}, model=weights, model_extra={}, config={}, epoch=0), **more},
        step=step,
    )


def test_rotation_and_best(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, content(step), names=["best.pt"] if step == 2 else [])
    assert [load_torch(tmp_path / name)["step"] for name in ("last.pt", "previous.pt", "best.pt")] == [
        3,
        2,
        2,
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


def test_chosen_epochs_stay_as_they_ended(experiment, tmp_path: Path) -> None:
    train(experiment("train.keep_epochs=[1,3]", "train.epochs=3", "train.save_every_steps=1"))
    kept = {path.name: load_torch(path)["step"] for path in (tmp_path / "run").glob("epoch_*.pt")}
    assert kept == {"epoch_0001.pt": 3, "epoch_0003.pt": 9}


def test_a_damaged_last_does_not_replace_a_previous_that_loads(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, content(step))
    damaged = tmp_path / "last.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    checkpoint.save(tmp_path, content(2))
    assert [load_torch(tmp_path / name)["step"] for name in ("last.pt", "previous.pt")] == [2, 1]
    checkpoint.save(tmp_path, content(3), trusted=True)
    assert [load_torch(tmp_path / name)["step"] for name in ("last.pt", "previous.pt")] == [3, 2]


def test_rotation_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    test_rotation_and_best(tmp_path)


def test_disk_full_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, content(1))

    def full(_value: object, file) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left.*untouched"):
        checkpoint.save(tmp_path, content(2))
    assert load_torch(tmp_path / "last.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_file_size_limit_keeps_the_old_one(tmp_path: Path) -> None:
    """A real failure to write, by the kernel, in the middle of the file."""
    checkpoint.save(tmp_path, content(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError, match="could not be written"):
            checkpoint.save(tmp_path, content(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_torch(tmp_path / "last.pt")["step"] == 1


def test_one_that_does_not_read_back_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, content(1))
    monkeypatch.setattr(checkpoint, "load_torch", lambda path: content(7).to_dict())
    with pytest.raises(UserError, match="read back"):
        checkpoint.save(tmp_path, content(2))
    assert io.load_torch(tmp_path / "last.pt")["step"] == 1


def test_lost_last_falls_back(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, content(step))
    (tmp_path / "last.pt").unlink()
    said: list[str] = []
    found = checkpoint.load_latest(tmp_path, said.append)
    assert found is not None and found.step == 1 and "previous.pt" in said[0]


def test_where_the_last_two_are_lost_the_furthest_of_the_others_goes_on(tmp_path: Path) -> None:
    for step, names in ((1, ["best.pt"]), (3, ["epoch_0003.pt"]), (2, ["epoch_0002.pt"]), (4, [])):
        checkpoint.save(tmp_path, content(step), names)
    (tmp_path / "previous.pt").unlink()
    (tmp_path / "last.pt").write_bytes(b"")
    said: list[str] = []
    found = checkpoint.load_latest(tmp_path, said.append)
    assert found is not None and found.step == 3
    assert "epoch_0003.pt" in said[0] and "last.pt is damaged" in said[0]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_hostile_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.pt").write_bytes(pickle.dumps({"step": Hostile()}, protocol=2))
    torch.save({"step": Hostile()}, tmp_path / "previous.pt")
    with pytest.raises(UserError, match="refused"):
        checkpoint.load_latest(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_foreign_file(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="encoder.weights"):
        checkpoint.load_latest(tmp_path)


def test_full_disk_in_a_run(experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint fails: the run ends with one sentence, and the first one resumes."""
    whole = experiment(f"output={tmp_path / 'whole'}")
    metrics = train(whole)
    real, calls = torch.save, []

    def fails_once(value: object, file) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(value, file)

    monkeypatch.setattr(torch, "save", fails_once)
    with pytest.raises(UserError, match="No space left"):
        train(experiment())
    resumed = train(experiment(), resume=True)
    assert {k: v for k, v in resumed.items() if k != "seconds"} == {
        k: v for k, v in metrics.items() if k != "seconds"
    }


def test_what_a_checkpoint_holds(experiment, tmp_path: Path) -> None:
    train(experiment("method.name=automix", "train.epochs=1"))
    found = load_torch(tmp_path / "run" / "last.pt")
    assert found["format"] == "automix_transfer/1"
    assert found["encoders"] == {"k": "encoder_k.", "q": "encoder_q."}
    assert all(isinstance(value, torch.Tensor) for value in found["model"].values())
    assert found["encoder"]["class_names"] == ["class_0", "class_1", "class_2"]
    assert found["config"]["method"]["name"] == "automix"
    assert (found["step"], found["epoch"]) == (3, 1)


def test_a_field_of_another_version_is_passed_over(tmp_path: Path) -> None:
    torch.save({**content(3, seconds=1.5).to_dict(), "of_the_future": 1}, tmp_path / "last.pt")
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and (found.step, found.seconds) == (3, 1.5)
    old = {key: value for key, value in content(3).to_dict().items() if key in checkpoint.READ_BY_ALL}
    assert Checkpoint.from_dict(old).history == []
