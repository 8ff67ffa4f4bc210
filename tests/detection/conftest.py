"""Fixtures of the detection tests, which are skipped where Detectron2 is not installed."""

import logging
import sys
from pathlib import Path

import pytest
import torch

from automix_transfer.detection import compatibility
from automix_transfer.errors import run_script
from tests.detection.tiny import detector, write_backbone, write_coco, write_voc

if not compatibility.available():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc") / "VOC2007")


@pytest.fixture(scope="session")
def coco(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "coco")


@pytest.fixture(scope="session")
def r10(tmp_path_factory) -> Path:
    """A backbone file of the narrow network with recognisable values, and its overlay."""
    from automix_transfer.detection.weights.weights_check import backbone_keys

    model, _ = detector("embedded_R10_FPN.yaml")
    state = model.state_dict()
    generator = torch.Generator().manual_seed(3)
    keys = backbone_keys(model)
    arrays = {
        name: (0.05 * torch.randn(state[key].shape, generator=generator)).abs().numpy()
        for name, key in keys.items()
    }
    overlay = {
        "MODEL": {
            "PIXEL_MEAN": [120.0, 115.0, 100.0],
            "PIXEL_STD": [60.0, 60.0, 60.0],
            "BACKBONE": {"NAME": "build_automix_resnet_fpn_backbone"},
            "RESNETS": {
                "DEPTH": 10,
                "STEM_OUT_CHANNELS": 64,
                "RES2_OUT_CHANNELS": 32,
                "NUM_GROUPS": 1,
                "STRIDE_IN_1X1": False,
            },
        },
        "INPUT": {"FORMAT": "RGB"},
    }
    return write_backbone(tmp_path_factory.mktemp("r10") / "r10.pkl", arrays, "automix_transfer", overlay)


def forget_handlers():
    """Detectron2's log to the standard output of one test must not outlive it."""
    from detectron2.utils.logger import setup_logger

    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore"):
        for handler in logging.getLogger(name).handlers[:]:
            logging.getLogger(name).removeHandler(handler)


@pytest.fixture()
def script(monkeypatch, capsys, tmp_path):
    """Run ``automix-transfer detect`` in this process, which saves the seconds of a start; returns its exit
    code, stdout, stderr and output files."""
    from automix_transfer.commands import detect

    def run(*arguments: str, output: Path = tmp_path / "run"):
        given = [*map(str, arguments), "OUTPUT_DIR", str(output)]
        monkeypatch.setattr(sys, "argv", ["automix-transfer", "detect", *given])
        try:
            with pytest.raises(SystemExit) as stopped:
                run_script(lambda: detect.main(given))
        finally:
            forget_handlers()
        shown = capsys.readouterr()
        return (
            stopped.value.code,
            shown.out,
            shown.err,
            sorted(path.name for path in output.rglob("*")) if output.is_dir() else [],
        )

    return run
