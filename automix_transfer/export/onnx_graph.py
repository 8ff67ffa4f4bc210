"""Export to ONNX: one file for onnxruntime and what else reads the format, for batches of any size.

Input ``images`` (N, 3, H, W), float32, normalised, of the training size; output ``logits`` (N, K), or
``features`` (N, C) without a classifier. Key table: the traced graph holds the encoder's tensors by their own
keys; torch's optimizer then folds some into others (BatchNorm into convolutions), so the file does not. How
images are fed to it and what its classes are is in the file's metadata.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from automix_transfer.errors import UserError, first_line
from automix_transfer.export.proof import Loaded, module_taps, same_values
from automix_transfer.export.source import Source
from automix_transfer.host.foreign_logs import without_logs
from automix_transfer.io import atomic_write, encodable

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# of the largest logit; BatchNorm that is folded into a convolution gives about 1e-6
TOLERANCE = 1e-4
NOTE = "keys as traced; in the file, BatchNorm may be folded into convolutions"


def export_onnx(source: Source, output: Path) -> Loaded:
    """Write ``output`` and load it back by onnxruntime.

    Raises:
        UserError: a package of the extra ``onnx`` is not installed, or the network cannot be traced.
    """
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise UserError(
            f"{', '.join(missing)} not installed, so an export to ONNX cannot be made and proven; "
            f"pip install {' '.join(PACKAGES)}"
        )
    import onnx
    from onnx.numpy_helper import to_array

    encoder, info = source.encoder, source.info
    name = "logits" if info.num_classes else "features"
    images = torch.zeros(2, 3, info.image_size, info.image_size)
    batch = {next(iter(signature(encoder.forward).parameters)): {0: torch.export.Dim("batch")}}
    with without_logs(logging.WARNING):
        program = torch.onnx.export(
            encoder,
            (images,),
            input_names=["images"],
            output_names=[name],
            dynamic_shapes=batch,
            optimize=False,
            verbose=False,
        )
        assert program is not None  # it writes no file
        traced = {t.name: torch.tensor(to_array(t)) for t in program.model_proto.graph.initializer}
        program.optimize()
        model = program.model_proto
    onnx.helper.set_model_props(model, metadata(source))
    atomic_write(output, lambda file: file.write(model.SerializeToString()))
    state = {key: value for key, value in encoder.state_dict().items() if value.is_floating_point()}
    return Loaded(
        "onnxruntime.InferenceSession(FILE)",
        same_values(traced, state),
        len(state),
        module_taps(encoder, [(name, "")]),
        _session_taps(output, name),
        (NOTE,),
        PACKAGES,
        TOLERANCE,
        tuple((number, info.image_size, info.image_size) for number in (1, 3)),
    )


def metadata(source: Source) -> dict[str, str]:
    """``metadata_props`` of the file; lists are JSON, and mean and std are of RGB in [0, 1]."""
    info: Mapping[str, Any] = source.encoder.pretrained_cfg  # type: ignore[assignment]
    keys = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "num_classes")
    about = {key: info[key] for key in keys} | {"class_names": list(source.info.class_names)}
    about |= {"encoder": source.info.name, "step": source.step, "source_sha256": source.sha256}
    return {
        key: encodable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in about.items()
    }


def _session_taps(path: Path, name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds have no common base
        raise RuntimeError(first_line(error)) from error
    return lambda images: {name: torch.from_numpy(session.run([name], {"images": images.numpy()})[0])}
