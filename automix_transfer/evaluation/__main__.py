"""Evaluate any classifier on any folder of labelled images: accuracy, calibration, adversarial and corruption error.

  a torchvision or timm network's weights, or those of a CIFAR ResNet:
    python -m automix_transfer.evaluation --encoder cifar_resnet20 --weights resnet20.th --data cifar10/test --output out.json
  a checkpoint or export of ours says itself what it is:
    python -m automix_transfer.evaluation --weights runs/r18/last.pt --data /data/imagenet/val --suite clean,calibration,fgsm,pgd

  under corruption, on the released images or, without --corrupted, on corruptions made here (the output says which):
    python -m automix_transfer.evaluation --encoder cifar_resnet20 --weights resnet20.th --data cifar10/test --suite clean,corruption \\
      --corrupted CIFAR-10-C --output out.json

--data is a folder of class folders, or a folder that holds one as test/ or val/; class folders in alphabetical order are classes
0, 1, ... of the network. With --dataset it is the root of a data set in its native layout.
Prints a table and writes it, with all that it was made from, to --output.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch

from automix_transfer.data.dataset import ClassificationDataset, eval_dataset
from automix_transfer.data.loader import eval_loader
from automix_transfer.data.registry import DATASETS, SPLITS
from automix_transfer.data.settings import INTERPOLATIONS, DataConfig
from automix_transfer.errors import UserError, run_script
from automix_transfer.evaluation.attacks import OfPixels
from automix_transfer.evaluation.corrupted import relative_error, released_accuracies, summarize
from automix_transfer.evaluation.corruptions import NAMES
from automix_transfer.evaluation.suite import PARTS, Progress, SuiteOptions, check_options, evaluate_suite
from automix_transfer.io import read_json, write_json
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.weights import load_encoder

SHOWN = {"top1": "top-1", "top5": "top-5", "ece10": "ECE, 10 bins", "ece15": "ECE, 15 bins", "adaptive_ece15": "adaptive ECE, 15 bins",
         "corruption_top1_15": "top-1, 15 corruptions", "corruption_top1_19": "top-1, 19 corruptions",
         "corruption_relative_error": "mCE to the baseline",
         "brier": "Brier score (0 to 2)", "nll": "NLL (nats)", "fgsm_error": "FGSM error", "pgd_error": "PGD error"}
NOT_PERCENT = ("brier", "nll")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m automix_transfer.evaluation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is evaluated")
    what.add_argument("--weights", type=Path, required=True, metavar="FILE", help="checkpoint, export, or torchvision/timm state dict")
    what.add_argument("--encoder", metavar="NAME", help="the network's name, where the file does not say it (timm's, or cifar_resnet20)")
    what.add_argument("--which", help="encoder of a checkpoint that holds several: k (default) or q")
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of class folders, or a data set's root")
    data.add_argument("--dataset", choices=list(DATASETS), help="native layout of --data (default: class folders)")
    data.add_argument("--split", help="with --dataset: the split (default: its test or validation split)")
    data.add_argument("--limit", type=int, default=0, metavar="N", help="only N images, spread evenly over the set (0: all)")
    how = parser.add_argument_group("input (defaults are the encoder's)")
    how.add_argument("--image-size", type=int, metavar="PIXELS")
    how.add_argument("--test-crop-ratio", type=float, metavar="R",
                     help="the shorter side becomes image-size / R, of which the centre is cut (default: timm's; 1 up to 64 pixels; 0.875)")
    how.add_argument("--interpolation", choices=INTERPOLATIONS, help="of resizing (default: timm's, else bilinear)")
    how.add_argument("--mean", type=float, nargs=3, metavar="M", help="of RGB in [0, 1]")
    how.add_argument("--std", type=float, nargs=3, metavar="S")
    suite = parser.add_argument_group("suite")
    suite.add_argument("--suite", default="clean,calibration,fgsm", help=f"parts of {', '.join(PARTS)} (default: %(default)s)")
    suite.add_argument("--epsilon", type=fraction, default=8 / 255, help="radius of the attacks in [0, 1], e.g. 8/255 (default)")
    suite.add_argument("--pgd-steps", type=int, default=20)
    suite.add_argument("--pgd-step-size", type=fraction, default=2 / 255, help="default: 2/255")
    suite.add_argument("--corruptions", default=",".join(NAMES), metavar="NAMES", help="which are made here (default: all 19)")
    suite.add_argument("--corrupted", type=Path, metavar="DIR", help="released CIFAR-10-C, CIFAR-100-C or ImageNet-C instead of made ones")
    suite.add_argument("--baseline", type=Path, metavar="FILE.json", help="another network's output: adds the error relative to it (mCE)")
    suite.add_argument("--seed", type=int, default=0, help="of PGD's random start and of the corruptions")
    run = parser.add_argument_group("run")
    run.add_argument("--batch-size", type=int, default=128)
    run.add_argument("--workers", type=int, default=0, help="loader processes (default 0)")
    run.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    run.add_argument("--output", type=Path, metavar="FILE.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    parts, corruptions = (tuple(part.strip() for part in text.split(",") if part.strip()) for text in (args.suite, args.corruptions))
    options = SuiteOptions(parts, args.epsilon, args.pgd_steps, args.pgd_step_size, corruptions, args.seed)
    check_options(options)
    baseline = read_baseline(args) if args.baseline is not None else None
    if args.corrupted is not None and ("corruption" not in parts or not args.corrupted.is_dir()):
        raise UserError(f"--corrupted {args.corrupted} must be a folder, and --suite must name corruption")
    for name in ("batch_size", "image_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1")
    if args.limit < 0 or args.workers < 0:
        raise UserError("--limit and --workers must be 0 or more")
    if args.output is not None and args.output.suffix != ".json":
        raise UserError(f"--output {args.output} must end in .json")
    encoder, info = load_encoder(args.weights, args.encoder, args.which)
    config = data_config(args, info)
    dataset = open_data(config, args.limit)
    check_classes(info, dataset, args)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)
    begin = time.monotonic()
    loader = eval_loader(dataset, args.batch_size, workers=args.workers)
    progress = Progress(len(dataset), lambda line: print(line, file=sys.stderr, flush=True))
    made = [part for part in parts if part != "corruption" or args.corrupted is None]
    figures: dict[str, Any] = {"images": len(dataset)}
    if made:
        figures = evaluate_suite(encoder.to(device), loader, config.mean, config.std, replace(options, parts=tuple(made)), progress)
    if args.corrupted is not None:
        network = OfPixels(encoder, config.mean, config.std).to(device).eval()
        accuracies = released_accuracies(network, args.corrupted, config, dataset.classes, args.batch_size, progress.write)
        figures |= summarize(accuracies, str(args.corrupted))
    if baseline is not None:
        figures["corruption_relative_error"] = relative_error(figures["corruption"], baseline)
    result = {**figures, "about": about(args, info, config, options, device, time.monotonic() - begin)}
    print(table(result))
    if args.output is not None:
        write_json(args.output, result)
        print(f"written: {args.output}")
    return 0


def data_config(args: argparse.Namespace, info: EncoderInfo) -> DataConfig:
    """The data as the encoder wants them; what the command line says wins."""
    timms = timm.get_pretrained_cfg(info.name) if args.encoder and timm.is_model(info.name) else None
    size = args.image_size or info.image_size
    ratio = args.test_crop_ratio or (timms.crop_pct if timms else 1.0 if size <= 64 else 0.875)
    interpolation = args.interpolation or (timms.interpolation if timms and timms.interpolation in INTERPOLATIONS else "bilinear")
    root, split = args.data, args.split
    if args.dataset is None:
        root, split = class_folders(args.data, split)
    else:
        split = split or SPLITS[args.dataset][-1]
    return DataConfig(dataset=args.dataset or "imagefolder", root=str(root), train_split=split, val_split=split, image_size=size,
                      test_crop_ratio=ratio, interpolation=interpolation, mean=list(args.mean or info.mean), std=list(args.std or info.std),
                      workers=args.workers)


def class_folders(folder: Path, split: str | None) -> tuple[Path, str]:
    """(parent, name) of the folder that holds the class folders: ``folder`` itself, or its ``split``, test/ or val/."""
    if not folder.is_dir():
        raise UserError(f"--data {folder} is no folder; give a folder of class folders")
    for name in (split,) if split else ("test", "val"):
        if (folder / name).is_dir():
            return folder, name
    if split:
        raise UserError(f"--data {folder} has no folder '{split}'; leave --split out or correct it")
    return folder.absolute().parent, folder.absolute().name


def open_data(config: DataConfig, limit: int) -> ClassificationDataset:
    """The images, or ``limit`` of them at even distances, so that every class keeps its share."""
    dataset = eval_dataset(config)
    if limit and limit < len(dataset):
        chosen = [index * len(dataset) // limit for index in range(limit)]
        return ClassificationDataset(dataset.listing.select(chosen), dataset.transform)
    return dataset


def check_classes(info: EncoderInfo, dataset: ClassificationDataset, args: argparse.Namespace) -> None:
    """The network's classes must be those of the folders, in the same order."""
    names = dataset.classes
    if info.num_classes != len(names):
        raise UserError(f"{args.weights} has {info.num_classes} classes, but {args.data} has {len(names)} class folders "
                        f"({', '.join(names[:3])}, ...); give the images of the network's own classes")
    if info.class_names and list(info.class_names) != list(names):
        at = next(i for i, (ours, theirs) in enumerate(zip(info.class_names, names, strict=True)) if ours != theirs)
        raise UserError(f"class {at} of {args.weights} is '{info.class_names[at]}', but the folder of {args.data} is '{names[at]}'; "
                        "name the class folders as in training")


