"""Errors of the machine, in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from automix_transfer.errors import EXIT_USER_ERROR, UserError
from automix_transfer.host.causes import (
    FULL,
    cause_of,
    gpu_memory_ran_out,
    main_memory_ran_out,
    norm_of_one_value,
    peer_is_gone,
)
from automix_transfer.training.distributed import World
from automix_transfer.training.record.run_folder import command_line
from automix_transfer.training.settings import Experiment


@contextmanager
def remedies(experiment: Experiment, world: World) -> Iterator[None]:
    """Turn a GPU or a machine without memory, a disk without room, a batch of one image and another process
    that is gone into a `UserError`."""
    train = experiment.train
    images = train.batch_size // (world.size * train.accumulate)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        gpu = gpu_memory_ran_out(error)
        if gpu or main_memory_ran_out(error):
            raise UserError(
                f"the {'GPU' if gpu else 'machine'} has no memory for {images} images a pass; give "
                f"train.accumulate={2 * train.accumulate}: a step stays {train.batch_size} images "
                "(train.batch_size), dealt to twice as many passes; or lower data.image_size; in an "
                "evaluation lower train.eval_batch_size"
            ) from error
        if peer_is_gone(error) and world.rank > 1:  # two say so, lest the first be the one
            raise SystemExit(EXIT_USER_ERROR) from error
        if cause := cause_of(error):
            again = f"; go on with: {command_line(resume=True)}" if peer_is_gone(error) else ""
            raise UserError(cause + again) from error
        raise
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"{experiment.output} could not be written ({error.strerror}); free space and go on with: "
            f"{command_line(resume=True)}"
        ) from error
    except ValueError as error:
        if not norm_of_one_value(error):
            raise
        raise UserError(
            f"BatchNorm cannot work with {images} image a pass (train.batch_size={train.batch_size} over "
            f"{world.size} processes and train.accumulate={train.accumulate}); give each at least 2 images"
        ) from error
