"""Mix a training split offline by SuperMix, with a trained network as the judge; then train on it.

automix-transfer supermix --config-file cifar100_r18_supermix --teacher runs/cifar100_vanilla/last.pt \\
  --output datasets/cifar100_supermix data.root=/data/cifar100
automix-transfer pretrain --config-file cifar100_r18_supermix data.root=/data/cifar100 \\
  data.mixed=datasets/cifar100_supermix
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automix_transfer.command_line import command_parser
from automix_transfer.errors import UserError
from automix_transfer.owner import owned
from automix_transfer.recipes.find import find_recipe
from automix_transfer.signals import kept


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("supermix", __doc__)
    add = parser.add_argument
    add("--config-file", metavar="YAML", required=True, help="a recipe with method.name=supermix")
    teacher = "a trained network of these classes: checkpoint or export"
    add("--teacher", metavar="FILE", required=True, help=teacher)
    add("--teacher-name", default="", metavar="NAME", help="its encoder, where the file does not say it")
    output = "folder to write; the same command again goes on where it stopped"
    add("--output", metavar="DIR", required=True, help=output)
    count = "mixed images to write (default: as many as one pass over the data gives)"
    add("--count", type=int, default=0, help=count)
    add("overrides", nargs="*", metavar="key=value", help="settings over the recipe's, e.g. data.root=DIR")
    options = parser.parse_intermixed_args(arguments)
    if options.count < 0:
        raise UserError(f"--count is {options.count}; give 0 for one pass, or how many mixed images to write")
    from automix_transfer.training.settings import load_experiment

    experiment = load_experiment(
        [find_recipe(options.config_file, "pretrain", "finegrained")], options.overrides
    )
    from automix_transfer.export.supermix_writer import write_supermix

    experiment.data.mixed = ""  # what is written here is not mixed again
    folder = Path(options.output)
    interrupted = f"interrupted; the images in {folder} are kept: the same command goes on"
    with owned(folder, "give another --output"), kept(interrupted):
        write_supermix(experiment, options.teacher, folder, options.count, options.teacher_name)
    return 0
