"""The command line that pretrain/train.py and finegrained/train.py share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.training.loop import evaluate_only, train
from automix_transfer.training.settings import load_experiment
from automix_transfer.training.signals import Interrupted

EPILOG = """
overrides are key=value pairs over the config file, for example
  data.root=/data/imagenet  output=runs/r50  train.batch_size=128  method.name=automix  method.alpha=2.0
A config file may begin with "base: other.yaml"; what is set later wins. Unknown keys are refused.

on several GPUs:  torchrun --nproc-per-node 8 {prog} --config-file ...
train.batch_size stays the number of images a step, over all of them; train.accumulate=2 fits it into half the memory.

a run's folder (output=...) holds last.pt, previous.pt and best.pt, config.yaml and run.json (how it was run), log.csv (an epoch
a row), log.jsonl (everything), tensorboard/, pictures/ and metrics.json.

exit codes: 0 finished, 2 bad input (one line says what), 130 Ctrl-C and 143 SIGTERM (a checkpoint was written; --resume goes on).
"""


def main(description: str, configs: Path, defaults: Sequence[Path] = ()) -> int:
    """Parse ``sys.argv``, train or evaluate, and return the exit code.

    Args:
        configs: the folder of recipes that ``--list`` shows.
        defaults: files that are read before the user's config file.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.epilog = EPILOG.replace("{prog}", parser.prog)
    parser.add_argument("--list", action="store_true", help="print the recipes in configs/ beside this script, with the paper's numbers")
    parser.add_argument("--config-file", metavar="YAML", help="the recipe")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output=..., or start if there is none")
    parser.add_argument("--eval-only", action="store_true", help="only evaluate: the checkpoint in output=..., or encoder.weights=FILE")
    parser.add_argument("--dry-run", action="store_true", help="check the data, then one batch through everything in a temporary folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the config file")
    arguments = parser.parse_intermixed_args()
    if arguments.list:
        print(recipes(configs))
        return 0
    files = [*defaults, *([Path(arguments.config_file)] if arguments.config_file else [])]
    experiment = load_experiment(files, arguments.overrides)
    try:
        if arguments.eval_only:
            evaluate_only(experiment)
        else:
            train(experiment, resume=arguments.resume, dry_run=arguments.dry_run)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.code
    except KeyboardInterrupt:
        print("interrupted; what was saved before is untouched", file=sys.stderr)
        return 130
    return 0


def recipes(configs: Path) -> str:
    """A line a recipe: its file, and what the first line of its head says of it."""
    files = sorted(configs.glob("*.yaml"))
    width = max((len(file.name) for file in files), default=0)
    heads = [file.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip() for file in files]
    rows = (f"  {file.name:<{width}}  {head}" for file, head in zip(files, heads, strict=True))
    return "\n".join([f"{len(files)} recipes in {configs}:", *rows])
