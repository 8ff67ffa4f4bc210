"""What a resumed detector must have in common with the run that was begun."""

import json
import shutil

import pytest
import torch
from PIL import Image

from automix_transfer.errors import UserError
from tests.detection.test_resume import arguments, weights
from tests.detection.tiny import QUICK, write_voc

SHORT = [*QUICK, "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "1", "MODEL.WEIGHTS"]


def start(data, output, *options, **others):
    from automix_transfer.detection.trainer import prepare, train

    given = arguments(data, output, *options, **others)
    return train(prepare(given), given)


@pytest.fixture(scope="module")
def begun(voc, r10, tmp_path_factory):
    """A run of four iterations that began from a backbone; tests take copies."""
    folder = tmp_path_factory.mktemp("begun")
    return folder, start(voc, folder, *SHORT, str(r10), resume=False)


@pytest.fixture()
def folder(begun, tmp_path):
    return shutil.copytree(begun[0], tmp_path / "run")


def test_results_name_the_weights_that_a_run_began_with(begun, folder, voc, r10, tmp_path):
    """A moved file of equal content is the same; a changed one is not, nor is none."""
    from automix_transfer.io import sha256_of

    assert begun[1]["weights_sha256"] == sha256_of(r10) and begun[1]["loaded"]
    moved = shutil.copy(r10, tmp_path / "moved.pkl")
    again = start(voc, folder, "MODEL.WEIGHTS", str(moved))
    assert (again["loaded"], again["weights_sha256"]) == (begun[1]["loaded"], begun[1]["weights_sha256"])
    other = tmp_path / "other.pkl"
    other.write_bytes(r10.read_bytes() + b"x")
    before = (folder / "config.yaml").read_bytes()
    for wrong in (str(other), "", str(tmp_path / "gone.pkl")):
        with pytest.raises(UserError, match=r"MODEL\.WEIGHTS"):
            start(voc, folder, "MODEL.WEIGHTS", wrong)
    assert (folder / "config.yaml").read_bytes() == before


def test_fewer_images_are_another_training_and_moved_ones_are_not(folder, voc, tmp_path):
    data = shutil.copytree(voc, tmp_path / "VOC2007")
    assert start(data, folder)["iterations"] == 4
    names = data / "ImageSets" / "Main" / "trainval.txt"
    names.write_text("".join(names.read_text().splitlines(True)[:-1]))
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN"):
        start(data, folder)
    assert start(data, folder, eval_only=True)["iterations"] == 4


def test_a_schedule_shorter_than_what_is_done_is_refused(folder, voc):
    with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER is 2"):
        start(voc, folder, "SOLVER.MAX_ITER", "2")


def test_a_lost_last_checkpoint_means_the_newest_that_loads(folder, voc):
    from automix_transfer.detection.resuming.checkpoints import latest

    (folder / "last_checkpoint").unlink()
    with pytest.raises(UserError, match="--resume"):
        start(voc, folder, "MODEL.WEIGHTS", "", resume=False)
    assert latest(folder)[0].name == "model_final.pth"
    (folder / "model_final.pth").write_bytes(b"half")
    assert latest(folder)[0].name == "model_0000003.pth"
    (folder / "model_final.pth").unlink()
    content = torch.load(folder / "model_0000003.pth", weights_only=True)
    content["trainer"]["iteration"] = 9
    torch.save(content, folder / "model_0000009.pth")
    shutil.copy(folder / "model_0000002.pth", folder / "model_final.pth")
    assert latest(folder)[0].name == "model_0000009.pth", "a run that was extended"


def test_images_are_looked_at_before_a_training(tmp_path, monkeypatch):
    """Truncated ones, to test and to train on, end it before it begins; a repaired one is looked at again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_voc(tmp_path / "VOC2007")
    for name, part in (("000005", "TEST"), ("000001", "TRAIN")):
        image = data / "JPEGImages" / f"{name}.jpg"
        sound = image.read_bytes()
        image.write_bytes(sound[: len(sound) // 2])
        for _ in range(2):
            with pytest.raises(UserError, match=rf"DATASETS\.{part}.*{name}\.jpg is truncated"):
                start(data, tmp_path / "run", *QUICK, "MODEL.WEIGHTS", "", resume=False)
        image.write_bytes(sound)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_bad_image_is_skipped_the_same_by_every_process(tmp_path, monkeypatch):
    """The next of the order takes its place, so a resumed run has the bits of one that never stopped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_voc(tmp_path / "VOC2007")
    image = data / "JPEGImages" / "000001.jpg"
    image.write_bytes(image.read_bytes()[:-600])
    options = [*SHORT, "", "DATALOADER.ON_BAD_IMAGE", "skip"]
    start(data, tmp_path / "whole", *options, resume=False)
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("last_checkpoint", "model_final.pth", "model_0000003.pth", "model_0000002.pth"):
        (cut / name).unlink()
    start(data, cut, "DATALOADER.NUM_WORKERS", "2")
    a, b = (weights(folder / "model_final.pth") for folder in (tmp_path / "whole", cut))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "000001.jpg does not decode" in (tmp_path / "whole" / "log.txt").read_text()
    assert "ON_BAD_IMAGE: skip" in (cut / "config.yaml").read_text()


def test_an_image_that_is_damaged_later_is_named(tmp_path):
    from automix_transfer.detection.loader import REPLACES, Samples

    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    records = [{"file_name": str(tmp_path / name)} for name in ("bad.png", "bad.png", "good.png")]

    def mapper(record):
        with Image.open(record["file_name"]) as opened:
            opened.load()
        return {"name": record["file_name"]}

    samples = Samples(records, mapper, 0, "test")
    with pytest.raises(UserError, match=r"bad\.png"):
        samples[5, 0]
    found = samples[5, 0, 1, 2]
    assert found["name"].endswith("good.png") and len(found[REPLACES]) == 2


def test_one_more_key_is_no_hindrance_for_plain_detectron2(begun):
    from detectron2.config import get_cfg

    get_cfg().merge_from_file(str(begun[0] / "config.yaml"))
    assert json.loads((begun[0] / "began.json").read_text())["train"]["images"] == 4
