"""Several processes train one detector: the first owns its folder, and all are about to train the same."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import detectron2
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from automix_transfer.config import flatten
from automix_transfer.detection.resuming.began import images_of, weights_hash
from automix_transfer.detection.resuming.checkpoints import done
from automix_transfer.errors import EXIT_USER_ERROR, UserError
from automix_transfer.owner import owned
from automix_transfer.training.joining import VERSIONS, difference, digest_of

#: a machine may have these elsewhere, or fewer of them
OF_THE_MACHINE = ("OUTPUT_DIR", "MODEL.WEIGHTS", "DATASETS.TRAIN", "DATASETS.TEST", "DATALOADER.NUM_WORKERS")


@contextmanager
def owning(folder: str | Path, check: Callable[[], None]) -> Iterator[None]:
    """`owner.owned` for all processes: the first holds the lock, and calls ``check``; what that or the lock
    refuses ends all of them.

    Raises:
        UserError, OSError: in the first process; the others exit with its code.
    """
    with ExitStack() as stack:
        refusal = None
        if comm.is_main_process():
            try:
                stack.enter_context(owned(folder, "choose another OUTPUT_DIR"))
                check()
            except (UserError, OSError) as error:
                refusal = error
        if comm.all_gather(refusal is not None)[0]:
            raise refusal or SystemExit(EXIT_USER_ERROR)
        yield


def refuse_differences(cfg: CfgNode) -> None:
    """All processes must have the same versions, settings, starting weights and images.

    Raises:
        UserError: in the first process; the others exit with its code.
    """
    if comm.get_world_size() == 1:
        return
    settings = flatten(yaml.safe_load(cfg.dump()))
    weights = weights_hash(cfg.MODEL.WEIGHTS)
    images = {f"images to {part.lower()} on": images_of(cfg.DATASETS[part]) for part in ("TRAIN", "TEST")}
    _agree(
        {
            "Detectron2": detectron2.__version__,
            **{key: str(value) for key, value in settings.items() if key not in OF_THE_MACHINE},
            "MODEL.WEIGHTS": f"of SHA-256 {weights[:12]}" if weights else "nowhere",
            **{name: f"{one['images']:,} ({one['sha256'][:12]})" for name, one in images.items()},
        }
    )


def refuse_other_checkpoints(found: tuple[Path, dict[str, Any]] | None) -> None:
    """All processes must go on from the same checkpoint, see `checkpoints.latest`.

    Raises:
        UserError: in the first process; the others exit with its code.
    """
    if comm.get_world_size() == 1:
        return
    if found is None:
        _agree({"a checkpoint": "nowhere"})
    else:
        _agree({"a checkpoint": f"of iteration {done(found[1])}, {digest_of(found[1]['model'])}"})


def _agree(facts: Mapping[str, str]) -> None:
    if sentence := difference(comm.all_gather((socket.gethostname(), {**VERSIONS, **facts}))):
        raise UserError(sentence) if comm.is_main_process() else SystemExit(EXIT_USER_ERROR)
