"""Pictures of the page: sliders, cards of examples, figures and the pictures of runs, each with what it was
made from."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.report import slider
from automix_transfer.report.embed import Embedder, Picture
from automix_transfer.runs.collect import SLIDER, File, Found, is_finite
from automix_transfer.runs.folder import read_optional

#: figure of a demo -> its heading; in this order, wherever they exist
HEADINGS = {
    "methods": "The same pairs under every method",
    "by_lambda": "AutoMix from image j to image i",
    "cams": "Class activation maps",
    "detections": "Detections",
}
#: of a finished demo, as picture or as something better
EXPECTED = ("methods", "cams", "detections")


@dataclass(frozen=True)
class Figure:
    """A picture of a ``figures`` folder with its heading and sentence."""

    name: str
    heading: str
    caption: str
    picture: Picture
    source: str


@dataclass(frozen=True)
class SliderView:
    """What the template shows of a ``slider.json``: rows of (key, heading, words, strips), and the network's
    guesses by row, pair and λ."""

    source: str
    lams: list[float]
    height: int
    width: int
    pad: int
    images_i: list[Picture]
    images_j: list[Picture]
    classes: list[tuple[str, str]]
    rows: list[tuple[str, str, str, list[Picture]]]
    seen: dict[str, list[list[list[float]]]]


@dataclass(frozen=True)
class Shots:
    """Cards of a ``shots.json``: (pictures with the word under each, text)."""

    path: Path
    heading: str
    caption: str
    source: str
    cards: list[tuple[list[tuple[str, Picture]], str]]


def slider_views(found: Found, embedder: Embedder, runs: Sequence[Path]) -> list[SliderView]:
    """The sliders that are there; where there is none, those of ``runs``, drawn now from their checkpoints
    and data."""
    views = [view for file in found.of("slider") if (view := _view(file, embedder))]
    if found.of("slider"):
        return views
    for run in runs:
        print(f"drawing mixed samples of {run} (--no-mixes leaves them out)", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = draw_slider(run, Path(folder))
                content = read_optional(path, found.problems)
                if view := _view(
                    File(path, found.name(run), content | {"source": found.name(run)}), embedder
                ):
                    views.append(view)
        except (UserError, OSError) as error:
            found.problems.append(f"{run} has no λ slider: {error}")
    return views


def draw_slider(run: Path, folder: Path, root: Path | None = None) -> Path:
    """Mix pairs of a run's validation images by its Mix Block and by other methods; writes into ``folder``,
    returns ``slider.json``.

    Raises:
        UserError: no checkpoint, another method, or its data are not there.
    """
    from automix_transfer.evaluation.opened import common_data, open_run

    opened = open_run(run)
    dataset = common_data([opened], root)
    # a λ costs a forward pass of every pair and method: 7 s of one core for a ResNet-18 at 64 px
    lams = slider.LAMS[::2]
    strips = slider.render(opened.method, opened.info, dataset, lams=lams, root=root or opened.data.root)
    return slider.write(folder, strips, opened.about(), lams)


def _view(file: File, embedder: Embedder) -> SliderView | None:
    """A slider whose every strip can be shown; a sentence otherwise."""
    content, folder = file.content, file.path.parent
    try:
        lams = [float(lam) for lam in content["lams"]]
        height, width, pad = (int(content[key]) for key in ("height", "width", "pad"))
        images = {
            side: [embedder.embed(folder / str(name)) for name in content["images"][side]]
            for side in ("i", "j")
        }
        headings = slider.rows()
        rows = [
            (
                str(key),
                *headings.get(key, (str(key), "")),
                [embedder.embed(folder / str(name)) for name in names],
            )
            for key, names in content["rows"].items()
        ]
        classes = [(str(a), str(b)) for a, b in content["classes"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        embedder.problems.append(
            f"{file.path} is not a slider of this version ({type(error).__name__}: {error}); draw it again"
        )
        return None
    count = len(classes)
    every = [*images.values(), *(strips for *_, strips in rows)]
    if not (
        lams
        and rows
        and count
        and min(height, width) > 0
        and all(is_finite(lam) for lam in lams)
        and all(len(strips) == count and None not in strips for strips in every)
    ):
        embedder.problems.append(f"{file.path} is not whole, so its slider is left out; draw it again")
        return None
    high = len(lams) * (height + 2 * pad)
    if any(strip.height != high for *_, strips in rows for strip in strips if strip):
        embedder.problems.append(
            f"{file.path}: its strips do not have {len(lams)} frames of {height} pixels; draw it again"
        )
        return None
    seen = content.get("seen")
    seen = seen if isinstance(seen, Mapping) else {}
    whole = {key: values for key, values in seen.items() if _is_seen(values, count, len(lams))}
    source = str(content.get("source") or content.get("folder") or file.name)
    return SliderView(
        source,
        lams,
        height,
        width,
        pad,
        _sure(images["i"]),
        _sure(images["j"]),
        classes,
        [(key, heading, words, _sure(strips)) for key, heading, words, strips in rows],
        whole,
    )


def _is_seen(values: Any, pairs: int, lams: int) -> bool:
    """Whether ``values`` are two probabilities for every pair and λ."""
    return (
        isinstance(values, list)
        and len(values) == pairs
        and all(
            isinstance(pair, list)
            and len(pair) == lams
            and all(
                isinstance(at, list) and len(at) == 2 and all(is_finite(p) and 0 <= p <= 1 for p in at)
                for at in pair
            )
            for pair in values
        )
    )


def _sure(pictures: Sequence[Picture | None]) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]


def groups_of_shots(found: Found, embedder: Embedder) -> list[Shots]:
    """The cards of every ``shots.json``; a card none of whose pictures can be shown is left out."""
    groups = []
    for file in found.of("shots"):
        cards = []
        wanted = file.content.get("cards")
        for card in wanted if isinstance(wanted, list) else []:
            listed = card.get("pictures") if isinstance(card, Mapping) else None
            pictures = [
                (str(one.get("word", "")), picture)
                for one in (listed if isinstance(listed, list) else [])
                if isinstance(one, Mapping)
                and (picture := embedder.embed(file.path.parent / str(one.get("file", ""))))
            ]
            if pictures:
                cards.append((pictures, str(card.get("text", ""))))
        if cards:
            heading = str(file.content.get("heading") or file.path.parent.name.replace("_", " ").capitalize())
            groups.append(
                Shots(
                    file.path,
                    heading,
                    str(file.content.get("caption") or ""),
                    str(file.content.get("source") or file.name),
                    cards,
                )
            )
        else:
            found.problems.append(f"{file.path} has no card that can be shown")
    return groups


def gallery(found: Found, embedder: Embedder, replaced: set[str], expected: bool) -> list[Figure]:
    """The PNGs of all ``figures`` folders, without what the page shows in a better way (``replaced``)."""
    figures = []
    for folder in found.figures:
        captions = (
            read_optional(folder / "captions.json", found.problems)
            if (folder / "captions.json").exists()
            else {}
        )
        files = {path.stem: path for path in sorted(folder.glob("*.png"))}
        for name in [
            *(name for name in HEADINGS if name in files),
            *(name for name in files if name not in HEADINGS),
        ]:
            if name not in replaced and (picture := embedder.embed(files[name])):
                heading = HEADINGS.get(name, name.replace("_", " ").capitalize())
                figures.append(
                    Figure(name, heading, str(captions.get(name, "")), picture, found.name(files[name]))
                )
    if expected:
        there = {path.stem for folder in found.figures for path in folder.glob("*.png")} | replaced
        found.problems += [f"figures/{name}.png does not exist" for name in EXPECTED if name not in there]
        if not found.of("slider"):
            found.problems.append(
                f"there is no {SLIDER} among the figures: it is drawn when the demo has finished"
            )
    return figures


def plots_beside(files: Sequence[File], embedder: Embedder) -> list[tuple[str, Picture]]:
    """The curves that automix-transfer localize leaves beside its results."""
    plots = [(file.name, file.path.with_suffix(".png")) for file in files]
    return [(name, picture) for name, path in plots if path.is_file() and (picture := embedder.embed(path))]


def run_pictures(paths: Sequence[Path], embedder: Embedder, count: int = 3) -> list[tuple[str, Picture]]:
    """The last pictures of a run: hundreds would fill the page."""
    return [
        (path.stem.replace("_", " "), picture) for path in paths[-count:] if (picture := embedder.embed(path))
    ]
