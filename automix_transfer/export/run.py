"""One export: read the source, write to a temporary folder, prove, and only then move it into place."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from automix_transfer.errors import UserError, first_line
from automix_transfer.export.hub import CARD, export_hf, is_hf_part
from automix_transfer.export.onnx_graph import export_onnx
from automix_transfer.export.proof import (
    PACKAGES,
    Loaded,
    Proof,
    check_keys,
    compare,
    proof_sizes,
    versions_of,
)
from automix_transfer.export.safetensors import export_safetensors
from automix_transfer.export.source import Source, open_source
from automix_transfer.export.timm import export_timm
from automix_transfer.export.torchvision import export_torchvision
from automix_transfer.host.writable import sync_folder
from automix_transfer.io import read_json, sha256_of, write_json
from automix_transfer.models.hub.hub_folder import CONFIG, WEIGHTS
from automix_transfer.models.weights_file import sha256_of_weights
from automix_transfer.owner import owned_file, refuse_foreign

DRAFT = ".draft"  #: ends the folder in which an export is written and proven


@dataclass(frozen=True)
class Exporter:
    """A kind of export.

    Attributes:
        write: writes the file and says how it is loaded back into the target's own network.
        suffix: of the file, e.g. ``.pth``; empty: any folder, for `file` in it.
        beside: names or suffixes of further files that are written beside it.
        wrote: what knows such a file that an export wrote.
        file: the name of the file in a folder; empty: the output is the file.
    """

    write: Callable[[Source, Path], Loaded]
    suffix: str
    beside: tuple[str, ...] = ()
    wrote: Callable[[Path], bool] = lambda path: False
    file: str = ""

    def files_beside(self, file: Path) -> list[Path]:
        """The further files of the one that is called ``file``."""
        return [
            file.with_suffix(name) if name.startswith(".") else file.with_name(name) for name in self.beside
        ]


#: kind -> exporter; Detectron2's is in `automix_transfer.detection.weights.exporter`, which adds itself to a
#: copy of this table
EXPORTERS = {
    "torchvision": Exporter(export_torchvision, ".pth"),
    "timm": Exporter(export_timm, ".pth"),
    "safetensors": Exporter(export_safetensors, ".safetensors"),
    "hf": Exporter(export_hf, "", (CONFIG, CARD), is_hf_part, WEIGHTS),
    "onnx": Exporter(export_onnx, ".onnx"),
}


def export(
    checkpoint: str | Path,
    kind: str,
    output: str | Path,
    encoder_name: str | None = None,
    which: str | None = None,
    num_classes: int | None = None,
    kinds: Mapping[str, Exporter] = EXPORTERS,
) -> Proof:
    """Export the encoder in ``checkpoint`` to ``output``, with its proof beside it (x.pth -> x.proof.json).

    A folder (hf) has it inside: model.proof.json.

    Args:
        checkpoint: a checkpoint or export of ours, or a plain state dict of torchvision or timm.
        kind: a key of ``kinds``.
        encoder_name: needed where the file does not say which encoder it holds.
        which: ``k`` or ``q`` of a checkpoint with both; ``None`` takes the one that inference uses.
        num_classes: checked against the file's classifier where given.
        kinds: the table of exporters; `automix_transfer.detection.weights.exporter.EXPORTERS` has
            Detectron2's too.

    Raises:
        UserError: anything wrong with the source, or an export that cannot be proven; then nothing is
            written.
    """
    checkpoint, output, exporter = Path(checkpoint), Path(output), kinds.get(kind)
    if exporter is None:
        raise UserError(f"export kind '{kind}' is unknown; choose one of {', '.join(kinds)}")
    _check_request(checkpoint, kind, exporter, output)
    output = output / exporter.file  # which is nothing, or the file in the folder
    source = open_source(checkpoint, _sha256(checkpoint), encoder_name, which, num_classes)
    made = not output.parent.exists()
    try:
        with _draft_folder(output) as folder:
            draft = folder / output.name
            proof = _prove(source, kind, exporter, draft, output)
            write_json(_proof_file(draft), proof.to_dict())
            try:
                # the file itself comes last
                for file in sorted(folder.iterdir(), key=lambda file: file.name == output.name):
                    os.replace(file, output.parent / file.name)
                sync_folder(output.parent)
            except OSError as error:
                raise UserError(
                    f"{output} could not be put in place ({error.strerror}); choose another --output"
                ) from error
    finally:
        if made:
            with suppress(OSError):  # it holds the export
                output.parent.rmdir()
    return proof


@contextmanager
def _draft_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` for its draft: of one export at a time, and without those of killed ones."""
    with ExitStack() as stack:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(owned_file(output, alone=True))
            for left in output.parent.glob(f".{glob.escape(output.name)}.*{DRAFT}"):
                shutil.rmtree(left, ignore_errors=True)
            # same disk: the rename is atomic
            folder = tempfile.TemporaryDirectory(DRAFT, f".{output.name}.", output.parent)
        except OSError as error:
            raise UserError(
                f"{output.parent} cannot be written ({error.strerror}); choose another folder for --output"
            ) from error
        yield Path(stack.enter_context(folder))