def read_baseline(args: argparse.Namespace) -> dict[str, Any]:
    """The accuracies under corruption of --baseline."""
    content = read_json(args.baseline)
    found = content.get("corruption") if isinstance(content, dict) else None
    if not isinstance(found, dict) or "corruption" not in args.suite:
        raise UserError(f"--baseline {args.baseline} must be an output of --suite corruption, and this --suite must name it too")
    return found


def about(args: argparse.Namespace, info: EncoderInfo, config: DataConfig, options: SuiteOptions, device: torch.device,
          seconds: float) -> dict[str, Any]:
    """What the figures were made from."""
    return {"encoder": info.name, "weights": str(args.weights), "weights_sha256": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
            "which": args.which, "data": str(args.data), "dataset": config.dataset, "split": config.val_split, "limit": args.limit,
            "image_size": config.image_size, "test_crop_ratio": config.test_crop_ratio, "interpolation": config.interpolation,
            "mean": list(config.mean), "std": list(config.std), "suite": list(options.parts), "epsilon": options.epsilon,
            "pgd_steps": options.pgd_steps, "pgd_step_size": options.pgd_step_size, "seed": options.seed, "device": str(device),
            "baseline": args.baseline and str(args.baseline), "torch": torch.__version__, "seconds": round(seconds, 1)}


def table(result: dict[str, Any]) -> str:
    """The figures, a line each."""
    about = result["about"]
    lines = [f"{about['encoder']} on {result['images']:,} images of {about['data']}, {about['image_size']} px"]
    for key, name in SHOWN.items():
        if key in result:
            lines.append(f"  {name:<24}{result[key]:>9.4f}" if key in NOT_PERCENT else f"  {name:<24}{result[key]:>8.2f} %")
    if "corruption" in result:
        lines.append(f"  top-1 under corruption ({result['corruption_made']}), severities 1 to 5 and their mean:")
        lines += [f"    {name:<20}" + "".join(f"{value:>8.2f}" for value in (*values, sum(values) / len(values)))
                  for name, values in result["corruption"].items()]
    return "\n".join(lines)


def fraction(text: str) -> float:
    """``8/255`` or ``0.03``."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"'{text}' is no number; write e.g. 8/255") from None


if __name__ == "__main__":
    run_script(main)
