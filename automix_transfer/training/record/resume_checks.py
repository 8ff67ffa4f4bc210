"""What a resumed run must have in common with its checkpoint: settings, processes, data and the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from automix_transfer.data.listing import Listing
from automix_transfer.errors import UserError, first_line
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.text_files import same_names
from automix_transfer.training.distributed import World
from automix_transfer.training.record.checkpoint import Checkpoint
from automix_transfer.training.settings import FREE_ON_RESUME, Experiment, as_read, flatten, with_defaults


def refuse_another_run(checkpoint: Checkpoint, experiment: Experiment, world: World | None = None) -> None:
    """The checkpoint must be of this experiment and, where ``world`` is given, of as many processes.

    Raises:
        UserError: names the first setting that differs.
    """
    source = f"the checkpoint in {experiment.output}"
    refuse_changes(source, checkpoint.config, asdict(experiment))
    if world is not None and checkpoint.processes != world.size:
        raise UserError(
            f"{source} was written by {checkpoint.processes} processes and can only be resumed by as many, "
            f"but there are {world.size}"
        )


def refuse_changes(source: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A resumed run must train what was begun: the first setting that differs is named in a `UserError`."""
    before, after = as_read(saved), flatten(now)
    if not before.keys() >= after.keys():
        before = with_defaults(saved)
    for key, value in after.items():
        if key not in FREE_ON_RESUME and before.get(key) != value:
            raise UserError(
                f"{source} was trained with {key}={before.get(key)}, but now {key}={value}: that is another "
                "training; give the same value, or choose another output=FOLDER to start afresh"
            )
    if gone := [f"{key}={before[key]}" for key in before if key not in after]:
        raise UserError(
            f"{source} was trained with {', '.join(gone)}, which this version does not know; use the version "
            "that wrote it"
        )


def refuse_other_data(
    checkpoint: Checkpoint, experiment: Experiment, info: EncoderInfo, listings: Sequence[Listing]
) -> None:
    """The checkpoint must be of the same images, labels, classes and input.

    Args:
        listings: training and validation images; without the first where nothing is trained.

    Raises:
        UserError: it is of others.
    """
    samples, count = [len(listing) for listing in listings], len(listings)
    names = checkpoint.encoder.get("class_names", ())
    same = {**info.to_dict(), "class_names": names} == checkpoint.encoder
    if not (same and same_names(names, info.class_names)) or checkpoint.samples[-count:] != samples:
        raise UserError(
            f"the checkpoint in {experiment.output} was trained on other data (training and validation "
            f"images {checkpoint.samples}, {checkpoint.encoder.get('num_classes')} classes) than "
            f"data.root={experiment.data.root} holds ({samples}, {info.num_classes} classes) or with another "
            "input; give the same data"
        )
    if checkpoint.images and checkpoint.images[-count:] != [listing.digest() for listing in listings]:
        raise UserError(
            f"the checkpoint in {experiment.output} was trained on as many other images, or on other labels "
            f"of them, than data.root={experiment.data.root} holds now; restore the data, or choose another "
            "output=FOLDER to start afresh"
        )


def restore(experiment: Experiment, *parts: tuple[Any, dict[str, Any]]) -> None:
    """Load the state of a checkpoint into each (part, state): the method, the optimizer, the scaler.

    Raises:
        UserError: the checkpoint is of another version.
    """
    try:
        for part, state in parts:
            part.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"the checkpoint in {experiment.output} does not fit method.name={experiment.method['name']} and "
            f"the optimizer of this version ({first_line(error)}); use the version that wrote it"
        ) from error
