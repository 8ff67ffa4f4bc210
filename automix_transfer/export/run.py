"""One export: read the source, write to a temporary folder, prove, and only then put the files where they were asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from automix_transfer.errors import UserError, first_line
from automix_transfer.export.detectron2 import export_detectron2, is_overlay
from automix_transfer.export.proof import PACKAGES, TOLERANCE, Loaded, Proof, check_keys, compare, proof_sizes, sha256_of, versions_of
from automix_transfer.export.safetensors import export_safetensors
from automix_transfer.export.source import Source, open_source
from automix_transfer.export.timm import export_timm
from automix_transfer.export.torchvision import export_torchvision
from automix_transfer.io import read_json, sync_folder, write_json

EXPORTERS: dict[str, Callable[[Source, Path], Loaded]] = {
    "torchvision": export_torchvision, "timm": export_timm, "safetensors": export_safetensors, "detectron2": export_detectron2}
SUFFIXES = {"torchvision": ".pth", "timm": ".pth", "safetensors": ".safetensors", "detectron2": ".pkl"}


def export(checkpoint: str | Path, kind: str, output: str | Path, encoder_name: str | None = None, which: str | None = None,
           num_classes: int | None = None) -> Proof:
    """Export the encoder in ``checkpoint`` to ``output``, with its proof beside it (x.pth -> x.proof.json).

    Args:
        checkpoint: a checkpoint or export of ours, or a plain state dict of torchvision or timm.
        kind: a key of `EXPORTERS`.
        encoder_name: needed where the file does not say which encoder it holds.
        which: ``k`` or ``q`` of a checkpoint with both; ``None`` takes the one that inference uses.
        num_classes: checked against the file's classifier where given.

    Raises:
        UserError: anything wrong with the source, or an export that cannot be proven; then nothing is written.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    _check_request(checkpoint, kind, output)
    source = open_source(checkpoint, _sha256(checkpoint), encoder_name, which, num_classes)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")  # same disk: the rename is atomic
    except OSError as error:
        raise UserError(f"{output.parent} cannot be written ({error.strerror}); choose another folder for --output") from error
    with folder as name:
        draft = Path(name) / output.name
        proof = _prove(source, kind, draft, output)
        write_json(_proof_file(draft), proof.to_dict())
        try:
            for file in sorted(Path(name).iterdir(), key=lambda file: file.name == output.name):  # the file itself comes last
                os.replace(file, output.parent / file.name)
            sync_folder(output.parent)
        except OSError as error:
            raise UserError(f"{output} could not be put in place ({error.strerror}); choose another folder for --output") from error
    return proof


def _prove(source: Source, kind: str, draft: Path, output: Path) -> Proof:
    """Write ``draft`` and prove it; whatever the target framework raises on it means that it is not proven."""
    try:
        loaded = EXPORTERS[kind](source, draft)
        check_keys(loaded)
        rows = compare(loaded.source_taps, loaded.target_taps, proof_sizes(source.encoder, source.info.image_size))
    except UserError as error:
        raise UserError(str(error).replace(str(draft.parent), str(output.parent))) from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise UserError(f"{output}: {kind} could not load the export of encoder '{source.info.name}' ({first_line(error)}), "
                        "so nothing was written") from error
    return Proof(kind, output.name, sha256_of(draft), str(source.path), source.sha256, source.info.to_dict(), source.which, source.step,
                 loaded.target.replace("FILE", f"'{output.name}'"), loaded.matched, loaded.total, TOLERANCE,
                 max(row.difference for row in rows), rows, (*source.report.notes, *loaded.notes),
                 versions_of((*PACKAGES, *loaded.packages)))


def _check_request(checkpoint: Path, kind: str, output: Path) -> None:
    if kind not in EXPORTERS:
        raise UserError(f"export kind '{kind}' is unknown; choose one of {', '.join(EXPORTERS)}")
    if output.suffix != SUFFIXES[kind]:
        raise UserError(f"--output {output} must end in {SUFFIXES[kind]} for {kind}, which goes by the suffix; "
                        f"for example {output.with_suffix(SUFFIXES[kind]) if output.name else 'x' + SUFFIXES[kind]}")
    overlay = output.with_suffix(".yaml") if kind == "detectron2" else None
    for file in filter(None, (output, overlay, _proof_file(output))):  # all of them, or what was moved first would stay behind
        if file.is_dir():
            raise UserError(f"--output {output} is a folder; give a file name" if file == output else
                            f"{file}, which --output {output} is written with, is a folder; choose another name for --output")
    if output.exists() and checkpoint.exists() and output.samefile(checkpoint):
        raise UserError(f"--output {output} is the source itself; choose another name")
    free = output.with_stem(f"{output.stem}_{kind}")
    if overlay is not None and overlay.exists() and not is_overlay(overlay):
        raise UserError(f"{overlay} is no overlay that an export wrote and would be overwritten; choose another name for --output, "
                        f"e.g. {free}")
    old = _proof_file(output)
    if old.exists():
        about = read_json(old)
        other = about.get("file") if isinstance(about, dict) else None
        if not isinstance(other, str):
            raise UserError(f"{old} is no proof that an export wrote and would be overwritten; choose another name for --output, "
                            f"e.g. {free}")
        if other != output.name and (output.parent / Path(other).name).exists():
            raise UserError(f"{old} is the proof of {other} and would be overwritten; choose another name for --output, "
                            f"e.g. {free}")


def _proof_file(output: Path) -> Path:
    return output.with_suffix(".proof.json")


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"--checkpoint {path} does not exist or is not a file")
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"--checkpoint {path} could not be read ({error.strerror})") from error
