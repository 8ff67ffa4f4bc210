"""The command line of ``automix-transfer evaluate``, checked before a file is opened."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.data.registry import DATASETS
from automix_transfer.data.settings import INTERPOLATIONS, check_workers
from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import NAMES
from automix_transfer.evaluation.suite_options import PARTS, SuiteOptions, check_options


def parse(description: str, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, SuiteOptions]:
    """The arguments, checked, and what of them is the suite's."""
    parser = argparse.ArgumentParser(
        prog="automix-transfer evaluate",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_network(parser)
    _add_data(parser)
    _add_suite(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--batch-size", type=int, default=128)
    run.add_argument("--workers", type=int, default=0, help="loader processes (default 0)")
    run.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps, xpu")
    words = "default with --run: DIR/evaluation.json"
    run.add_argument("--output", type=Path, metavar="FILE.json", help=words)
    args = parser.parse_args(arguments)
    parts, corruptions = (
        tuple(part.strip() for part in text.split(",") if part.strip())
        for text in (args.suite, args.corruptions)
    )
    options = SuiteOptions(parts, args.epsilon, args.pgd_steps, args.pgd_step_size, corruptions, args.seed)
    check_options(options)
    check(args, parts)
    return args, options


def _add_network(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is evaluated")
    words = "folder of a run: its newest checkpoint, on its own validation images"
    what.add_argument("--run", type=Path, metavar="DIR", help=words)
    words = "checkpoint, export, torchvision/timm state dict, or a Hugging Face folder of timm's"
    what.add_argument("--weights", type=Path, metavar="FILE", help=words)
    words = "the network's name, where the file does not say it (timm's, or cifar_resnet20)"
    what.add_argument("--encoder", metavar="NAME", help=words)
    what.add_argument("--which", help="encoder of a file that holds several: k, q, ema, teacher, ...")


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    words = "folder of class folders, or a data set's root (default: the run's)"
    data.add_argument("--data", type=Path, metavar="DIR", help=words)
    words = "native layout of --data (default: class folders, or the run's)"
    data.add_argument("--dataset", choices=list(DATASETS), help=words)
    words = "with --dataset: the split (default: its test or validation split, or the run's)"
    data.add_argument("--split", help=words)
    words = "with --suite shots: the split whose images of each class are counted (default: the run's)"
    data.add_argument("--train-split", metavar="NAME", help=words)
    words = "of class folders that are numbers, for weights that do not name their classes"
    data.add_argument("--class-order", choices=("number", "text"), help=words)
    for what in ("image", "label"):
        words = f"of --dataset hf: where the {what}s are (default: the usual name)"
        data.add_argument(f"--{what}-column", metavar="NAME", help=words)
    words = "only N images, spread evenly over the set (0: all); not with --corrupted"
    data.add_argument("--limit", type=int, default=0, metavar="N", help=words)
    how = parser.add_argument_group("input (defaults are the run's or the encoder's)")
    how.add_argument("--image-size", type=int, metavar="PIXELS")
    words = (
        "image-size / R is the side of which the centre is cut (default: the weights'; 1 up to 64 px; 0.875)"
    )
    how.add_argument("--test-crop-ratio", type=float, metavar="R", help=words)
    words = "of resizing (default: the weights', else bilinear)"
    how.add_argument("--interpolation", choices=INTERPOLATIONS, help=words)
    how.add_argument("--mean", type=float, nargs=3, metavar="M", help="of RGB in [0, 1]")
    how.add_argument("--std", type=float, nargs=3, metavar="S")


def _add_suite(parser: argparse.ArgumentParser) -> None:
    suite = parser.add_argument_group("suite")
    words = f"parts of {', '.join(PARTS)} (default: %(default)s)"
    suite.add_argument("--suite", default="clean,calibration,fgsm", help=words)
    words = "radius of the attacks in [0, 1], e.g. 8/255 (default)"
    suite.add_argument("--epsilon", type=fraction, default=8 / 255, help=words)
    suite.add_argument("--pgd-steps", type=int, default=20)
    suite.add_argument("--pgd-step-size", type=fraction, default=2 / 255, help="default: 2/255")
    words = "which are made here (default: all 19)"
    suite.add_argument("--corruptions", default=",".join(NAMES), metavar="NAMES", help=words)
    words = "released CIFAR-10-C, CIFAR-100-C or ImageNet-C instead of made ones"
    suite.add_argument("--corrupted", type=Path, metavar="DIR", help=words)
    words = "another network's output: adds the error relative to it (mCE)"
    suite.add_argument("--baseline", type=Path, metavar="FILE.json", help=words)
    suite.add_argument("--seed", type=int, default=0, help="of PGD's random start and of the corruptions")


def check(args: argparse.Namespace, parts: Sequence[str]) -> None:
    """Raise a `UserError` that names the option unless the arguments go together."""
    if (args.run is None) == (args.weights is None):
        raise UserError("--run and --weights say what is evaluated; give one of them")
    if args.run is None and args.data is None:
        raise UserError(
            "--data is missing; give a folder of class folders, or with --dataset the root of a data set"
        )
    if args.run is not None and args.encoder is not None:
        raise UserError(f"--run {args.run} says itself which encoder it holds; leave --encoder out")
    if args.corrupted is not None and ("corruption" not in parts or not args.corrupted.is_dir()):
        raise UserError(f"--corrupted {args.corrupted} must be a folder, and --suite must name corruption")
    if args.corrupted is not None and args.limit:
        raise UserError(
            f"--limit {args.limit} chooses clean images and cannot choose the same of --corrupted "
            f"{args.corrupted}; leave one of the two out"
        )
    for name, most in {"batch_size": 1_000_000, "image_size": 10_000}.items():
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} {value} must be from 1 to {most}")
    check_workers(args.workers)
    if args.limit < 0:
        raise UserError(f"--limit {args.limit} must be 0 or more")
    if args.output is not None and args.output.suffix != ".json":
        raise UserError(f"--output {args.output} must end in .json")
    if "shots" in parts and args.run is None and args.train_split is None:
        raise UserError(
            "--suite shots counts training images; give --train-split NAME, their split of --data"
        )
    if "confusion" in parts and args.output is None and args.run is None:
        raise UserError(
            "--suite confusion writes its pictures and tables beside the output; give --output FILE.json"
        )


def fraction(text: str) -> float:
    """``8/255`` or ``0.03``."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"'{text}' is no number; write e.g. 8/255") from None
