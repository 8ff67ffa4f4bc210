"""Export to safetensors: any encoder, with what is needed to rebuild it in the file's metadata.

Key table: the encoder's own keys. Metadata: ``automix_transfer`` = JSON of format, encoder, which, step,
source_sha256.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save

from automix_transfer.export.proof import Loaded, layers_of, loaded_back
from automix_transfer.export.source import Source
from automix_transfer.io import atomic_write, encodable
from automix_transfer.models.weights_file import CHECKPOINT_FORMAT, METADATA_KEY, read_weights


def write_safetensors(source: Source, output: Path) -> None:
    """The encoder's tensors and the metadata."""
    about = {
        "format": CHECKPOINT_FORMAT,
        "encoder": source.info.to_dict(),
        "which": source.which,
        "step": source.step,
        "source_sha256": source.sha256,
    }
    state = {key: value.clone().contiguous() for key, value in source.encoder.state_dict().items()}
    said = encodable(json.dumps(about, ensure_ascii=False))
    content = save(state, metadata={"format": "pt", METADATA_KEY: said})
    atomic_write(output, lambda file: file.write(content))


def export_safetensors(source: Source, output: Path) -> Loaded:
    """Write ``output`` and load it back by safetensors into the network that its metadata describes."""
    write_safetensors(source, output)
    info = read_weights(output, source.which).info
    if info is None or info != source.info:
        raise RuntimeError("the metadata does not come back as it was written")
    network = info.build().eval()
    network.load_state_dict(load_file(output), strict=True)
    words = "automix_transfer.models.load_encoder(FILE), or safetensors.torch.load_file(FILE)"
    return loaded_back(words, source.encoder, network, layers_of(network, info.image_size))
