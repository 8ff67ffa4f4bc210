"""AdamW for detectors on timm's networks, with rates that fall with depth where it is asked for."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from automix_transfer.detection.config_files import logger
from automix_transfer.detection.networks.timm_backbone import TimmBackbone, encoder_name, is_layer_normed
from automix_transfer.models.depth import layers_by_depth

#: parameters that do not decay, by their last name: positions and prefix tokens
UNDECAYED = ("relative_position_bias_table", "pos_embed", "cls_token", "reg_token", "dist_token")


def takes_adamw(cfg: CfgNode) -> bool:
    """Whether a detector is trained with AdamW, else with SGD: as ``MODEL.TIMM.OPTIMIZER`` says; ``auto``:
    with AdamW on networks of LayerNorms (ConvNeXt, Swin, ViT, DeiT)."""
    said, name = cfg.MODEL.TIMM.OPTIMIZER, encoder_name(cfg.MODEL.BACKBONE.NAME) or ""
    return is_layer_normed(name) if said == "auto" else said == "AdamW"


def adamw(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW of a config's SOLVER; positions do not decay.

    With ``MODEL.TIMM.LAYER_DECAY`` d the rate of layer l of the encoder's L (the stem is 0, then a layer a
    block) is d^(L - l) of BASE_LR, which all layers of the detector have.
    """
    solver, decay = cfg.SOLVER, cfg.MODEL.TIMM.LAYER_DECAY
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        overrides={name: {"weight_decay": 0.0} for name in UNDECAYED},
    )
    falling = f" (times {decay:g} a layer down)" if decay != 1 else ""
    logger.info(f"optimizer AdamW: learning rate {solver.BASE_LR:g}{falling}, decay {solver.WEIGHT_DECAY:g}")
    return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(
        parameters if decay == 1 else _by_depth(parameters, model, decay),
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
    )


def _by_depth(groups: list[dict[str, Any]], model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """``groups`` cut up by the depth of their parameters."""
    encoder = next(module.encoder for module in model.modules() if isinstance(module, TimmBackbone))
    layers = layers_by_depth(encoder, "MODEL.TIMM.LAYER_DECAY")
    last = max(layers.values()) + 1
    depths = {id(value): last - layers[name] for name, value in encoder.named_parameters()}
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for value in group["params"]:
            depth = depths.get(id(value), 0)
            rated = {**group, "lr": group["lr"] * decay**depth, "params": []}
            found.setdefault((number, depth), rated)["params"].append(value)
    return list(found.values())
