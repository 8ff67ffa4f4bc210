"""Every figure of some folders that a table of the paper can show, with the run that it is of and what is odd
about it.

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
from automix_transfer.errors import UserError
from automix_transfer.mixing import build_method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.paper import published as paper
from automix_transfer.paper.catalogue import catalogue
from automix_transfer.paper.matching import Match, equal, match
from automix_transfer.paper.references import Reference
from automix_transfer.paper.trained import Trained, bucket_of, is_number, read_trained, short
from automix_transfer.runs.collect import Found, collect

# test set, iterations, its images
SCHEDULES = {"VOC": ("voc_2007_test", 24_000, 4_952), "COCO": ("coco_2017_val", 180_000, 5_000)}


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
    """``problems``: a sentence for each run or file that gives no figure; ``elsewhere``: sound ones that no
    table of the paper is about."""

    figures: list[Measurement] = field(default_factory=list)
    runs: int = 0
    problems: list[str] = field(default_factory=list)
    elsewhere: list[Path] = field(default_factory=list)


def measure(folders: Sequence[Path], say: Callable[[str], None] = lambda line: None) -> Measured:
    """Read all of ``folders``; ``say`` is given progress.

    Raises:
        UserError: a folder does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist or is not a folder; give folders of runs, e.g. runs/")
    try:
        found = collect(folders)
    except UserError:  # there is nothing in them, which is no mistake here
        found = Found(list(folders))
    by_bucket: dict[tuple[str, ...], list[Reference]] = {}
    for reference in catalogue().references.values():
        by_bucket.setdefault(bucket_of(reference.config), []).append(reference)
    result = Measured(runs=len(found.runs), problems=[*catalogue().problems, *found.problems])
    runs: dict[Path, tuple[Trained, Match | None]] = {}
    for number, folder in enumerate(found.runs, start=1):
        run = read_trained(folder)
        matched = match(run, by_bucket)
        runs[folder.resolve()] = (run, matched)
        result.problems += run.faults
        if not run.faults and matched is None:
            result.elsewhere.append(folder)
        result.figures += _of_training(run, matched)
        if number % 1000 == 0:
            say(f"{number:,} of {len(found.runs):,} runs read")
    for kind, reader in (
        ("evaluation", _of_evaluation),
        ("localization", _of_localization),
        ("detection", _of_detection),
    ):
        for item in found.of(kind):
            for figure in reader(item.path, item.content, Links(runs, found), result.problems):
                result.figures.append(figure)
    return result


class Links:
    """From a weights file that a result names to the training run that wrote it."""

    def __init__(self, runs: Mapping[Path, tuple[Trained, Match | None]], found: Found) -> None:
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
        if not weights:
            return None
        source = self.sources.get(weights) or self.sources.get(Path(weights).name)
        for name in (weights, source):
            if isinstance(name, str) and name:
                for folder in self._places(Path(name).parent, beside):
                    run, matched = self.runs.get(folder, (None, None))
                    if run is not None and matched is not None:
                        return run, matched
        return None

    def _places(self, folder: Path, beside: Path) -> Iterator[Path]:
        """Where a folder may lie now: as it is named, or under the same last names, if one run alone has
        them."""
        yield folder.resolve()
        yield beside.parent.resolve()
        for depth in range(min(len(folder.parts), 4), 0, -1):
            tail = folder.parts[-depth:]
            same = [known for known in self.runs if known.parts[-depth:] == tail]
            if len(same) == 1:
                yield same[0]


def _of_training(run: Trained, matched: Match | None) -> list[Measurement]:
    if matched is None or run.top1 is None:
        return []

    def figure(metric: str, value: float, *more: str) -> Measurement:
        return Measurement(
            {**matched.reference.attributes, "metric": metric},
            value,
            run.path,
            run.path / "metrics.json",
            run.seed,
            run.commit,
            run.given,
            (*matched.marks, *more),
        )

    counted = paper.same({**matched.reference.attributes, "metric": "params"})  # Table 11 alone
    return [
        figure("top1", run.top1),
        *([figure("hours", run.hours, *([f"on {run.device}"] if run.device else []))] if run.hours else []),
        *([figure("params", millions_of(matched.reference))] if counted else []),
    ]


@lru_cache(maxsize=64)
def _millions(key: tuple[tuple[str, Any], ...]) -> float:
    reference = catalogue().references[key]
    config = reference.config
    info = EncoderInfo(
        str(config["encoder.name"]),
        reference.data.classes if reference.data else 10,
        str(config["encoder.stem"]),
        int(config["data.image_size"]),
    )
    options = {
        name.removeprefix("method."): value for name, value in config.items() if name.startswith("method.")
    }
    with torch.device("meta"):  # shapes only, no memory and no random numbers
        method = build_method(options.pop("name"), info.build(), options, info)
    return sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad) / 1e6


