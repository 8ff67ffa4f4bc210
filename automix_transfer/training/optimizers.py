"""Optimizers over a method's parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from automix_transfer.mixing.base import Method
from automix_transfer.training.settings import OptimizerConfig


def build_optimizer(config: OptimizerConfig, method: Method) -> Optimizer:
    """SGD, AdamW or LAMB; each group carries ``lr_scale`` and ``lr_end`` for the schedule.

    Every group of the method is split in two: weights, which decay, and one-dimensional parameters (norms,
    biases) with what timm exempts in its networks (class token, position embedding, tables of relative
    positions). The paper decays both with SGD; DeiT and RSB only the first. A checkpoint's optimizer is
    matched by the order of these groups.
    """
    decay_all = config.decay_norm_and_bias == "yes" or (
        config.decay_norm_and_bias == "auto" and config.name == "sgd"
    )
    betas = (config.betas[0], config.betas[1])
    exempt = undecayed(method)
    groups: list[dict[str, Any]] = []
    for group in method.parameter_groups():
        decay = config.weight_decay if group.get("weight_decay") is None else group["weight_decay"]
        rates = {"lr_scale": float(group.get("lr_scale", 1.0)), "lr_end": group.get("lr_end")}
        if config.name == "sgd" and group.get("momentum") is not None:
            rates["momentum"] = group["momentum"]
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for _, parameter in group["params"]:
            parts[decay_all or (parameter.ndim > 1 and id(parameter) not in exempt)].append(parameter)
        for decays, parameters in parts.items():
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay if decays else 0.0, **rates})
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps)
    from timm.optim import Lamb

    # max_grad_norm=None: timm clips at 1.0 unless told otherwise, and the recipe (RSB A2/A3) has no clipping.
    return Lamb(groups, lr=config.lr, betas=betas, eps=max(config.eps, 1e-6), max_grad_norm=None)


def undecayed(method: Method) -> set[int]:
    """ids of the parameters that timm's encoders name in their ``no_weight_decay()``."""
    found: set[int] = set()
    for module in method.modules():
        ask = getattr(module, "no_weight_decay", None)
        if callable(ask):
            own = dict(module.named_parameters())
            found |= {id(own[name]) for name in ask() if name in own}
    return found
