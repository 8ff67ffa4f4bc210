"""Every figure of some folders that a table of the paper can show, with the run that it is of.

Top-1 comes from training runs; corruption and FGSM (Table 6) from what `automix_transfer.evaluation` wrote,
localization (Table 8) from `wsol/evaluate.py`, detection (Table 7) from `detection/train_net.py`. These name
a weights file, which leads back to its training run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from automix_transfer.data.registry import SPLITS
from automix_transfer.mixing import build_method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.paper import published as paper
from automix_transfer.paper.catalogue import catalogue
from automix_transfer.paper.references import Reference
from automix_transfer.paper.trained import Match, Trained, equal, match, read_trained, short
from automix_transfer.runs.collect import Found, collect
from automix_transfer.runs.folder import is_number

# test set, iterations, its images
SCHEDULES = {"VOC": ("voc_2007_test", 24_000, 4_952), "COCO": ("coco_2017_val", 180_000, 5_000)}
CUB_TEST = 5_794  # images
TABLE_7 = "Faster R-CNN, build_resnet_backbone"  # begins the name of its detector


@dataclass(frozen=True)
class Measurement:
    """One figure of one run: ``attributes`` are the cell's, ``trial`` is equal for runs that differ in the
    seed only."""

    attributes: Mapping[str, Any]
    value: float
    run: Path
    file: Path
    seed: int | None
    commit: str
    trial: str
    marks: tuple[str, ...] = ()


@dataclass
class Measured:
    """What folders hold.

    Attributes:
        problems: a sentence for each run or file that gives no figure.
        elsewhere: runs of recipes that no table of the paper is about, or of another network than theirs.
        without_recipe: runs that name no recipe, so that it is not known which cell they are of.
    """

    figures: list[Measurement] = field(default_factory=list)
    runs: int = 0
    problems: list[str] = field(default_factory=list)
    elsewhere: list[Path] = field(default_factory=list)
    without_recipe: list[Path] = field(default_factory=list)


def measure(folders: Sequence[Path], say: Callable[[str], None] = lambda line: None) -> Measured:
    """Read all of ``folders``; ``say`` is given progress.

    Raises:
        UserError: a folder does not exist.
    """
    found = collect(folders)
    offered = catalogue()
    result = Measured(runs=len(found.runs), problems=[*offered.problems, *found.problems])
    runs: dict[Path, tuple[Trained, Match]] = {}
    for number, folder in enumerate(found.runs, start=1):
        run = read_trained(folder)
        matched = match(run, offered.of_recipe(run.recipe))
        result.problems += run.faults
        if matched is not None:
            runs[folder.resolve()] = run, matched
            result.figures += _of_training(run, matched)
        elif not run.faults:
            (result.elsewhere if run.recipe else result.without_recipe).append(folder)
        if number % 1000 == 0:
            say(f"{number:,} of {len(found.runs):,} runs read")
    links = Links(runs, found)
    for kind, key, reader in (
        ("evaluation", "about", _of_evaluation),
        ("localization", "checkpoint", _of_localization),
        ("detection", "weights", _of_detection),
    ):
        for item in found.of(kind):
            named = item.content.get(key)
            weights = named.get("weights") if isinstance(named, Mapping) else named
            linked = links.run_of(str(weights or ""), item.path)
            for figure in reader(item.path, item.content, *linked) if linked else ():
                if 0 <= figure.value <= 100:
                    result.figures.append(figure)
                else:
                    metric = figure.attributes["metric"]
                    result.problems.append(f"{item.path}: its {metric} is not between 0 and 100")
    return result


class Links:
    """From a weights file that a result names to the training run that wrote it."""

    def __init__(self, runs: Mapping[Path, tuple[Trained, Match]], found: Found) -> None:
        self.runs = runs
        self.sources = {
            str(item.content.get("file") or item.path.name.removesuffix(".proof.json")): item.content.get(
                "source"
            )
            for item in found.of("proof")
        }

    def run_of(self, weights: str, beside: Path) -> tuple[Trained, Match] | None:
        """The run of a checkpoint, or of the checkpoint that an export was made from; None if it is not among
        the folders given."""
        source = self.sources.get(weights) or self.sources.get(Path(weights).name)
        for name in (weights, source):
            if isinstance(name, str) and name:
                for folder in self._places(Path(name).parent, beside):
                    if folder in self.runs:
                        return self.runs[folder]
        return None

    def _places(self, folder: Path, beside: Path) -> Iterator[Path]:
        """Where a folder may lie now: as it is named, or under the same last names, if one run alone has
        them."""
        yield folder.resolve()
        yield beside.parent.resolve()
        for depth in range(min(len(folder.parts), 4), 0, -1):
            same = [known for known in self.runs if known.parts[-depth:] == folder.parts[-depth:]]
            if len(same) == 1:
                yield same[0]


def _figure(
    run: Trained, matched: Match, metric: str, value: float, file: Path, marks: Sequence[str]
) -> Measurement:
    attributes = {**matched.reference.attributes, "metric": metric}
    return Measurement(
        attributes, float(value), run.path, file, run.seed, run.commit, run.experiment_id, tuple(marks)
    )


def _of_training(run: Trained, matched: Match) -> Iterator[Measurement]:
    if run.top1 is None:
        return
    figures = {"top1": run.top1}
    if run.hours:
        figures["hours"] = run.hours
    if paper.same({**matched.reference.attributes, "metric": "params"}):  # Table 11 alone
        figures["params"] = millions_of(matched.reference)
    for metric, value in figures.items():
        where = [f"on {run.device}"] if metric == "hours" and run.device else []
        yield _figure(run, matched, metric, value, run.path / "metrics.json", [*matched.marks, *where])


def millions_of(reference: Reference) -> float:
    """Trained parameters of a reference's network and Mix Block, in millions; the momentum encoder is not
    trained."""
    return _millions(reference.key)


@lru_cache(maxsize=64)
def _millions(key: tuple[tuple[str, Any], ...]) -> float:
    reference = catalogue().references[key]
    with torch.device("meta"):  # shapes only, no memory and no random numbers
        method = method_of(reference.config, reference.data.classes if reference.data else 10)
    return sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad) / 1e6


def method_of(config: Mapping[str, Any], classes: int) -> Any:
    """The method of a flat config with its network, at random weights."""
    info = EncoderInfo(
        str(config["encoder.name"]), classes, str(config["encoder.stem"]), int(config["data.image_size"])
    )
    options = {
        name.removeprefix("method."): value for name, value in config.items() if name.startswith("method.")
    }
    return build_method(options.pop("name"), info.build(), options, info)


def _of_evaluation(
    path: Path, content: Mapping[str, Any], run: Trained, matched: Match
) -> Iterator[Measurement]:
    about = content["about"]

    def marks(images: Any, *more: str) -> list[str]:
        return [*matched.marks, *_otherwise(about, images, run.config, matched.reference), *more]

    if is_number(top1 := content.get("corruption_top1_19")):
        images = content.get(
            "corruption_images", content.get("images")
        )  # a released set has a size of its own
        generated = content.get("corruption_made") == "generated"
        made = ["corruptions made here, not the released files"] if generated else []
        yield _figure(run, matched, "corruption", top1, path, marks(images, *made))
    if is_number(error := content.get("fgsm_error")):
        epsilon = about.get("epsilon")
        usual = is_number(epsilon) and abs(epsilon - 8 / 255) < 1e-6
        other = [] if usual else [f"FGSM with ε = {short(epsilon)}"]
        yield _figure(run, matched, "fgsm_error", error, path, marks(content.get("images"), *other))


def _otherwise(
    about: Mapping[str, Any], images: Any, config: Mapping[str, Any], reference: Reference
) -> list[str]:
    """How an evaluation differs from one of the whole test set as the run was validated on it, a mark each;
    what it does not say of itself is a difference too."""
    dataset, size = config.get("data.dataset"), config.get("data.test_size") or config.get("data.image_size")
    validated = {
        "dataset": dataset,
        "split": _split(dataset, config.get("data.val_split")),
        "image_size": size,
        **{key: config.get(f"data.{key}") for key in ("test_crop_ratio", "interpolation", "mean", "std")},
    }
    given = {**about, "split": _split(about.get("dataset"), about.get("split"))}
    silent = [key for key in validated if about.get(key) is None]
    marks = [
        f"evaluated with {key} {short(given[key])} instead of {short(value)}"
        for key, value in validated.items()
        if key not in silent and not equal(given[key], value)
    ]
    marks += [f"evaluated without saying its {', '.join(silent)}"] if silent else []
    inference = "encoder"
    if config.get("method.name") == "automix":
        inference = "q" if config.get("method.pipeline") == "joint" else "k"
    if config.get("ema.decay") and config.get("ema.inference"):
        inference = "ema"
    if about.get("which") not in (None, inference):
        marks.append(f"evaluated with encoder {short(about['which'])} instead of {inference}")
    if reference.data is not None and images != reference.data.test:
        marks.append(f"evaluated on {short(images)} images instead of {reference.data.test:,}")
    return marks


def _split(dataset: Any, split: Any) -> Any:
    """A split by the name that its data set has for it: where there is no ``val``, that is ``test``."""
    known = SPLITS.get(dataset, ()) if isinstance(dataset, str) else ()
    return "test" if split == "val" and "test" in known and "val" not in known else split


def _of_localization(
    path: Path, content: Mapping[str, Any], run: Trained, matched: Match
) -> Iterator[Measurement]:
    marks = list(matched.marks)
    if content.get("map_method", "cam") != "cam":
        marks.append(f"class maps by {short(content['map_method'])}")
    if content.get("n_images") not in (None, CUB_TEST):
        marks.append(f"on {short(content['n_images'])} test images")
    if is_number(content.get("MaxBoxAccV2")):
        yield _figure(run, matched, "maxboxacc", content["MaxBoxAccV2"], path, marks)


def _of_detection(
    path: Path, content: Mapping[str, Any], run: Trained, matched: Match
) -> Iterator[Measurement]:
    """AP of a detector, if it is R50-C4 from a backbone whose training is known, on VOC or COCO."""
    data = next((name for name, (test, _, _) in SCHEDULES.items() if content.get("data") == test), None)
    if data is None or matched.reference.attributes.get("encoder") != "R-50":
        return
    test, iterations, images = SCHEDULES[data]
    marks = [f"backbone: {mark}" for mark in matched.marks]
    if content.get("iterations") != iterations:
        marks.append(f"{short(content.get('iterations'))} of {iterations:,} iterations")
    if content.get("batch") not in (None, 16):
        marks.append(f"batch {short(content['batch'])} instead of 16")
    if not str(content.get("detector", "")).startswith(TABLE_7):
        marks.append(short(content.get("detector")))
    seen = content.get("images")
    if isinstance(seen, Mapping) and seen.get(test) not in (None, images):
        marks.append(f"on {short(seen[test])} test images")
    seed = content.get("seed") if isinstance(content.get("seed"), int) else None
    method = matched.reference.attributes["method"]
    for metric in ("AP", "AP50", "AP75"):
        if is_number(value := content.get(metric)):
            attributes = {"data": data, "encoder": "R-50", "method": method, "metric": metric.lower()}
            trial = f"{run.experiment_id}{marks}"
            yield Measurement(
                attributes, float(value), path.parent, path, seed, run.commit, trial, tuple(marks)
            )
