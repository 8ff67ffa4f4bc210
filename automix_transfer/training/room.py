"""What a run needs of the machine, looked at first: disk for checkpoints, shared memory for its loaders."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from automix_transfer.errors import UserError
from automix_transfer.host.launched import processes_here
from automix_transfer.host.writable import existing
from automix_transfer.training.setup.run_state import Run

SHARED = Path("/dev/shm")
SLOTS = {"sgd": 1, "adamw": 2, "lamb": 2}  #: values that an optimizer keeps for each that it trains
AT_A_TIME = 4  #: checkpoints that can be there together: new, last, previous, best


def check_room(run: Run, folder: Path) -> None:
    """Refuse a run whose checkpoints do not fit where ``folder`` lies, or whose batches in flight do not fit
    into shared memory.

    Raises:
        UserError: it names what is needed, what is free, and what to change.
    """
    train = run.experiment.train
    size = checkpoint_bytes(run)
    later = sum(run.at.epoch < epoch <= train.epochs for epoch in train.keep_epochs)
    there = sum(file.stat().st_size for file in {*folder.glob("*.pt")} if file.is_file())
    needed, free = (AT_A_TIME + later) * size - there, shutil.disk_usage(existing(folder)).free
    if needed > free:
        kept = f" and {later} of train.keep_epochs" if later else ""
        raise UserError(
            f"{folder} has {_in_words(free)} free, but checkpoints of {_in_words(size)} need "
            f"{_in_words(needed)} (up to {AT_A_TIME} at a time{kept}); free space, choose another output"
            + (", or keep fewer epochs" if later else "")
        )
    loader = run.train_batches
    if loader.num_workers and SHARED.is_dir():
        pixels = 3 * run.experiment.data.image_size**2 * 4 * run.train_set.views
        batch = train.batch_size // (run.world.size * train.accumulate) * pixels
        ranks = processes_here() if run.world.size > 1 else 1
        needed = ranks * loader.num_workers * (loader.prefetch_factor or 2) * batch
        if needed > (free := shutil.disk_usage(SHARED).free):
            raise UserError(
                f"{SHARED} has {_in_words(free)} free, but {ranks * loader.num_workers} loader workers "
                f"(data.workers={loader.num_workers}) hold up to {_in_words(needed)} of images there; lower "
                "data.workers, or give the container more (docker run --shm-size)"
            )


def checkpoint_bytes(run: Run) -> int:
    """How large a checkpoint of ``run`` is, but for its small parts."""
    state = [value for value in run.method.state_dict().values() if isinstance(value, Tensor)]
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    return _bytes(state) + SLOTS[run.experiment.optimizer.name] * _bytes(trained)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _in_words(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
