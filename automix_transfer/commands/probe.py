"""What are an encoder's features worth as they are? A linear classifier and nearest neighbours on them.

  automix-transfer probe --weights runs/r50/last.pt --data /data/CUB_200_2011 --output probe.json
  automix-transfer probe --weights r50.pth --encoder resnet50 --data datasets/imagenet --kinds knn
  automix-transfer probe --weights random --encoder resnet18 --data /data/CUB_200_2011   # the floor
  torchrun --nproc-per-node 8 --no-python automix-transfer probe ...   # features on several GPUs

Nothing of the encoder changes. linear: softmax regression on standardised features to its minimum (L-BFGS),
whose weight decay is chosen on every fifth training image of each class. knn: the 20 nearest training images
in cosine similarity, weighted by exp(s / 0.07). Both learn from the training split and are measured on the
test split (CUB, Aircraft, Cars, CIFAR) or the validation split, without augmentation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automix_transfer.command_line import command_parser
from automix_transfer.data.settings import check_workers
from automix_transfer.errors import UserError

if TYPE_CHECKING:
    from automix_transfer.data.settings import DataConfig
    from automix_transfer.models.encoders import EncoderInfo
    from automix_transfer.training.sharing import Team

KINDS = ("linear", "knn")


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("probe", __doc__)
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="checkpoint, export, torchvision or timm weights, or random",
    )
    add("--encoder", metavar="NAME", help="the network's name, where the file does not say it")
    add("--stem", default="imagenet", help="of --weights random: imagenet (default) or cifar")
    add("--which", help="encoder of a file that holds several: k, q, ema, teacher, ...")
    add("--data", type=Path, required=True, metavar="DIR", help="root of a data set, in its native layout")
    add("--dataset", metavar="NAME", help="layout of --data (default: the one that it has)")
    add("--train-split", help="what is learnt from (default: train; Aircraft: trainval)")
    add("--split", help="what is measured on (default: the layout's test or validation split)")
    for what in ("image", "label"):
        words = f"of --dataset hf: where the {what}s are (default: the usual name)"
        add(f"--{what}-column", default="", metavar="NAME", help=words)
    add("--kinds", default=",".join(KINDS), help="parts of %(default)s (default: all)")
    add("--image-size", type=int, metavar="PIXELS", help="default: the encoder's own")
    add(
        "--test-crop-ratio",
        type=float,
        metavar="R",
        help="image-size / R is the side of which the centre is cut (default: 1 up to 64 px; 0.875)",
    )
    add("--mean", type=float, nargs=3, metavar="M", help="of RGB in [0, 1] (default: the encoder's)")
    add("--std", type=float, nargs=3, metavar="S")
    add("--k", type=int, default=20, help="neighbours (default 20)")
    add("--temperature", type=float, default=0.07, help="of the neighbours' votes (default 0.07)")
    add(
        "--limit-per-class",
        type=int,
        default=0,
        metavar="N",
        help="only the first N training images of a class",
    )
    add("--seed", type=int, default=0, help="of --weights random")
    add("--batch-size", type=int, default=128)
    add("--workers", type=int, default=0, help="loader processes (default 0)")
    add("--device", default="auto", help="auto (default), cpu, cuda, mps, xpu")
    add("--output", type=Path, metavar="FILE.json")
    return parser


def check(args: argparse.Namespace) -> tuple[str, ...]:
    """The kinds that are asked for; raises a `UserError` that names the option unless all are in range."""
    kinds = tuple(dict.fromkeys(part.strip() for part in args.kinds.split(",") if part.strip()))
    if not kinds or not set(kinds) <= set(KINDS):
        raise UserError(f"--kinds {args.kinds} must be parts of {', '.join(KINDS)}")
    check_workers(args.workers)
    least = {"k": 1, "limit_per_class": 0, "batch_size": 1, "seed": 0, "image_size": 1}
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= 10_000_000:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least {low}, at most 10,000,000")
    if not 1e-3 <= args.temperature <= 1e3:
        raise UserError(f"--temperature {args.temperature} must lie in [0.001, 1000]")
    if args.output is not None and args.output.suffix != ".json":
        raise UserError(f"--output {args.output} must end in .json")
    if not args.data.is_dir():
        raise UserError(f"--data {args.data} is no folder; give the root of a data set")
    return kinds


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    kinds = check(args)

    from automix_transfer.owner import owned_file
    from automix_transfer.training import sharing
    from automix_transfer.training.joining import by_first

    what = is_probe, "output of a probe"
    with sharing.team(args.device) as team:
        with by_first(team.world, nullcontext() if args.output is None else owned_file(args.output, *what)):
            measure(args, kinds, team)
    return 0


def measure(args: argparse.Namespace, kinds: Sequence[str], team: Team) -> None:
    """Measure, write and print."""
    from automix_transfer.console import show
    from automix_transfer.data.registry import LAYOUTS
    from automix_transfer.evaluation.probing import probes
    from automix_transfer.io import write_json
    from automix_transfer.training.joining import together

    dataset = args.dataset or together(team.world, lambda: probes.layout_of(args.data))
    if dataset not in LAYOUTS:
        raise UserError(f"--dataset {dataset} is unknown; choose one of {', '.join(LAYOUTS)}")
    named = args.weights, args.encoder, args.which, args.seed, args.stem, args.image_size
    encoder, info, loaded = together(team.world, lambda: probes.open_encoder(*named))
    config = data_config(args, dataset, info)
    how = team.world.device, args.batch_size, args.k, args.temperature, team
    found = probes.probe(encoder, info, config, kinds, *how)
    if not team.main:
        return
    found["about"] = probes.about(args.weights, info, config, loaded, args.seed)
    if args.output is not None:
        write_json(args.output, found)
    lines = [f"{kind}: top-1 {found[kind]['top1']:.2f} %" for kind in kinds]
    counts = (
        f"{found['images']:,} images of {found['classes']} classes, learnt from {found['training_images']:,}"
    )
    show("\n".join([*lines, counts, *([f"written: {args.output}"] if args.output else [])]))


def data_config(args: argparse.Namespace, dataset: str, info: EncoderInfo) -> DataConfig:
    """Which images are read, and how, for the encoder that ``info`` describes."""
    from automix_transfer.data.settings import DataConfig
    from automix_transfer.evaluation.probing.probes import splits_of

    train, test = splits_of(dataset, args.train_split, args.split)
    size = args.image_size or info.image_size
    usual = 1.0 if size <= 64 else 0.875
    return DataConfig(
        dataset=dataset,
        root=str(args.data),
        train_split=train,
        val_split=test,
        image_column=args.image_column,
        label_column=args.label_column,
        image_size=size,
        test_crop_ratio=usual if args.test_crop_ratio is None else args.test_crop_ratio,
        mean=list(args.mean or info.mean),
        std=list(args.std or info.std),
        workers=args.workers,
        limit_per_class=args.limit_per_class,
    )


def is_probe(file: Path) -> bool:
    """Whether ``file`` is an output of this command."""
    from automix_transfer.io import read_json

    content: Any = read_json(file)
    return isinstance(content, dict) and "training_images" in content and "about" in content
