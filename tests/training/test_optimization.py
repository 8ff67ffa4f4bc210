"""Schedules and optimizers."""

from __future__ import annotations

import math

import pytest
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from automix_transfer.mixing import AutoMix
from automix_transfer.mixing.average import Averaged
from automix_transfer.mixing.base import Method
from automix_transfer.mixing.methods.vanilla import Vanilla
from automix_transfer.models import create_encoder
from automix_transfer.training.optimizers import build_optimizer
from automix_transfer.training.schedule import LearningRates, build_schedule
from automix_transfer.training.settings import OptimizerConfig, ScheduleConfig


class TwoParts(Method):
    """An encoder and a part with a rate of its own, as AutoMix has."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.extra = nn.Linear(4, 4)

    def parameter_groups(self):
        yield {
            "params": list(self.encoder.named_parameters()),
            "lr_scale": 1.0,
            "lr_end": None,
            "weight_decay": None,
        }
        yield {
            "params": list(self.extra.named_parameters()),
            "lr_scale": 10.0,
            "lr_end": 0.05,
            "weight_decay": 0.0,
        }


def test_cosine_is_the_formula() -> None:
    schedule = build_schedule(ScheduleConfig(final_lr=0.01), epochs=10, lr=0.1)
    for progress in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert schedule(progress) == pytest.approx(0.01 + 0.5 * 0.09 * (1 + math.cos(math.pi * progress)))


def test_warmup_is_linear_and_then_a_whole_cosine() -> None:
    schedule = build_schedule(ScheduleConfig(warmup_epochs=2, warmup_lr=0.001), epochs=10, lr=0.1)
    assert schedule(0.0) == pytest.approx(0.001)
    assert schedule(0.1) == pytest.approx((0.001 + 0.1) / 2)
    assert schedule(0.2) == pytest.approx(0.1)
    assert schedule(0.6) == pytest.approx(0.05)
    assert schedule(1.0) == pytest.approx(0.0, abs=1e-9)


def test_groups_have_their_own_rates() -> None:
    optimizer = build_optimizer(OptimizerConfig(lr=0.001), TwoParts())
    rates = LearningRates(optimizer, ScheduleConfig(), epochs=10, lr=0.001)
    assert rates.set(0.0) == pytest.approx(0.001)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])
    rates.set(1.0)
    # CUB's rates in the published code
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0, 5e-4])


def test_a_rate_by_epoch_is_constant_within_each() -> None:
    """As mmcv's cosine; the warm-up rises with every step there too."""
    optimizer = build_optimizer(OptimizerConfig(lr=0.1), TwoParts())
    by_step = LearningRates(optimizer, ScheduleConfig(), epochs=100, lr=0.1)
    begins = [by_step.set(epoch / 100) for epoch in range(100)]
    rates = LearningRates(optimizer, ScheduleConfig(by="epoch"), epochs=100, lr=0.1)
    assert [rates.set(step / 700) for step in range(700)] == [lr for lr in begins for _ in range(7)]
    warm = ScheduleConfig(by="epoch", warmup_epochs=2, warmup_lr=0.0)
    rates = LearningRates(optimizer, warm, epochs=10, lr=0.1)
    assert [rates.set(step / 20) for step in range(4)] == pytest.approx([0.0, 0.025, 0.05, 0.075])
    assert rates.set(0.2) == rates.set(0.25) == pytest.approx(0.1)


def test_a_group_has_its_own_momentum() -> None:
    method = AutoMix(create_encoder("resnet10_32", 3), mix_block_momentum=0.0)
    optimizer = build_optimizer(OptimizerConfig(), method)
    block = {id(p) for p in method.mix_block.parameters()}
    for group in optimizer.param_groups:
        assert group["momentum"] == (0.0 if id(group["params"][0]) in block else 0.9)
    assert all("momentum" not in g for g in build_optimizer(OptimizerConfig("adamw"), method).param_groups)


@pytest.mark.parametrize(
    ("name", "setting", "skipped"),
    [
        ("sgd", "auto", False),
        ("sgd", "no", True),
        ("adamw", "auto", True),
        ("lamb", "auto", True),
        ("adamw", "yes", False),
    ],
)
def test_weight_decay_of_norms_and_biases(name: str, setting: str, skipped: bool) -> None:
    method = TwoParts()
    optimizer = build_optimizer(
        OptimizerConfig(name=name, weight_decay=0.1, decay_norm_and_bias=setting), method
    )
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(method.encoder[0].weight)] == 0.1
    assert decay[id(method.encoder[1].weight)] == (0.0 if skipped else 0.1)
    assert decay[id(method.extra.weight)] == 0.0
    assert len(decay) == len(list(method.parameters()))


@pytest.mark.parametrize("name", ["deit_small_patch16_224", "swin_tiny_patch4_window7_224"])
def test_weight_decay_of_what_timm_leaves_out(name: str) -> None:
    """As timm divides the parameters for its own optimizers; behind a moving average of the weights too."""
    encoder = create_encoder(name, 4)
    theirs = param_groups_weight_decay(encoder, 0.05, no_weight_decay_list=encoder.no_weight_decay())
    expected = {group["weight_decay"]: {id(p) for p in group["params"]} for group in theirs}
    for method in (Vanilla(encoder), Averaged(Vanilla(encoder), 0.99)):
        ours = build_optimizer(OptimizerConfig(name="adamw", weight_decay=0.05), method).param_groups
        assert {group["weight_decay"]: {id(p) for p in group["params"]} for group in ours} == expected


def test_lamb_does_not_clip() -> None:
    """RSB has no clipping; timm's Lamb clips at 1 unless told otherwise."""
    optimizer = build_optimizer(OptimizerConfig(name="lamb"), TwoParts())
    assert optimizer.defaults["max_grad_norm"] is None
    assert all(group["max_grad_norm"] is None for group in optimizer.param_groups)


def test_sgd_is_torchs() -> None:
    """One step by hand: v = g + wd * w, w -= lr * v."""
    method = TwoParts()
    optimizer = build_optimizer(OptimizerConfig(lr=0.5, weight_decay=0.1), method)
    weight = method.encoder[0].weight
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert torch.allclose(weight, before - 0.5 * (1 + 0.1 * before))
