"""What an output holds already: parts that a new suite does not measure are kept beside its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.evaluation.confusion import FILE, SHOTS
from automix_transfer.evaluation.output import EVALUATION
from automix_transfer.io import read_json
from automix_transfer.owner import refuse_foreign

#: part of the suite -> the figures that it gives
FIGURES = {
    "clean": ("top1", "top5", "map", "class_ap"),
    "calibration": ("ece10", "ece15", "adaptive_ece15", "brier", "nll", "reliability"),
    "confusion": ("mean_class_top1",),
    "shots": (
        "shots_train_split",
        *(f"{name}_shot_{what}" for name in SHOTS for what in ("classes", "top1")),
    ),
    "fgsm": ("fgsm_error",),
    "pgd": ("pgd_error",),
    "corruption": (
        "corruption",
        "corruption_made",
        "corruption_images",
        "corruption_top1_15",
        "corruption_top1_19",
        "corruption_relative_error",
    ),
}
#: what two suites of one file must share: the network, its images, and how they are attacked and corrupted
SAME = (
    "weights_sha256",
    "which",
    "data",
    "dataset",
    "split",
    "columns",
    "limit",
    "image_size",
    "test_crop_ratio",
    "interpolation",
    "mean",
    "std",
    "epsilon",
    "pgd_steps",
    "pgd_step_size",
    "seed",
    "images_sha256",
)
NEWER = ("images_sha256",)  #: that outputs of 0.2 do not say
SOURCE = (
    "version",
    "commit",
    "changed",
    "torch",
    "device",
    "seconds",
    "baseline",
)  # of a part that was measured before


def kept_parts(output: Path, parts: Sequence[str], source: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of ``output`` that a suite of ``parts`` does not measure, ``kept`` saying what made which.

    Args:
        source: what the new figures are made from, see `output.about`.

    Raises:
        UserError: there are such figures, but of another network, other images or other settings.
    """
    try:
        content = _mapping(read_json(output))
    except UserError:  # not there, or damaged
        return {}
    held = {
        part: found
        for part, keys in FIGURES.items()
        if part not in parts and (found := [key for key in keys if key in content])
    }
    if not held:
        return {}
    about = _mapping(content.get("about"))
    same = [key for key in SAME if key in about or key not in NEWER]
    other = next((key for key in same if about.get(key) != source.get(key)), None)
    if other is not None:
        raise UserError(
            f"{output} holds {', '.join(held)} of another {other} ({about.get(other)}, now "
            f"{source.get(other)}) and would be overwritten; give another --output"
        )
    before = _mapping(about.get("kept"))
    made = {key: about[key] for key in SOURCE if key in about}
    return {
        **{key: content[key] for keys in held.values() for key in keys},
        "kept": {part: before.get(part, made) for part in held},
    }


def refuse_others_confusion(output: Path, source: Mapping[str, Any]) -> None:
    """``confusion.json`` beside ``output`` may be written over where that is a run's own, or where it is
    of the same network, or of what ``output`` holds now; else it is another output's in the same folder.

    Raises:
        UserError: it is, or it is no such file at all.
    """

    def network_of(file: Path) -> Any:
        return _mapping(_mapping(read_json(file)).get("about")).get("weights_sha256")

    def ours(file: Path) -> bool:
        found = network_of(file)
        before = network_of(output) if output.is_file() else None
        return found is not None and (
            output.name == EVALUATION or found in (source["weights_sha256"], before)
        )

    refuse_foreign(output.with_name(FILE), ours, f"file of {output.name}, whose folder it shares")


def _mapping(value: Any) -> Mapping[str, Any]:
    """``value`` where it is an object; a file may have been edited."""
    return value if isinstance(value, dict) else {}
