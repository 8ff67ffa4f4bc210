"""Optimal transport between two sets of feature vectors, smoothed by an entropy: Sinkhorn's iterations in the
log domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from automix_transfer.mixing.precision import full_precision


@torch.no_grad()
def sinkhorn(
    x: Tensor, y: Tensor, epsilon: float = 0.1, iterations: int = 100, tolerance: float = 0.1
) -> Tensor:
    """Plans (N, M, M) between x and y (N, M, D) with uniform marginals 1/M and squared Euclidean costs;
    column sums are exact.

    Stops after ``iterations``, or when the potentials of the rows move by less than ``tolerance`` in sum, on
    average over the samples. In float32 whatever the features are, under autocast too; vectors that are not
    finite give the uniform plan.
    """
    x, y = x.float(), y.float()
    with full_precision(x.device.type):
        products = 2 * x @ y.transpose(1, 2)
    cost = x.square().sum(2, keepdim=True) + y.square().sum(2).unsqueeze(1) - products
    cost = cost.clamp(min=0).nan_to_num(nan=0.0, posinf=0.0)
    places = cost.shape[1]
    marginal = -math.log(places)
    u, v = torch.zeros_like(cost[:, :, 0]), torch.zeros_like(cost[:, 0])
    for _ in range(iterations):
        before = u
        u = epsilon * marginal - epsilon * torch.logsumexp((v.unsqueeze(1) - cost) / epsilon, dim=2)
        v = epsilon * marginal - epsilon * torch.logsumexp((u.unsqueeze(2) - cost) / epsilon, dim=1)
        if (u - before).abs().sum(dim=1).mean() < tolerance:
            break
    return torch.exp((u.unsqueeze(2) + v.unsqueeze(1) - cost) / epsilon)
