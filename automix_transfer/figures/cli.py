"""``automix-transfer report figure NAME --runs DIR ... -o FILE.png``: a figure from trained runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.owner import owned_file

if TYPE_CHECKING:
    from automix_transfer.figures.common import Asked

#: name -> what the figure shows
FIGURES = {
    "fig3": "what each network sees in the same mixed pairs: maps of its two top classes",
    "fig4": "mixed samples by λ, and top-1 and top-2 accuracy on them",
    "fig6": "trivial against learned masks, with each run's accuracy",
    "fig7": "the same pairs through one training: start, checkpoints in its folder\n"
    "             (train.keep_epochs=[1,2,5] keeps them), end",
    "fig8": "reliability diagrams (runs, or outputs of the evaluation)",
    "fig12": "AutoMix's samples and masks for many pairs, and by λ",
    "fig13": "as fig12, with --seed 1: other pairs",
    "robustness": "top-1 by corruption and severity, errors under attack (outputs of the evaluation)",
    "confusion": "the most confused classes of one run with example images, and accuracy by class",
}
DESCRIPTION = """Draw a figure of the paper from trained runs. All runs of a figure get the same
images and the same λ. Beside FILE.png, FILE.json holds every number that was
plotted, the images, and the checkpoints they came from.

figures:
"""
EXAMPLES = """
examples:
  automix-transfer report figure fig4 --runs runs/mixup runs/cutmix runs/automix -o fig4.png
  automix-transfer report figure fig8 --runs runs/vanilla runs/automix -o fig8.png
  automix-transfer report figure fig7 --runs runs/automix --data /data/imagenet -o fig7.png
  automix-transfer report figure robustness --runs resnet20.json resnet56.json -o robustness.png
  automix-transfer report figure confusion --runs runs/cub_automix -o runs/cub_automix/confusion.png
"""


def add_figures(commands: argparse._SubParsersAction) -> None:
    """Register ``figure`` among the report's commands."""
    rows = "\n".join(f"  {name:<11}{text}" for name, text in FIGURES.items())
    parser = commands.add_parser(
        "figure",
        help="draw a figure of the paper from trained runs",
        description=DESCRIPTION + rows,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(FIGURES), metavar="NAME", help="one of the figures above")
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of runs, or single checkpoints",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.png")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="root of the data set (default: where the first run had it)"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names of the runs (default: method or folder)",
    )
    parser.add_argument("--seed", type=int, help="chooses images, partners and places (default 0)")
    parser.add_argument(
        "--pairs", type=int, default=0, metavar="N", help="pairs of images shown (default: the figure's)"
    )
    parser.add_argument(
        "--samples", type=int, default=512, metavar="N", help="images to measure on (default 512)"
    )
    parser.add_argument("--lam", type=float, default=0.5, help="λ of figures at one λ (default 0.5)")
    parser.add_argument("--lams", type=float, nargs="+", default=[], metavar="LAM", help="λ of figures by λ")
    parser.add_argument(
        "--mixed-by",
        default="own",
        metavar="NAME",
        help="fig3, fig4: whose mixed samples all networks get: own "
        "(default), mixup, cutmix, or a run's label, e.g. automix",
    )
    parser.set_defaults(call=draw_figure)


def draw_figure(args: argparse.Namespace) -> None:
    """Draw what `add_figures` has parsed.

    Raises:
        UserError: an option out of range, or as the figure.
    """
    from automix_transfer.figures.common import Asked

    if args.output.suffix.lower() != ".png":
        raise UserError(f"--output {args.output} must end in .png")
    if args.pairs < 0 or args.pairs > 100 or args.samples < 2:
        raise UserError("--pairs must be 1 to 100 and --samples at least 2")
    for lam in (args.lam, *args.lams):
        if not 0 <= lam <= 1:
            raise UserError(f"λ = {lam:g} is not the share of an image; give numbers from 0 to 1")
    if args.seed is None:
        args.seed = int(args.name == "fig13")
    args.lams.sort()
    asked = Asked(**{option.name: getattr(args, option.name) for option in fields(Asked)})
    numbers = args.output.with_suffix(".json")
    what = f"figure, for {numbers.name} beside it has no numbers of one"
    with ExitStack() as stack:
        for file in (numbers, args.output):
            stack.enter_context(owned_file(file, lambda _: is_figure(numbers, args.name), what, alone=True))
        print(f"written: {drawer(args.name)(asked)}")


def is_figure(numbers: Path, name: str) -> bool:
    """Whether ``numbers`` are those of a figure; of the confused classes also the run's own."""
    content = read_json(numbers)
    own = name == "confusion" and numbers.name == "confusion.json"
    keys = {"per_class", "pairs"} if own else {"figure", "caption"}
    return isinstance(content, dict) and keys <= content.keys()


def drawer(name: str) -> Callable[[Asked], Path]:
    """The function that draws a figure; its module is imported now, as torch takes seconds."""
    from automix_transfer.figures import cams, confused_classes, masks, mixed_pairs, reliability, robustness

    return {
        "fig3": cams.fig3,
        "fig4": mixed_pairs.fig4,
        "fig6": masks.fig6,
        "fig7": masks.fig7,
        "fig8": reliability.fig8,
        "fig12": masks.fig12,
        "fig13": masks.fig12,
        "robustness": robustness.robustness,
        "confusion": confused_classes.confusion,
    }[name]
