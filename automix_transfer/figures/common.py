"""What is asked of a figure on the command line, and what the figures of trained runs share: the runs and the
images shown to all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import shuffled_batches
from automix_transfer.evaluation.mixers import MIXERS, Mixer, own_mixer
from automix_transfer.evaluation.opened import Run, common_data, open_runs
from automix_transfer.evaluation.output import EVALUATION
from automix_transfer.figures.samples import Pairs, choose_pairs, pairs_of
from automix_transfer.figures.sheet import Picture, class_name, write_figure
from automix_transfer.figures.style import label_title
from automix_transfer.io import read_json
from automix_transfer.mixing import AutoMix
from automix_transfer.progress import Progress, to_stderr

T = TypeVar("T")
OWN = "own"


@dataclass(frozen=True)
class Asked:
    """The options of ``automix-transfer report figure``; 0 and an empty list mean the figure's own
    choice."""

    runs: list[Path]
    output: Path
    data: Path | None = None
    labels: list[str] = field(default_factory=list)
    seed: int = 0
    pairs: int = 0
    samples: int = 512
    lam: float = 0.5
    lams: list[float] = field(default_factory=list)
    mixed_by: str = OWN


@dataclass(frozen=True)
class Shown:
    """Runs and the same pairs of images for all of them.

    Attributes:
        chosen: (i, j) of each pair, places in ``dataset``.
    """

    asked: Asked
    runs: list[Run]
    dataset: ClassificationDataset
    pairs: Pairs
    chosen: list[tuple[int, int]]

    def names(self, pair: int) -> list[str]:
        """Classes of images i and j of a pair, for people."""
        return [class_name(self._class(index)) for index in self.chosen[pair]]

    def _class(self, index: int) -> str:
        return self.dataset.classes[int(self.dataset.labels[index])]

    def batches(self, most: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """Shuffled validation images to measure on: ``asked.samples`` of them, ``most`` at most."""
        count = min(self.asked.samples, most or self.asked.samples, len(self.dataset))
        return list(shuffled_batches(self.dataset, 64, self.asked.seed, count))

    def write(self, figure: str, caption: str, numbers: Any, parts: Sequence[Picture]) -> Path:
        """Write the figure, and its numbers with the runs and images that they are of."""
        sides = [
            {
                side: {"file": str(self.dataset.path(index)), "class": self._class(index)}
                for side, index in zip("ij", pair, strict=True)
            }
            for pair in self.chosen
        ]
        about = {"runs": [run.about() for run in self.runs], "shown": sides}
        return write_figure(self.asked.output, figure, caption, {**about, "numbers": numbers}, parts)


def open_shown(asked: Asked, pairs: int) -> Shown:
    """The runs that are asked for, and ``asked.pairs`` (else ``pairs``) pairs of two classes of their
    validation images."""
    runs = open_runs(asked.runs, asked.labels)
    dataset = common_data(runs, asked.data)
    chosen = choose_pairs(dataset, asked.pairs or pairs, asked.seed)
    return Shown(asked, runs, dataset, pairs_of(dataset, runs[0].info, chosen), chosen)


def read_output(file: Path, read: Callable[[Any], T], what: str, suite: str) -> T:
    """What ``read`` makes of an output of the evaluation.

    Raises:
        UserError: it holds no ``what``, which ``suite`` writes.
    """
    content = read_json(file)
    try:
        return read(content)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{file} holds no {what}; write it with automix-transfer evaluate --suite clean,{suite}"
        ) from error


def title_of(run: Run) -> str:
    """A run's label for people."""
    return label_title(run.label)


def labels_of(files: Sequence[Path], labels: Sequence[str] = ()) -> list[str]:
    """What tells outputs of the evaluation apart: ``labels``, else the folder's name in which each lies, else
    the file's.

    Raises:
        UserError: another number of labels, or one twice.
    """
    if labels and len(labels) != len(files):
        raise UserError(f"--labels gives {len(labels)} names for {len(files)} files; give one for each")
    folders = [file.resolve().parent.name if file.name == EVALUATION else file.stem for file in files]
    names = list(labels) or (folders if len(set(folders)) == len(files) else [str(file) for file in files])
    if len(set(names)) < len(names):
        raise UserError(
            f"'{Counter(names).most_common(1)[0][0]}' is given twice; give each file and each label once"
        )
    return names


def automix_runs(runs: Sequence[Run]) -> list[tuple[Run, AutoMix]]:
    """The runs that have a Mix Block; the others are named on stderr.

    Raises:
        UserError: none has.
    """
    found = [(run, run.method) for run in runs if isinstance(run.method, AutoMix)]
    others = [run.label for run in runs if not isinstance(run.method, AutoMix)]
    if not found:
        raise UserError(
            f"{', '.join(map(str, (run.file for run in runs)))}: no Mix Block to show masks of; "
            "give a run with method.name=automix"
        )
    if others:
        to_stderr(f"note: {', '.join(others)} have no Mix Block and are left out")
    return found


def mixers_of(runs: Sequence[Run], mixed_by: str) -> tuple[list[Run], dict[str, Mixer]]:
    """Which mixed samples each run is asked about: its own kind, or those of ``mixed_by``, a mixer's name or
    a run's label.

    Runs without samples of their own are named on stderr and left out.

    Raises:
        UserError: an unknown ``mixed_by``, or nothing is left.
    """
    if mixed_by != OWN:
        one = MIXERS.get(mixed_by) or next(
            (own_mixer(run.name, run.method) for run in runs if run.label == mixed_by), None
        )
        if one is None:
            known = [OWN, *MIXERS, *(run.label for run in runs if own_mixer(run.name, run.method))]
            raise UserError(
                f"--mixed-by {mixed_by} mixes nothing; choose one of {', '.join(dict.fromkeys(known))}"
            )
        return list(runs), {run.label: one for run in runs}
    found = {run.label: mixer for run in runs if (mixer := own_mixer(run.name, run.method)) is not None}
    others = [run.label for run in runs if run.label not in found]
    if not found:
        raise UserError(
            f"{', '.join(others)}: no run mixes pairs at a λ that could be chosen; add one of a mixup, "
            "or ask all about the samples of one with --mixed-by mixup"
        )
    if others:
        to_stderr(
            f"note: {', '.join(others)} have no mixed samples of their own at a given λ and are left out; "
            "--mixed-by mixup asks all about the same samples"
        )
    return [run for run in runs if run.label in found], found


def each_with(runs: Sequence[Run], batches: Sequence[Any], what: str) -> Iterator[tuple[Run, Iterator[Any]]]:
    """Each run with ``batches`` for it, which say now and then how much of all is done."""
    progress, total = Progress(what, "batches"), len(runs) * len(batches)

    def counted(before: int, label: str) -> Iterator[Any]:
        for number, batch in enumerate(batches, start=before + 1):
            yield batch
            progress(number, total, label)

    for number, run in enumerate(runs):
        yield run, counted(number * len(batches), run.label)
