"""What `automix-transfer localize` does, when its arguments are read."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from automix_transfer import console
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.io import read_json
from automix_transfer.localization.evaluate import Chosen, evaluate
from automix_transfer.localization.maps.sources import EncoderMaps, FolderMaps
from automix_transfer.localization.metadata import read_metadata
from automix_transfer.localization.pipeline import Source
from automix_transfer.localization.scores.metrics import default_thresholds
from automix_transfer.localization.targets import targets_of, with_images
from automix_transfer.localization.writing import Results, table, write_results
from automix_transfer.models.weights import load_encoder
from automix_transfer.models.weights_file import sha256_of_weights
from automix_transfer.owner import owned, owned_file, refuse_foreign
from automix_transfer.progress import Progress, to_stderr
from automix_transfer.report.localization_page import write_page
from automix_transfer.signals import kept
from automix_transfer.training import sharing
from automix_transfer.training.joining import by_first, together
from automix_transfer.training.sharing import Team


def localize(args: argparse.Namespace) -> None:
    """Measure, write and print; an interrupted run goes on from what it has kept.

    The processes of a launcher share the images out; the first one writes and prints.
    """
    partial = None if args.output is None else args.output.with_suffix(".partial")
    goes_on = f"; what was evaluated is kept in {partial}: the same command goes on from there"
    with sharing.team(args.device) as team, by_first(team.world, _owned(args, partial)):
        with kept("interrupted" + (goes_on if partial else "")):
            results, source = measure(args, partial, team)
            if results is not None:
                show(results, source, args)
                results.close()


@contextmanager
def _owned(args: argparse.Namespace, partial: Path | None) -> Iterator[None]:
    """What is written is owned, and nobody else's."""
    with ExitStack() as stack:
        if partial is not None:
            beside = [args.output.with_suffix(end) for end in (".csv", ".png", ".html")]
            for file in () if args.output.exists() or partial.exists() else beside:
                refuse_foreign(file, lambda _: False, "file of this command")
            stack.enter_context(owned_file(args.output, is_localization, "output of a localization"))
        if args.save_maps is not None:
            stack.enter_context(owned(args.save_maps, "choose another --save-maps"))
        yield


def is_localization(path: Path) -> bool:
    """Whether ``path`` is an output of this command."""
    content = read_json(path)
    return isinstance(content, dict) and "center_box" in content


def measure(args: argparse.Namespace, partial: Path | None, team: Team) -> tuple[Results | None, Source]:
    """The results, in the first process, and the source of maps that they are of."""
    target_set, other_set = together(team.world, lambda: targets(args))
    about: dict[str, object] = {
        key: str(value)
        for key in ("dataset", "root", "metadata")
        if (value := getattr(args, key)) is not None
    }
    if args.dataset is not None:
        about["split"] = target_set.name  # metadata files do not say which split they are of
    source: Source
    if args.scoremaps is not None:
        source = FolderMaps(args.scoremaps, args.map_size, args.raw_maps)
        other_source = FolderMaps(args.threshold_scoremaps or args.scoremaps, args.map_size, args.raw_maps)
    else:
        source = other_source = together(team.world, lambda: encoder_maps(args, about, team))
        digest = sha256_of_weights(args.checkpoint)
        about |= {"checkpoint": str(args.checkpoint), "which": args.which, "weights_sha256": digest}
    results = evaluate(
        source,
        target_set,
        thresholds=default_thresholds(args.interval),
        threshold=args.threshold,
        chosen=Chosen(other_set, other_source) if other_set else None,
        workers=args.workers,
        save_maps=args.save_maps,
        partial=partial,
        signature=about,
        progress=lambda split: Progress(f"localization, {split}"),
        team=team,
    )
    if results is not None:
        results.summary.update(about)
    return results, source


def show(results: Results, source: Source, args: argparse.Namespace) -> None:
    """Write files and page, with ``--output``, and print the table."""
    lines = [table(results), *(f"note: {note}" for note in results.summary["notes"])]
    if args.output is None:
        console.show("\n".join(lines))
        return
    files = write_results(results, args.output)
    if args.examples and (args.dataset or args.images):
        files.append(write_page(results, source, args.output.with_suffix(".html"), args.examples))
    print(*lines, f"written: {', '.join(map(str, files))}", sep="\n")


def targets(args: argparse.Namespace):
    """The images to report, and those to choose the threshold on (None)."""

    def from_dataset(split: str | None):
        data = DataConfig(dataset=args.dataset, root=str(args.root))
        return targets_of(load_listing(data, split), split) if split else None

    def from_metadata(folder: Path | None):
        if folder is None:
            return None
        found = read_metadata(folder, args.masks)
        return found if args.images is None else with_images(found, args.images)

    if args.metadata is not None:
        return from_metadata(args.metadata), from_metadata(args.threshold_metadata)
    return from_dataset(args.split), from_dataset(args.threshold_split)


def encoder_maps(args: argparse.Namespace, about: dict[str, object], team: Team):
    """Class maps of the checkpoint's encoder; ``about`` gets what was loaded."""
    device = team.world.device
    said: list[str] = []
    encoder, info = load_encoder(args.checkpoint, args.encoder, args.which, say=said.append)
    about["loaded"] = said[0]
    to_stderr(said[0])
    return EncoderMaps(encoder, info, device=device, **options_of(args))


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those of `EncoderMaps`."""
    names = ("image_size", "map_size", "output_stride", "cam_class", "method", "batch_size")
    return {"layer": args.map_layer, **{name: getattr(args, name) for name in names}}
