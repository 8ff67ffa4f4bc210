"""`preset=openmixup` trains like the authors' published code (OpenMixup 0.2.10), step for step.

The fixture holds numbers that their classes, hooks and runner made in double precision: 40 steps from their
CIFAR-100 R-18 config with 16 to 128 channels. ``published`` is that config, whose masks are nearly flat; in
``lively`` the Mix Block starts 40 times as strong and m goes from 0.9 to 0.99, so that masks and k matter.
Initial weights, images, labels, λs, partners and learning rates are theirs; all else is ours. In float32 this
cannot be compared: their own float32 run leaves their double run by 1e-2 within the 40 steps.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from automix_transfer.mixing import AutoMix, load_options
from automix_transfer.mixing.automix.step import AutoMixDraw
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.models import create_encoder
from automix_transfer.training.optimizers import build_optimizer
from automix_transfer.training.schedule import LearningRates
from automix_transfer.training.settings import OptimizerConfig, ScheduleConfig

FIXTURE = Path(__file__).parents[2] / "fixtures" / "openmixup_steps.npz"
STEPS, BATCH, EPOCHS = 40, 16, 8
MOST = 1e-6  #: largest relative difference
#: a loss of the fixture -> ours
LOSSES = {"loss_mix_q": "loss_mce", "loss_one_q": "loss_ce", "loss_mix_k": "loss_gen"}

Record = dict[str, list[np.ndarray]]


@cache
def fixture() -> Mapping[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return dict(file)


def given(name: str) -> Tensor:
    """An array of the fixture as float64 or int64."""
    array = fixture()[name]
    return torch.from_numpy(array.astype(np.int64 if array.dtype.kind == "i" else np.float64))


def images(name: str) -> Tensor:
    """Images (N, 3, 32, 32), given by their 5×5 lowest cosine coefficients."""
    basis = torch.cos(
        torch.pi * torch.outer(torch.arange(5.0).double(), (torch.arange(32).double() + 0.5) / 32)
    )
    return torch.einsum("ncuv,uy,vx->ncyx", given(name), basis, basis)


class Recorded(AutoMix):
    """AutoMix that notes what it has computed of the masks that M learns from."""

    def __init__(self, *arguments: Any, record: Record, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.record = record

    def mask_loss(self, mask: Tensor, lam: float) -> Tensor:
        loss = super().mask_loss(mask, lam)
        note_masks(self.record, "mb", mask)
        self.record["step/loss_mask"].append(loss.detach().numpy())
        return loss


def note_masks(record: Record, side: str, mask: Tensor) -> None:
    """The mean and the standard deviation of each mask (N, 1, H, W)."""
    pixels = mask.detach().flatten(1)
    record[f"step/mask_{side}_mean"].append(pixels.mean(1).numpy())
    record[f"step/mask_{side}_std"].append(pixels.std(1, unbiased=False).numpy())


def build(run: str, record: Record) -> AutoMix:
    """Our method with their first weights: q's are given, and k starts as q."""
    start, end = given(f"{run}/options").tolist()
    encoder = create_encoder("resnet18", 10, "cifar", channels=(16, 32, 64, 128))
    options = load_options("automix", {"preset": "openmixup", "momentum": start, "momentum_end": end})
    method = Recorded(encoder, options=options, record=record).double().train()
    weights = {
        n.partition("init/")[2]: given(n) for n in fixture() if n.startswith(("init/", f"{run}/init/"))
    }
    weights |= {name.replace("_q.", "_k."): value for name, value in weights.items()}
    parameters = dict(method.named_parameters())
    assert parameters.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return method


def draws(run: str) -> Iterator[AutoMixDraw]:
    """λ and partners of each step; theirs are called bb (backbone, our q) and mb (Mix Block, our k)."""
    sides = [(given(f"{run}/step/lam_{side}"), given(f"{run}/step/perm_{side}")) for side in ("bb", "mb")]
    for lam_q, partners_q, lam_k, partners_k in zip(*sides[0], *sides[1], strict=True):
        yield AutoMixDraw(float(lam_q), partners_q, PairDraw(float(lam_k), partners_k))


@torch.no_grad()
def look(method: AutoMix, start: Mapping[str, Tensor], record: Record) -> None:
    """Note every tensor's norm, the norm of its change, a projection of that, and logits by all heads."""
    state, rows = method.state_dict(), []
    for name in fixture()["tensors"].tolist():
        change = (state[name] - start[name]).flatten()
        projection = change @ torch.cos(torch.arange(len(change), dtype=torch.float64))
        rows.append([state[name].norm().item(), change.norm().item(), projection.item()])
    record["tensors"].append(np.array(rows))
    probe = images("images/probe")
    for mode in ("eval", "train"):
        for side, encoder in method.encoders().items():
            encoder = copy.deepcopy(encoder).train(mode == "train")
            pooled = encoder.forward_features(probe).mean((2, 3))
            record[f"logits/{mode}_{side}_one"].append(encoder.fc(pooled).numpy())
            record[f"logits/{mode}_{side}_mix"].append(getattr(method, f"head_{side}")(pooled).numpy())


def train(run: str, steps: int) -> Record:
    """The first of 40 steps of ours, recorded as theirs are."""
    record: Record = defaultdict(list)
    method = build(run, record)
    start = {key: value.clone() for key, value in method.state_dict().items() if isinstance(value, Tensor)}
    look(method, start, record)
    del record["tensors"][0]  # nothing has changed yet
    optimizer = build_optimizer(OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=1e-4), method)
    rates = LearningRates(optimizer, ScheduleConfig(final_lr=0.05, by="epoch"), EPOCHS, lr=0.1)
    pool, labels = images("images/coefficients"), given("images/labels")
    batches = given("images/order").flatten().split(BATCH)
    checkpoints = fixture()["checkpoints"].tolist()
    for step, (rows, draw) in enumerate(zip(batches[:steps], draws(run), strict=False)):
        record["step/lr"].append(np.array(rates.set(step / STEPS)))
        output = method.step(pool[rows], labels[rows], draw)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / STEPS)
        record["step/loss"].append(output.loss.detach().numpy())
        for theirs, ours in LOSSES.items():
            record[f"step/{theirs}"].append(output.metrics[ours].numpy())
        note_masks(record, "bb", output.mask)
        if step + 1 in checkpoints:
            look(method, start, record)
    return record


def difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest, as a share of the largest value of theirs; a tensor's by its own norm and its change's."""
    if name == "tensors":
        scale = np.maximum(theirs[..., [0, 1, 1]], 1e-12)
    elif name.startswith("logits"):
        scale = np.abs(theirs).max((1, 2), keepdims=True)
    else:
        scale = np.abs(theirs).max()
    return float((np.abs(ours - theirs) / scale).max())


@pytest.mark.parametrize(
    "run, steps",
    [
        ("lively", 5),
        pytest.param("lively", STEPS, marks=pytest.mark.slow),
        pytest.param("published", STEPS, marks=pytest.mark.slow),
    ],
)
def test_steps_are_those_of_the_published_code(run: str, steps: int) -> None:
    differences = {}
    for name, values in train(run, steps).items():
        theirs = fixture()[f"{run}/{name}"][: len(values)]
        differences[name] = difference(name, np.stack(values), theirs)
    assert max(differences.values()) <= MOST, {k: v for k, v in differences.items() if not v <= MOST}
