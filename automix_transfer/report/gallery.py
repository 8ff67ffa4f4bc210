"""Pictures of the page: sliders, figures and the pictures of runs, each with what it was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automix_transfer.errors import UserError
from automix_transfer.io import read_json
from automix_transfer.progress import to_stderr
from automix_transfer.report import slider
from automix_transfer.report.embed import Embedder, Picture
from automix_transfer.runs.collect import SLIDER, File, Found
from automix_transfer.runs.folder import read_optional

#: figure of a demo -> its heading; in this order, wherever they exist
HEADINGS = {"methods": "The same pairs under every method", "by_lambda": "AutoMix from image j to image i"}
EXPECTED = ("methods",)  #: of a finished demo


@dataclass(frozen=True)
class Figure:
    """A picture of a ``figures`` folder with its heading and sentence."""

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


def slider_views(found: Found, embedder: Embedder, runs: Sequence[Path]) -> list[SliderView]:
    """The sliders that are there; where there is none, those of ``runs``, drawn now from their checkpoints
    and data."""
    if found.of("slider"):
        return found.read("slider", lambda file: slider_view(file, embedder))
    views = []
    for run in runs:
        to_stderr(f"drawing mixed samples of {run} (--no-mixes leaves them out)")
        try:
            with tempfile.TemporaryDirectory() as folder:
                path, name = draw_slider(run, Path(folder)), found.name(run)
                views.append(slider_view(File(path, name, read_json(path) | {"source": name}), embedder))
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


def slider_view(file: File, embedder: Embedder) -> SliderView:
    """A slider of `slider.write`.

    Raises:
        ValueError, KeyError, ...: a strip that cannot be shown, or not all are of the same pairs and λ.
    """
    content = file.content

    def pictures(names: Sequence[str]) -> list[Picture]:
        found = [embedder.embed(file.path.parent / str(name), file.path.parent) for name in names]
        shown = [picture for picture in found if picture]
        if not shown or len(shown) < len(content["classes"]) or len(shown) < len(found):
            raise ValueError("a strip is missing")
        return shown

    headings = slider.rows()
    height, width, pad = (int(content[key]) for key in ("height", "width", "pad"))
    view = SliderView(
        str(content.get("source") or content.get("folder") or file.name),
        [float(lam) for lam in content["lams"]],
        height,
        width,
        pad,
        pictures(content["images"]["i"]),
        pictures(content["images"]["j"]),
        [(str(a), str(b)) for a, b in content["classes"]],
        [(key, *headings.get(key, (key, "")), pictures(names)) for key, names in content["rows"].items()],
        {key: np.array(values, dtype=float).tolist() for key, values in content.get("seen", {}).items()},
    )
    strips = [strip for *_, several in view.rows for strip in several]
    seen = (len(view.classes), len(view.lams), 2)
    if (
        not view.lams
        or min(height, width) <= 0
        or any(strip.height != len(view.lams) * (height + 2 * pad) for strip in strips)
        or any(
            len(several) != len(view.classes) for several in (view.images_i, *(row[3] for row in view.rows))
        )
        or any(np.shape(values) != seen or not np.isfinite(values).all() for values in view.seen.values())
    ):
        raise ValueError("its strips are not of the same pairs and λ")
    return view


def gallery(found: Found, embedder: Embedder, expected: bool) -> list[Figure]:
    """The PNGs of all ``figures`` folders; ``expected``: whether those of a demo should be there."""
    figures, there = [], set[str]()
    for folder in found.figures:
        captions = folder / "captions.json"
        words = read_optional(captions, found.problems) if captions.exists() else {}
        files = {path.stem: path for path in sorted(folder.glob("*.png"))}
        there |= {*files}
        for name in sorted(files, key=lambda name: ([*HEADINGS, name].index(name), name)):
            if picture := embedder.embed(files[name]):
                heading = HEADINGS.get(name, name.replace("_", " ").capitalize())
                source = found.name(files[name])
                figures.append(Figure(heading, str(words.get(name, "")), picture, source))
    if expected:
        found.problems += [f"figures/{name}.png does not exist" for name in EXPECTED if name not in there]
        if not found.of("slider"):
            found.problems.append(f"there is no {SLIDER} among the figures: a finished demo has drawn it")
    return figures


def plots_beside(files: Sequence[File], embedder: Embedder) -> list[tuple[str, Picture]]:
    """The curves that automix-transfer localize leaves beside its results."""
    plots = [(file.name, file.path.with_suffix(".png")) for file in files]
    return [(name, picture) for name, path in plots if path.is_file() and (picture := embedder.embed(path))]


def run_pictures(run: Path, embedder: Embedder, count: int = 3) -> list[tuple[str, Picture]]:
    """The last pictures of a run: hundreds would fill the page."""
    paths = sorted((run / "pictures").glob("*.png"))[-count:]
    return [(path.stem.replace("_", " "), picture) for path in paths if (picture := embedder.embed(path))]
