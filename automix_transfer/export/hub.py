"""Export to a folder as timm's on the Hugging Face hub, ready to be pushed there.

``timm.create_model("local-dir:DIR", pretrained=True)`` opens it. Key table: the encoder's own keys, which are
timm's where timm has the network; the others open after ``import automix_transfer.models``, which registers
them. ``config.json`` says how images are fed to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from automix_transfer.errors import UserError
from automix_transfer.export.card import model_card
from automix_transfer.export.proof import Loaded, layers_of, loaded_back
from automix_transfer.export.safetensors import write_safetensors
from automix_transfer.export.source import Source
from automix_transfer.export.timm import check_input
from automix_transfer.io import read_json, sha256_of, write_json, write_text
from automix_transfer.models.hub.hub_folder import CONFIG, WEIGHTS
from automix_transfer.models.timm_names import ARCHITECTURE, architecture

CARD, PROOF = "README.md", Path(WEIGHTS).with_suffix(".proof.json").name
NOTE = "timm does not have this network: import automix_transfer.models registers it"


def export_hf(source: Source, output: Path) -> Loaded:
    """Write ``output`` (model.safetensors), config.json and README.md, and load the folder back by timm."""
    write_safetensors(source, output)
    content = config(source)
    write_json(output.with_name(CONFIG), content)
    write_text(output.with_name(CARD), model_card(source, content["architecture"] == ARCHITECTURE))
    network = timm.create_model(f"local-dir:{output.parent}", pretrained=True).eval()
    check_input(source, network)
    notes = (NOTE,) if content["architecture"] == ARCHITECTURE else ()
    words = "timm.create_model('local-dir:DIR', pretrained=True)"
    return loaded_back(words, source.encoder, network, layers_of(network, source.info.image_size), notes)


def config(source: Source) -> dict[str, Any]:
    """The content of ``config.json``, as timm writes it."""
    name, arguments = architecture(source.info)
    features = getattr(source.encoder, "num_features", None)
    about: Any = source.encoder.pretrained_cfg
    return {
        "architecture": name,
        "num_classes": source.info.num_classes,
        **({"num_features": features} if isinstance(features, int) else {}),
        **({"label_names": list(source.info.class_names)} if source.info.class_names else {}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {k: v for k, v in about.items() if k not in ("architecture", "label_names")},
    }


def is_hf_part(path: Path) -> bool:
    """Whether ``path`` is a file that such an export wrote and nobody has changed since, by the proof."""
    try:
        about = read_json(path.with_name(PROOF))
        return about["files"][path.name] == sha256_of(path)
    except (UserError, OSError, KeyError, TypeError):
        return False
