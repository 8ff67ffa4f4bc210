"""What is wrong with the jobs of a comparison, found before one runs: each is asked of its own command.

A data set is read whole for the first job that fits it; of the others the network is asked.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace

import torch

from automix_transfer import console
from automix_transfer.commands import localize, localize_run, pretrain
from automix_transfer.commands import probe as probing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import MachineError, UserError
from automix_transfer.evaluation import arguments as evaluating
from automix_transfer.evaluation.probing import probes
from automix_transfer.evaluation.probing.features import read_by
from automix_transfer.jobs import Job
from automix_transfer.localization.maps.sources import EncoderMaps
from automix_transfer.models.encoders import EncoderInfo, check_size
from automix_transfer.recipes.find import PROTOCOL, find_recipe
from automix_transfer.training.distributed import World
from automix_transfer.training.settings import Experiment, load_experiment
from automix_transfer.training.setup.build_data import build_data
from automix_transfer.training.setup.build_model import build_model
from automix_transfer.training.setup.build_run import build_run

#: words of commands in which jobs differ that are equally right
APART = ("output=", "seed=", "--output", "--seed", "SEED", "OUTPUT_DIR", "--checkpoint", "--run")


def unfit(groups: Sequence[Sequence[Job]], infos: Mapping[str, EncoderInfo]) -> dict[str, str]:
    """Job -> why it cannot be done; what needs it cannot, too.

    Args:
        groups: the trials and the comparison, each in an order in which it can run.
        infos: the network of each backbone, by its word in the jobs' names.

    Raises:
        UserError: no job of a command in a group can be done, so it is the setting that is wrong.
    """
    checks = _Checks([job for jobs in groups for job in jobs], infos)
    reasons: dict[str, str] = {}
    for jobs in groups:
        _ask(checks, jobs, reasons)
    return reasons


def _ask(checks: _Checks, jobs: Sequence[Job], reasons: dict[str, str]) -> None:
    """Fill ``reasons`` with those of a group."""
    left = [job for job in jobs if not job.done]
    for job in left:
        lost = next((name for name in job.needs if name in reasons), "")
        reason = reasons[lost] if lost else checks.reason(job)
        if reason:
            reasons[job.name] = reason
    for job in left:  # an export that is needed by no other
        needing = [other.name for other in left if job.name in other.needs]
        if needing and all(name in reasons for name in needing):
            reasons[job.name] = reasons[needing[0]]
    for program in dict.fromkeys(job.command[4] for job in left):
        mine = [job.name for job in jobs if job.command[4] == program]  # what is done was right
        if all(name in reasons for name in mine):
            raise UserError(reasons[mine[0]])


class _Checks:
    """Reasons by what of a command makes it right or wrong, and the data sets that are known to be right."""

    def __init__(self, jobs: Sequence[Job], infos: Mapping[str, EncoderInfo]) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.infos = infos
        self.known: dict[tuple[str, ...], str] = {}
        self.read: set[tuple[str, ...]] = set()
        self.checks: dict[str, Callable[[Job], object]] = {
            "finetune": self.finetune,
            "probe": self.probe,
            "localize": self.localize,
            "evaluate": lambda job: _parsed(lambda words: evaluating.parse("", words)[0], job),
            "detect": self.detect,
            "export": lambda job: None,  # with the detector that needs it
        }

    def reason(self, job: Job) -> str:
        """Why ``job`` cannot be done; '' where it can."""
        words = job.command
        names = [self.jobs[name].command for name in job.needs]
        key = tuple(
            word
            for command in (words, *names)
            for before, word in zip(("", *command), command, strict=False)
            if before not in APART and not word.startswith(APART)
        )
        if key not in self.known:
            try:
                with _quiet():
                    self.checks[words[4]](job)
                self.known[key] = ""
            except MachineError:
                raise
            except UserError as error:
                self.known[key] = str(error)
        return self.known[key]

    def first(self, *data: str) -> bool:
        """Whether a data set has still to be read."""
        return data not in self.read

    def finetune(self, job: Job) -> None:
        experiment, world = _experiment(job), World(0, 1, torch.device("cpu"))
        data = "finetune", repr(replace(experiment.data, mean=[], std=[]))
        if self.first(*data):
            build_run(experiment, world)
            self.read.add(data)
        else:
            build_model(experiment, list(build_data(experiment)[0].classes))

    def probe(self, job: Job) -> None:
        args = _parsed(probing.build_parser().parse_args, job)
        probing.check(args)
        info = self.infos[job.name.split()[2]]
        config = probing.data_config(args, args.dataset, info)
        encoder = info.build()
        read_by(encoder)
        if self.first("probe", *map(str, _lists(config))):
            probes.datasets(encoder, info, config)
            self.read.add(("probe", *map(str, _lists(config))))
        else:
            check_size(encoder, info.name, config.image_size, "--image-size")

    def localize(self, job: Job) -> None:
        args = _parsed(localize.parse, job)
        data = "localize", str(args.root), args.dataset, args.split
        if self.first(*data):
            localize_run.targets(args)
            self.read.add(data)
        experiment = _experiment(self.jobs[job.needs[0]])
        config = experiment.encoder
        info = EncoderInfo(config.name, 2, config.stem, experiment.data.image_size)
        EncoderMaps(info.build(), info, **localize_run.options_of(args))

    def detect(self, job: Job) -> None:
        from automix_transfer.commands import detect as detecting
        from automix_transfer.detection import compatibility

        compatibility.require()
        from automix_transfer.detection.comparing.fits import check_detector

        args = _parsed(detecting.parser().parse_args, job)
        args.config_file = str(find_recipe(args.config_file, "detection"))
        source = args.opts[args.opts.index("MODEL.WEIGHTS") + 1]
        if job.needs:
            words = self.jobs[job.needs[0]].command
            source = words[words.index("--checkpoint") + 1]
        data = "detect", str(args.data_root)
        whole = not job.minutes and self.first(*data)  # or a step of it was measured
        check_detector(args, source, self.infos[job.name.split()[2]], whole)
        self.read.add(data)


def _experiment(job: Job) -> Experiment:
    options = _parsed(pretrain.build_parser("finetune", None).parse_intermixed_args, job)
    recipe = options.config_file
    files = [PROTOCOL, *([find_recipe(recipe, "finegrained", "pretrain")] if recipe else [])]
    experiment = load_experiment(files, options.overrides)
    return replace(experiment, train=replace(experiment.train, device="cpu"))


def _lists(config: DataConfig) -> tuple[str, str, str]:
    return config.root, config.train_split, config.val_split


def _parsed(parse: Callable[[Sequence[str]], argparse.Namespace], job: Job) -> argparse.Namespace:
    """The arguments of a job; what argparse has to say is a `UserError`."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse(list(job.command[5:]))
    except SystemExit as error:
        sentence = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"automix-transfer {job.command[4]}: {sentence}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the jobs will say themselves."""
    before = console.LOGGER.disabled
    console.LOGGER.disabled = True
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        console.LOGGER.disabled = before
