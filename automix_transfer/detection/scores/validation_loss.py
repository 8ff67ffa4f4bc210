"""The losses of a detector on images that it is not trained on: what tells overfitting before AP does.

They are those of training, each image by itself: without augmentation, at the size of the test, with
BatchNorm, dropout and stochastic depth as in inference. The anchors and proposals that a loss is a mean over
are drawn from (seed, image), so the same weights have the same losses, however many processes share the
images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import build_augmentation
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from automix_transfer.detection.config_files import logger
from automix_transfer.detection.loader import TestLoader
from automix_transfer.rng import reseed_globals
from automix_transfer.signals import StopRequest

TOTAL = "val_loss"


class ValidationLoss(hooks.EvalHook):
    """Detectron2's hook of an evaluation, for `validation_losses`.

    It keeps only the newest value of each curve, since the progress line shows a median over the last 20.
    """

    def _do_eval(self) -> None:
        super()._do_eval()
        for name, curve in self.trainer.storage.histories().items():
            if name.startswith(TOTAL):
                del curve.values()[:-1]


def validation_losses(cfg: CfgNode, model: nn.Module, stop: StopRequest) -> dict[str, float]:
    """The mean over all images of ``DATASETS.TEST`` of each loss (``val_loss_cls``, ...) and of their sum
    (``val_loss``); the same in every process.

    The model stays as it is, BatchNorm's statistics and the modes of its modules included.

    Args:
        model: not wrapped for several processes.
        stop: see `TestLoader`; where it ended some process early, the means are over fewer images.
    """
    mapper = DatasetMapper(cfg, True, augmentations=build_augmentation(cfg, False), recompute_boxes=False)
    found: list[tuple[int, int, dict[str, float]]] = []
    for place, name in enumerate(cfg.DATASETS.TEST):
        loader = TestLoader(cfg, name, stop, mapper)
        for index, batch in zip(loader.indices, loader, strict=False):
            reseed_globals(cfg.SEED, "validation loss", place, index)
            # a storage of their own: heads note in it what they sample
            with torch.no_grad(), EventStorage(1), only_losses(model):
                losses = model(batch)
            found.append((place, index, {key: float(value) for key, value in losses.items()}))
    every = sorted(
        (item for part in comm.all_gather(found) for item in part), key=lambda item: (item[0], item[1])
    )
    if not every:
        return {}
    means = {key: sum(losses[key] for *_, losses in every) / len(every) for key in every[0][2]}
    result = {TOTAL: sum(means.values()), **{f"val_{key}": value for key, value in means.items()}}
    logger.info(f"{sentence(result)}, over {len(every):,} images")
    return result


def sentence(losses: Mapping[str, float]) -> str:
    """``val_loss 1.234 (loss_cls 0.8, ...)``."""
    parts = (f"{key.removeprefix('val_')} {value:.4g}" for key, value in losses.items() if key != TOTAL)
    return f"{TOTAL} {losses[TOTAL]:.4g} ({', '.join(parts)})"


@contextmanager
def only_losses(model: nn.Module) -> Iterator[None]:
    """Let a Detectron2 model give losses, but treat images as in inference; what it holds besides tensors
    (modes, RetinaNet's running normalizer) is put back."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        model.train()
        backbone = model.backbone
        for module in model.modules():
            if module is backbone or isinstance(module, _BatchNorm | _DropoutNd):
                module.eval()
        yield
    finally:
        for module, held in before:
            vars(module).clear()
            vars(module).update(held)