def _prove(source: Source, kind: str, exporter: Exporter, draft: Path, output: Path) -> Proof:
    """Write ``draft`` and prove it; whatever the target framework raises means that it is not proven."""
    try:
        loaded = exporter.write(source, draft)
        check_keys(loaded)
        sizes = loaded.sizes or proof_sizes(source.encoder, source.info.image_size)
        rows = compare(loaded.source_taps, loaded.target_taps, sizes, tolerance=loaded.tolerance)
    except UserError as error:
        raise UserError(str(error).replace(str(draft.parent), str(output.parent))) from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise UserError(
            f"{output}: {kind} could not load the export of encoder '{source.info.name}' "
            f"({first_line(error)}), so nothing was written"
        ) from error
    return Proof(
        kind,
        output.name,
        sha256_of(draft),
        source.path.name if exporter.file else str(source.path),  # a folder is for others
        source.sha256,
        source.info.to_dict(),
        source.which,
        source.step,
        loaded.target.replace("FILE", f"'{output.name}'"),
        loaded.matched,
        loaded.total,
        loaded.tolerance,
        max(row.difference for row in rows),
        rows,
        (*source.report.notes, *loaded.notes),
        versions_of((*PACKAGES, *loaded.packages)),
        {file.name: sha256_of(file) for file in sorted(draft.parent.iterdir()) if file != draft},
    )


def _check_request(checkpoint: Path, kind: str, exporter: Exporter, output: Path) -> None:
    if output.suffix != exporter.suffix and not exporter.file:
        raise UserError(
            f"--output {output} must end in {exporter.suffix} for {kind}, which goes by the suffix; for "
            f"example {output.with_suffix(exporter.suffix) if output.name else 'x' + exporter.suffix}"
        )
    if exporter.file and output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, and {kind} writes a folder; choose another name")
    file = output / exporter.file
    old, beside = _proof_file(file), exporter.files_beside(file)
    # all of them, or what was moved first would stay behind
    for path in (file, *beside, old):
        if path.is_dir():
            raise UserError(f"{path} is a folder, and --output {output} needs that name; choose another one")
    if file.exists() and any(
        path.exists() and path.samefile(file) for path in (checkpoint, checkpoint / file.name)
    ):
        raise UserError(f"--output {output} is the source itself; choose another name")
    overwritten = next(
        (
            f"{path} was written by no export, or changed since,"
            for path in beside
            if path.exists() and not exporter.wrote(path)
        ),
        None,
    )
    if overwritten is None and not old.exists():
        refuse_foreign(file, lambda _: False, "export, for it has no proof")
    elif overwritten is None:
        about = read_json(old)
        other = about.get("file") if isinstance(about, dict) else None
        if not isinstance(other, str):
            overwritten = f"{old} is no proof that an export wrote"
        elif other != file.name and (file.parent / Path(other).name).exists():
            overwritten = f"{old} is the proof of {other}"
    if overwritten is not None:
        free = output.with_stem(f"{output.stem}_{kind}")
        raise UserError(
            f"{overwritten} and would be overwritten; choose another name for --output, e.g. {free}"
        )


def _proof_file(output: Path) -> Path:
    return output.with_suffix(".proof.json")


def _sha256(path: Path) -> str:
    if not path.is_file() and not path.is_dir():
        raise UserError(f"--checkpoint {path} does not exist or is not a file")
    try:
        return sha256_of_weights(path)
    except OSError as error:
        raise UserError(f"--checkpoint {path} could not be read ({error.strerror})") from error
