"""A linear classifier and nearest neighbours on fixed features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from automix_transfer.evaluation.probing.features import Features

#: weight decays that a linear probe chooses from; features are standardised, so that one grid serves all
WEIGHT_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
EVERY = 5  #: every fifth image of a class is held out of training while the decay is chosen


@dataclass(frozen=True)
class Linear:
    """A linear classifier of standardised features: ``logits = (x - mean) / std @ weight.T + bias``.

    Attributes:
        weight, bias: (K, D) and (K,).
        mean, std: (D,), of the training features; a constant feature has std 1.
        weight_decay: the λ of the loss.
        held_out: top-1 in percent of each decay that was tried, on the part of the training images that was
            held out meanwhile.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    weight_decay: float
    held_out: dict[float, float]

    def logits(self, values: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return ((values - self.mean) / self.std) @ self.weight.T + self.bias


def linear_probe(train: Features, classes: int, decays: Sequence[float] = WEIGHT_DECAYS) -> Linear:
    """The softmax regression on ``train``: mean cross-entropy + λ / 2 · |W|², by L-BFGS in float64, to its
    minimum.

    λ is the best of ``decays`` on every `EVERY`-th image of each class, which are held out meanwhile (the
    larger where two are equal); no test image is seen. Nothing is drawn: the same features give the same
    classifier.
    """
    part = held_out_part(train.labels)
    held_out: dict[float, float] = {}
    if len(decays) > 1 and part.any() and not part.all():
        fit, rest = Features(train.values[~part], train.labels[~part]), train.values[part]
        for decay in decays:
            logits = _regression(fit, classes, decay).logits(rest)
            held_out[decay] = top1(logits.argmax(1), train.labels[part])
    best = max(held_out, key=lambda decay: (held_out[decay], decay)) if held_out else decays[0]
    found = _regression(train, classes, best)
    return Linear(found.weight, found.bias, found.mean, found.std, best, held_out)


def held_out_part(labels: Tensor) -> Tensor:
    """(N,) bool: every `EVERY`-th image of each class, in the order of the data set."""
    part = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        part[(labels == label).nonzero().flatten()[EVERY - 1 :: EVERY]] = True
    return part


def _regression(train: Features, classes: int, weight_decay: float) -> Linear:
    values = train.values.double()
    mean, std = values.mean(0), values.std(0, unbiased=False)
    std[std <= 1e-7 * mean.abs()] = 1.0  # constant, but for the rounding of float32
    values = (values - mean) / std
    weight = torch.zeros(classes, values.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(values @ weight.T + bias, train.labels)
        value = value + weight_decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    found = weight.detach().float(), bias.detach().float()
    return Linear(*found, mean.float(), std.float(), weight_decay, {})


def nearest_neighbours(
    train: Features, values: Tensor, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """The class, (M,), of each of (M, D) ``values`` by its ``k`` nearest training images.

    Near is cosine similarity s.

    Votes weigh exp(s / ``temperature``).
    Where two classes have equal votes the first is taken; ``k`` is at most the number of training images.
    """
    bank = F.normalize(train.values.double(), dim=1)
    found = []
    for part in values.split(512):
        near = F.normalize(part.double(), dim=1) @ bank.T
        # a stable sort: equal similarities keep the data set's order
        similar, index = near.sort(dim=1, descending=True, stable=True)
        similar, index = similar[:, :k], index[:, :k]
        votes = torch.zeros(len(part), classes, dtype=torch.float64)
        # beside the nearest, or a low temperature would leave no vote at all
        votes.scatter_add_(1, train.labels[index], ((similar - similar[:, :1]) / temperature).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def top1(predicted: Tensor, labels: Tensor) -> float:
    """Percent of (N,) predictions that are right."""
    return 100 * (predicted == labels).double().mean().item()
