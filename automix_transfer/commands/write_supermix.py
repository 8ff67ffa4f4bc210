"""Mix a training split offline by SuperMix, with a trained network as the judge; then train on it.

automix-transfer supermix --config-file cifar100_r18_supermix --teacher runs/cifar100_vanilla/last.pt \\
  --output datasets/cifar100_supermix data.root=/data/cifar100
automix-transfer pretrain --config-file cifar100_r18_supermix data.root=/data/cifar100 \\
  data.mixed=datasets/cifar100_supermix
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.errors import UserError
from automix_transfer.recipes.find import find_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="automix-transfer supermix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", metavar="YAML", required=True, help="a recipe with method.name=supermix"
    )
    parser.add_argument(
        "--teacher",
        metavar="FILE",
        required=True,
        help="a trained network of these classes: checkpoint or export",
    )
    parser.add_argument(
        "--teacher-name", default="", metavar="NAME", help="its encoder, where the file does not say it"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="folder to write; the same command again goes on where it stopped",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=0,
        help="mixed images to write (default: as many as one pass over the data gives)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings over those of the recipe, e.g. data.root=DIR",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.count < 0:
        raise UserError(f"--count is {options.count}; give 0 for one pass, or how many mixed images to write")
    from automix_transfer.training.settings import load_experiment
    from automix_transfer.transfer.supermix_writer import write_supermix

    experiment = load_experiment(
        [find_recipe(options.config_file, "pretrain", "finegrained")], options.overrides
    )
    experiment.data.mixed = ""  # what is written here is not mixed again
    write_supermix(experiment, options.teacher, Path(options.output), options.count, options.teacher_name)
    return 0