def millions_of(reference: Reference) -> float:
    """Trained parameters of a reference's network and Mix Block, in millions; the momentum encoder is not
    trained."""
    return _millions(reference.key)


def _of_evaluation(
    path: Path, content: Mapping[str, Any], links: Links, problems: list[str]
) -> Iterator[Measurement]:
    about = content["about"]
    linked = links.run_of(str(about.get("weights") or ""), path)
    if linked is None:
        return
    run, matched = linked

    def marks(images: Any) -> list[str]:
        return [*matched.marks, *_otherwise(about, images, run.config, matched.reference)]

    if is_number(content.get("corruption_top1_19")):
        # a released set has a size of its own
        images = content.get("corruption_images", content.get("images"))
        made = (
            []
            if content.get("corruption_made") != "generated"
            else ["corruptions made here, not the released files"]
        )
        yield from _figure(
            path, "corruption", content["corruption_top1_19"], run, matched, [*marks(images), *made], problems
        )
    if is_number(content.get("fgsm_error")):
        epsilon = about.get("epsilon")
        other = (
            []
            if is_number(epsilon) and abs(epsilon - 8 / 255) < 1e-6
            else [f"FGSM with ε = {short(epsilon)}"]
        )
        yield from _figure(
            path,
            "fgsm_error",
            content["fgsm_error"],
            run,
            matched,
            [*marks(content.get("images")), *other],
            problems,
        )


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
    ours = (
        "encoder"
        if config.get("method.name") != "automix"
        else "q"
        if config.get("method.pipeline") == "joint"
        else "k"
    )
    inference = "ema" if config.get("ema.decay") and config.get("ema.inference") else ours
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
    path: Path, content: Mapping[str, Any], links: Links, problems: list[str]
) -> Iterator[Measurement]:
    linked = links.run_of(str(content.get("checkpoint") or ""), path)
    if linked is None or "MaxBoxAccV2" not in content:
        return
    run, matched = linked
    marks = list(matched.marks)
    if content.get("map_method", "cam") != "cam":
        marks.append(f"class maps by {short(content['map_method'])}")
    if content.get("n_images") not in (None, 5_794):
        marks.append(f"on {short(content['n_images'])} test images")
    yield from _figure(path, "maxboxacc", content["MaxBoxAccV2"], run, matched, marks, problems)


def _of_detection(
    path: Path, content: Mapping[str, Any], links: Links, problems: list[str]
) -> Iterator[Measurement]:
    """AP of a detector, if it is R50-C4 from a backbone whose training is known, on VOC or COCO."""
    linked = links.run_of(str(content.get("weights") or ""), path)
    data = next((name for name, (test, _, _) in SCHEDULES.items() if content.get("data") == test), None)
    if linked is None or data is None or linked[1].reference.attributes.get("encoder") != "R-50":
        return
    run, matched = linked
    _, iterations, images = SCHEDULES[data]
    marks = [f"backbone: {mark}" for mark in matched.marks]
    if content.get("iterations") != iterations:
        marks.append(f"{short(content.get('iterations'))} of {iterations:,} iterations")
    if content.get("batch") not in (None, 16):
        marks.append(f"batch {short(content['batch'])} instead of 16")
    if not str(content.get("detector", "")).startswith("Faster R-CNN, build_resnet_backbone"):
        marks.append(short(content.get("detector")))
    seen = content.get("images")
    if isinstance(seen, Mapping) and seen.get(str(content["data"])) not in (None, images):
        marks.append(f"on {short(seen[str(content['data'])])} test images")
    seed = content.get("seed") if isinstance(content.get("seed"), int) else None
    for key, metric in (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75")):
        if is_number(content.get(key)):
            attributes = {
                "data": data,
                "encoder": "R-50",
                "method": matched.reference.attributes["method"],
                "metric": metric,
            }
            yield Measurement(
                attributes,
                float(content[key]),
                path.parent,
                path,
                seed,
                run.commit,
                f"{run.given}{marks}",
                tuple(marks),
            )


def _figure(
    path: Path,
    metric: str,
    value: Any,
    run: Trained,
    matched: Match,
    marks: Sequence[str],
    problems: list[str],
) -> Iterator[Measurement]:
    if not is_number(value) or not 0 <= value <= 100:
        problems.append(f"{path}: its {metric} is not between 0 and 100")
        return
    yield Measurement(
        {**matched.reference.attributes, "metric": metric},
        float(value),
        run.path,
        path,
        run.seed,
        run.commit,
        run.given,
        tuple(marks),
    )
