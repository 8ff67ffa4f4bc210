"""What the suite can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import NAMES, check

PARTS = ("clean", "calibration", "confusion", "shots", "fgsm", "pgd", "corruption")


@dataclass(frozen=True)
class SuiteOptions:
    """What is measured.

    ``parts`` of `PARTS`, the radius ε of the attacks in [0, 1], PGD's steps and step size, the corruptions
    that are made here, and the seed of them and of PGD's start.
    """

    parts: tuple[str, ...] = ("clean", "calibration", "fgsm")
    epsilon: float = 8 / 255
    pgd_steps: int = 20
    pgd_step_size: float = 2 / 255
    corruptions: tuple[str, ...] = NAMES
    seed: int = 0


def of_several_labels(options: SuiteOptions) -> SuiteOptions:
    """The suite of images with several labels, which is their average precision: ``clean`` alone.

    Raises:
        UserError: parts of one label an image are asked for by name.
    """
    others = [part for part in options.parts if part != "clean"]
    if others and options.parts != SuiteOptions.parts:
        raise UserError(
            f"--suite {','.join(others)} is for images with one label each, and these have several; give "
            "--suite clean, which is their average precision"
        )
    return replace(options, parts=("clean",))


def check_options(options: SuiteOptions) -> None:
    """Raise a `UserError` that names the option unless all are in range."""
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown or not options.parts:
        what = f"'{unknown[0]}' is unknown" if unknown else "is empty"
        raise UserError(f"--suite {what}; choose from {', '.join(PARTS)}, separated by commas")
    for name, value in (("epsilon", options.epsilon), ("pgd-step-size", options.pgd_step_size)):
        if not 0 < value <= 1:
            raise UserError(f"--{name} {value} must be a radius in pixels of range [0, 1], e.g. 8/255")
    if "corruption" in options.parts and not options.corruptions:
        raise UserError(
            "--corruptions is empty, so --suite corruption would measure nothing; choose from "
            f"{', '.join(NAMES)}"
        )
    for name in options.corruptions:
        check(name, 1)
    if options.pgd_steps < 1:
        raise UserError(f"--pgd-steps {options.pgd_steps} must be at least 1")
