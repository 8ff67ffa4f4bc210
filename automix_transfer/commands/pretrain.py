"""Pretrain an encoder on labelled images by any method: vanilla, automix, or any mixup that the paper
compares it with.

The set-up of the paper's tables lies in recipes (--list shows them); the head of each names the cell, the
number to expect, the hardware and the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.command_line import command_parser
from automix_transfer.console import show
from automix_transfer.errors import UserError
from automix_transfer.recipes.find import RECIPES, find_recipe
from automix_transfer.recipes.recipe import list_recipes

EPILOG = """
overrides are key=value pairs over the config file, for example
  data.root=/data/imagenet  output=runs/r50  train.batch_size=128  method.name=automix  method.alpha=2.0
Text is taken as it is typed (data.root='/data/birds #2'), everything else is YAML; null is no value.
A config file may begin with "base: other.yaml"; what is set later wins. Unknown keys are refused.

on several GPUs:  torchrun --nproc-per-node 8 --no-python automix-transfer {name} --config-file ...
train.batch_size stays the number of images a step, over all of them; train.accumulate=2 fits it into half the
memory. On several hosts, by SLURM, or restarted when a process dies: the scripts in pretrain/cluster/ of the
source archive.
--trials 3 trains with the seeds seed, seed+1 and seed+2 into trial_0, trial_1 and trial_2 of output=..., and
writes trials.json there: mean and standard deviation of the trials' median top-1, as the paper reports it.

a run's folder (output=...) holds last.pt, previous.pt and best.pt, config.yaml and run.json (how it was run),
log.csv (an epoch a row), log.jsonl (everything), tensorboard/, pictures/ and metrics.json;
train.loggers=[tensorboard,wandb] logs to Weights & Biases, too.

exit codes: 0 finished, 2 bad input (one line says what), 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 138 SIGUSR1 (a
checkpoint was written; --resume goes on).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser("pretrain", __doc__)
    return run(parser.parse_intermixed_args(arguments), "pretrain")


def run(options: argparse.Namespace, folder: str, *defaults: Path) -> int:
    """List, train or evaluate, and return the exit code.

    Args:
        folder: the folder of `RECIPES` that ``--list`` shows, and where bare names are looked for first.
        defaults: files that are read before the user's config file.
    """
    if options.list:
        show(list_recipes(RECIPES / folder, options.overrides))
        return 0
    if options.trials is not None and options.eval_only:
        raise UserError(
            "--trials trains and --eval-only does not; to evaluate one trial leave --trials out and give "
            "output=FOLDER/trial_0"
        )
    from automix_transfer.training.settings import load_experiment

    files = list(defaults)
    if options.config_file:
        files.append(find_recipe(options.config_file, folder, "pretrain", "finegrained"))
    experiment = load_experiment(files, options.overrides)  # before torch, whose import takes seconds
    from automix_transfer.training.loop import evaluate_only, train
    from automix_transfer.training.record.run_folder import recipe_of
    from automix_transfer.training.trials import run_trials

    recipe = recipe_of(files[-1]) if options.config_file else None
    if options.eval_only:
        evaluate_only(experiment)
    elif options.trials is not None:
        run_trials(experiment, options.trials, options.resume, options.dry_run, recipe)
    else:
        train(experiment, options.resume, options.dry_run, recipe=recipe)
    return 0


def build_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of trainings."""
    parser = command_parser(name, description, EPILOG.replace("{name}", name))
    add = parser.add_argument
    recipes = "print the recipes with the paper's numbers; words after it choose among them"
    add("--list", action="store_true", help=f"{recipes}, e.g. --list cifar100 automix")
    add("--config-file", metavar="YAML", help="a recipe's name, or a file")
    resume = "go on from the newest checkpoint in output=..., or start if there is none"
    add("--resume", action="store_true", help=resume)
    evaluate = "only evaluate: the checkpoint in output=..., or encoder.weights=FILE"
    add("--eval-only", action="store_true", help=evaluate)
    rehearse = "check the data, then one batch through everything in a temporary folder"
    add("--dry-run", action="store_true", help=rehearse)
    trials = "train (or resume) N times, each with the next seed, and report mean ± std"
    add("--trials", type=int, metavar="N", help=trials)
    add("overrides", nargs="*", metavar="key=value", help="settings over those of the config file")
    return parser
