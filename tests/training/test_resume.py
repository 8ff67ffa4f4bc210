"""N steps are k steps, kill -9, resume and N - k steps, bit for bit (rule 1 of the design)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch
from automix_transfer.training.loop import train
from tests.training.processes import assert_same_run, finish, kill_and_resume, rows

# RandAugment draws from Python's and NumPy's generators, stochastic depth from torch's
RANDOM = [
    "data.randaugment=rand-m5-mstd0.5-inc1",
    "encoder.drop_path=0.3",
    "train.save_every_steps=2",
    "train.epochs=4",
]
STEPS = 4 * 3


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", ["vanilla", "automix"])
def test_killed_and_resumed_is_bit_equal(experiment, tmp_path: Path, method: str, workers: int) -> None:
    killed = experiment(f"method.name={method}", f"data.workers={workers}", *RANDOM)
    whole = replace(killed, output=str(tmp_path / "whole"))
    finish(whole)
    met = kill_and_resume(killed, seed=workers + len(method), total=STEPS)
    assert met >= 1
    assert_same_run(Path(whole.output), Path(killed.output))
    assert [row["step"] for row in rows(Path(killed.output))] == list(range(1, STEPS + 1))
    assert [row["epoch"] for row in rows(Path(killed.output), "epoch")] == [1, 2, 3, 4]
    assert (Path(killed.output) / "log.csv").read_text().count("\n") == 5


@pytest.mark.slow
def test_an_approximation_that_counts_its_steps_resumes_to_the_same_bits(experiment, tmp_path: Path) -> None:
    killed = experiment("method.name=automix", "method.preset=fast", "method.skip_generator=0.3", *RANDOM)
    whole = replace(killed, output=str(tmp_path / "whole"))
    finish(whole)
    assert kill_and_resume(killed, seed=3, total=STEPS) >= 1
    assert_same_run(Path(whole.output), Path(killed.output))


@pytest.mark.slow
def test_a_data_set_of_hugging_face_resumes_to_the_same_bits(experiment, tmp_path: Path) -> None:
    saved = Path(__file__).parents[1] / "fixtures" / "huggingface" / "saved"
    data = ["data.dataset=hf", f"data.root={saved}", "data.val_split=test", "train.batch_size=2"]
    killed = experiment(*data, *RANDOM)
    whole = replace(killed, output=str(tmp_path / "whole"))
    finish(whole)
    assert kill_and_resume(killed, seed=5, total=STEPS) >= 1
    assert_same_run(Path(whole.output), Path(killed.output))


@pytest.mark.slow
def test_workers_do_not_change_the_result(experiment, tmp_path: Path) -> None:
    train(experiment(*RANDOM, f"output={tmp_path / 'a'}"))
    train(experiment(*RANDOM, f"output={tmp_path / 'b'}", "data.workers=1"))
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_nothing_to_resume_starts_and_says_so(experiment, capsys: pytest.CaptureFixture) -> None:
    train(experiment("train.epochs=1"), resume=True)
    assert "nothing to resume" in capsys.readouterr().out


def test_a_finished_run_resumes_to_its_metrics(experiment) -> None:
    metrics = train(experiment())
    assert train(experiment(), resume=True) == metrics


def test_damaged_checkpoint_falls_back_to_the_previous(
    experiment, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = experiment(f"output={tmp_path / 'whole'}")
    train(whole)
    train(experiment())
    last = tmp_path / "run" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    train(experiment(), resume=True)
    out = capsys.readouterr().out
    assert "previous.pt" in out and "last.pt is damaged" in out
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_all_checkpoints_damaged(experiment, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "run"))):
        train(experiment(), resume=True)


@pytest.mark.slow
def test_another_training_is_refused_by_key(experiment) -> None:
    train(experiment())
    for change in (
        "optimizer.lr=0.06",
        "method.name=mixup",
        "data.scale=[0.5,1.0]",
        "seed=1",
        "train.epochs=3",
    ):
        with pytest.raises(UserError, match=change.split("=")[0]):
            train(experiment(change), resume=True)
    # nothing that is trained
    train(experiment("train.log_every=2", "data.workers=1", "train.picture_epochs=[1]"), resume=True)


def test_other_data_is_refused(experiment, tmp_path: Path) -> None:
    from tests.training.tiny import write_images

    train(experiment())
    with pytest.raises(UserError, match="other data"):
        train(experiment(f"data.root={write_images(tmp_path / 'more', train=27)}"), resume=True)


def test_other_labels_of_as_many_images_are_refused(experiment, tmp_path: Path) -> None:
    from tests.training.tiny import write_images

    moved = tmp_path / "moved"
    given = experiment(f"data.root={write_images(tmp_path / 'images')}", "train.epochs=1")
    train(given)
    (tmp_path / "images").rename(moved)
    given = replace(given, data=replace(given.data, root=str(moved)))
    assert train(given, resume=True)["steps"] == 3
    for old, new in (("class_0/0000.png", "class_1/0000.png"), ("class_1/0001.png", "class_0/0001.png")):
        (moved / "train" / old).rename(moved / "train" / new)
    with pytest.raises(UserError, match="other labels"):
        train(given, resume=True)


@pytest.mark.parametrize("about", [b"", b"[]", None])
def test_a_run_goes_on_without_what_it_said_of_its_beginning(experiment, tmp_path: Path, about) -> None:
    train(experiment("train.epochs=1"))
    file = tmp_path / "run" / "run.json"
    file.unlink() if about is None else file.write_bytes(about)
    train(experiment("train.epochs=1"), resume=True)
    assert len(json.loads(file.read_text())["starts"]) == 1


def test_fresh_run_does_not_overwrite(experiment, tmp_path: Path) -> None:
    train(experiment())
    with pytest.raises(UserError, match="--resume"):
        train(experiment())
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(UserError, match=r"best\.pt"):
        train(experiment())
    (tmp_path / "run" / "best.pt").unlink()
    with pytest.raises(UserError, match=r"metrics\.json"):  # what was measured is not trained over
        train(experiment(), resume=True)


def test_best_goes_on(experiment, tmp_path: Path) -> None:
    """The best epoch of a resumed run may lie before the kill."""
    train(experiment("train.epochs=4"))
    content = load_torch(tmp_path / "run" / "last.pt")
    assert content["best"] == max(content["history"], key=lambda row: row["top1"])
    assert load_torch(tmp_path / "run" / "best.pt")["epoch"] == content["best"]["epoch"]
