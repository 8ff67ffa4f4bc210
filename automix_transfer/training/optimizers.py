"""Optimizers over a method's parameter groups."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.optim import Optimizer

from automix_transfer.mixing.base import Method
from automix_transfer.models.depth import layers_by_depth
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
    exempt, scales = undecayed(method), layer_scales(method, config.layer_decay)
    groups: list[dict[str, Any]] = []
    for group in method.parameter_groups():
        decay = config.weight_decay if group.get("weight_decay") is None else group["weight_decay"]
        rates: dict[str, Any] = {"lr_scale": float(group.get("lr_scale", 1.0)), "lr_end": group.get("lr_end")}
        if config.name == "sgd" and group.get("momentum") is not None:
            rates["momentum"] = group["momentum"]
        parts: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for _, parameter in group["params"]:
            decays = decay_all or (parameter.ndim > 1 and id(parameter) not in exempt)
            parts.setdefault((decays, scales.get(id(parameter), 1.0)), []).append(parameter)
        # those that decay first, and the classifier's first of all: the first group's rate is logged
        for (decays, scale), parameters in sorted(parts.items(), key=lambda part: part[0], reverse=True):
            scaled = {**rates, "lr_scale": rates["lr_scale"] * scale}
            groups.append({"params": parameters, "weight_decay": decay if decays else 0.0, **scaled})
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps)
    from timm.optim import Lamb

    # max_grad_norm=None: timm clips at 1.0 unless told otherwise, and the recipe (RSB A2/A3) has no clipping.
    return Lamb(groups, lr=config.lr, betas=betas, eps=max(config.eps, 1e-6), max_grad_norm=None)


def layer_scales(method: Method, decay: float) -> dict[int, float]:
    """id of each parameter of the trained encoders -> ``decay`` to the power of the layers behind its own."""
    scales: dict[int, float] = {}
    for encoder in method.encoders().values() if decay != 1 else ():
        layers = layers_by_depth(encoder, f"optimizer.layer_decay={decay:g}")
        last = max(layers.values())
        scales |= {id(p): decay ** (last - layers[name]) for name, p in encoder.named_parameters()}
    return scales


def groups_table(optimizer: Optimizer, lr: float) -> str:
    """The groups of an optimizer, a line each: how much they hold, their peak rates and weight decays."""
    rows = [
        (number, len(group["params"]), sum(p.numel() for p in group["params"]))
        + (f"{lr * group['lr_scale']:.4g}", f"{group['weight_decay']:g}")
        for number, group in enumerate(optimizer.param_groups)
    ]
    return tabulate(rows, ("group", "tensors", "weights", "peak rate", "weight decay"), "simple")


def undecayed(method: Method) -> set[int]:
    """ids of the parameters that timm's encoders name in their ``no_weight_decay()``, as patterns."""
    found: set[int] = set()
    for encoder in method.encoders().values():
        exempt: Iterable[str] = getattr(encoder, "no_weight_decay", list)()
        found |= {id(p) for name, p in encoder.named_parameters() if any(fnmatch(name, e) for e in exempt)}
    return found
