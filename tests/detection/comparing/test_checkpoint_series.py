"""Several checkpoints of a run, evaluated into one table and a curve."""

import json

import pytest
from PIL import Image

from automix_transfer.detection.comparing.checkpoint_series import find_checkpoints
from automix_transfer.errors import UserError
from tests.detection.resuming.test_began import start
from tests.detection.tiny import QUICK


@pytest.fixture()
def run(voc, tmp_path):
    folder = tmp_path / "x"
    options = [*QUICK, "MODEL.WEIGHTS", "", "SOLVER.CHECKPOINT_PERIOD", "1"]
    return folder, start(voc, folder, *options, resume=False)


@pytest.mark.slow
def test_each_is_evaluated_once(run, voc, script, monkeypatch):
    from automix_transfer.detection import engine

    folder, results = run
    (folder / "model_0000009.pth").write_bytes(b"half a file")
    asked, test = [], engine.Trainer.test

    def counted(cfg, model):
        asked.append(cfg.OUTPUT_DIR)
        return test(cfg, model)

    monkeypatch.setattr(engine.Trainer, "test", staticmethod(counted))
    command = ["--eval-only", "--num-gpus", "0", "--data-root", voc, "--checkpoints"]
    names = ["model_0000009.pth", "model_final.pth", "model_0000000.pth", "model_0000001.pth"]
    code, out, error, files = script(*command, *(folder / name for name in names), output=folder)
    assert code == 1 and len(asked) == 2, out + error
    assert {"checkpoints.json", "checkpoints.csv", "checkpoints.png"} <= set(files)
    found = json.loads((folder / "checkpoints.json").read_text())
    rows = found["checkpoints"]
    assert [row["iterations"] for row in rows] == [1, 2, 2] and "model_0000009.pth" in found["problems"][0]
    assert rows[1]["metrics"] == results["metrics"]
    table = (folder / "checkpoints.csv").read_text().splitlines()
    assert table[0].startswith("file,iterations,AP,AP50,AP75,val_loss") and len(table) == 4
    assert min(Image.open(folder / "checkpoints.png").size) > 100
    before = (folder / "config.yaml").read_text()
    # again, and with the losses: other settings, so it is evaluated again
    code, *_ = script(*command, folder / "model_final.pth", output=folder)
    assert code == 0 and len(asked) == 2
    assert len(json.loads((folder / "checkpoints.json").read_text())["others"]) == 1
    code, out, error, _ = script(*command, folder / "model_final.pth", "TEST.LOSS", "True", output=folder)
    assert code == 0 and len(asked) == 3, out + error
    (row,) = json.loads((folder / "checkpoints.json").read_text())["checkpoints"]
    assert row["losses"]["val_loss"] > 0 and (folder / "config.yaml").read_text() == before


def test_what_names_checkpoints(tmp_path):
    for name in ("model_0000001.pth", "model_0000003.pth", "model_best.pth", "model_final.pth"):
        (tmp_path / name).touch()
    numbered = [str(tmp_path / f"model_000000{number}.pth") for number in (1, 3)]
    final = str(tmp_path / "model_final.pth")
    assert find_checkpoints([str(tmp_path)]) == [*numbered, final]
    assert find_checkpoints([f"{tmp_path}/model_0*.pth", numbered[0]]) == numbered
    with pytest.raises(UserError, match="--checkpoints .*none"):
        find_checkpoints([f"{tmp_path}/none*.pth"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoints", "gone.pth"], "--eval-only"),
        (["--eval-only", "--checkpoints", "gone.pth"], "gone.pth"),
        (["--eval-only", "--checkpoints", "r50.pkl"], "r50.pkl"),
        (["--eval-only", "--checkpoints", "a.pth", "MODEL.WEIGHTS", "b.pth"], "MODEL.WEIGHTS"),
        (["--eval-only", "--checkpoints", "SOLVER.MAX_ITER", "2"], "--checkpoints"),
    ],
)
def test_words_that_contradict(words, message, script):
    code, _, error, _ = script(*words)
    assert code == 2 and message in error and error.count("\n") == 1
