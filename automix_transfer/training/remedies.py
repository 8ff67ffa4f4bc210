"""Errors of the machine, in one sentence that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from automix_transfer.errors import UserError
from automix_transfer.training.distributed import World
from automix_transfer.training.record.run_folder import command_line
from automix_transfer.training.settings import Experiment

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def remedies(experiment: Experiment, world: World) -> Iterator[None]:
    """Turn a GPU without memory, a disk without room and a batch of one image into a `UserError`."""
    train = experiment.train
    images = train.batch_size // (world.size * train.accumulate)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the GPU has no memory for {images} images a pass; give train.accumulate="
            f"{2 * train.accumulate}: a step stays {train.batch_size} images, dealt to twice as many passes; "
            "in an evaluation lower train.eval_batch_size"
        ) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"{experiment.output} could not be written ({error.strerror}); free space and go on with: "
            f"{command_line(resume=True)}"
        ) from error
    except ValueError as error:
        # torch's BatchNorm has no type of its own for it
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"BatchNorm cannot work with {images} image a pass (train.batch_size={train.batch_size} over "
            f"{world.size} processes and train.accumulate={train.accumulate}); give each at least 2 images"
        ) from error
