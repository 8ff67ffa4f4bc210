"""ONNX files give, in onnxruntime, what the encoder gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.export import export, onnx_graph
from automix_transfer.models import load_encoder
from tests.models.files import automix_checkpoint


@pytest.mark.slow
def test_onnxruntime_computes_the_same(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, _ = automix_checkpoint(tmp_path / "last.pt", "resnet10_32", stem="cifar", image_size=32)
    proof = export(path, "onnx", tmp_path / "x.onnx")
    assert proof.matched == proof.total == 67
    assert {row.input for row in proof.rows} == {(1, 3, 32, 32), (3, 3, 32, 32)}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "x.onnx", "x.proof.json"]
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    about = session.get_modelmeta().custom_metadata_map
    encoder, info = load_encoder(path)
    assert json.loads(about["class_names"]) == list(info.class_names)
    assert json.loads(about["mean"]) == list(info.mean) and about["interpolation"] == "bilinear"
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = encoder(images)
    found = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = automix_checkpoint(tmp_path / "last.pt", "cifar_resnet8", stem="cifar", image_size=32)
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UserError, match="onnxruntime not installed.*pip install"):
        export(path, "onnx", tmp_path / "x.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
