"""Schedules and optimizers."""

from __future__ import annotations

import math

import pytest
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.mixing import AutoMix
from automix_transfer.mixing.average import Averaged
from automix_transfer.mixing.base import Method
from automix_transfer.mixing.methods.vanilla import Vanilla
from automix_transfer.models import create_encoder
from automix_transfer.models.depth import layers_by_depth
from automix_transfer.training.optimizers import build_optimizer, groups_table
from automix_transfer.training.schedule import LearningRates, build_schedule
from automix_transfer.training.settings import OptimizerConfig, ScheduleConfig


class TwoParts(Method):
    """An encoder and a part with a rate of its own, as AutoMix has."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.extra = nn.Linear(4, 4)

    def encoders(self):
        return {"encoder": self.encoder}

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


@pytest.mark.parametrize(
    "name", ["deit_small_patch16_224", "swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224"]
)
def test_weight_decay_of_what_timm_leaves_out(name: str) -> None:
    """As timm divides the parameters for its own optimizers; behind a moving average of the weights too."""
    encoder = create_encoder(name, 4)
    theirs = param_groups_weight_decay(encoder, 0.05, no_weight_decay_list=encoder.no_weight_decay())
    expected = {group["weight_decay"]: {id(p) for p in group["params"]} for group in theirs}
    for method in (Vanilla(encoder), Averaged(Vanilla(encoder), 0.99)):
        ours = build_optimizer(OptimizerConfig(name="adamw", weight_decay=0.05), method).param_groups
        assert {group["weight_decay"]: {id(p) for p in group["params"]} for group in ours} == expected


@pytest.mark.parametrize("name", ["resnet18", "deit_small_patch16_224", "convnext_atto"])
def test_rates_fall_with_depth_as_timms(name: str) -> None:
    encoder = create_encoder(name, 4)
    exempt = encoder.no_weight_decay() if hasattr(encoder, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(encoder, 0.05, no_weight_decay_list=exempt, layer_decay=0.7)
    config = OptimizerConfig(name="adamw", lr=0.5, weight_decay=0.05, layer_decay=0.7)
    for method in (Vanilla(encoder), Averaged(Vanilla(encoder), 0.99)):
        optimizer = build_optimizer(config, method)
        ours, expected = (
            {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
            for groups in (optimizer.param_groups, theirs)
        )
        assert ours == expected and len(ours) == len(list(encoder.parameters()))
        assert (
            LearningRates(optimizer, ScheduleConfig(), 4, 0.5).set(0.0) == 0.5
        )  # the classifier's is logged
        scales = {group["lr_scale"] for group in optimizer.param_groups}
        assert len(groups_table(optimizer, 0.5).splitlines()) == 2 + len(optimizer.param_groups)
        assert f"{0.5 * min(scales):.4g}" in groups_table(optimizer, 0.5)


@pytest.mark.parametrize("name", ["cifar_resnet14", "wrn_10_1", "torchvision/resnet18", "resnet10_32"])
def test_rates_fall_with_depth_in_other_resnets(name: str) -> None:
    layers = layers_by_depth(create_encoder(name, 4), "it")
    blocks = {key.split(".conv")[0] for key in layers if key[:5] in ("layer", "block") and ".conv" in key}
    assert set(layers.values()) == set(range(len(blocks) + 2))  # the stem, the blocks, the classifier
    numbers = list(layers.values())
    assert layers["conv1.weight"] == 0 and numbers[-1] == max(numbers) and numbers == sorted(numbers)


def test_rates_of_automix_fall_in_its_encoder_only() -> None:
    method = AutoMix(create_encoder("resnet10_32", 4))
    groups = build_optimizer(OptimizerConfig(layer_decay=0.5), method).param_groups
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert scale[id(method.encoder_q.conv1.weight)] == 0.5**5 and scale[id(method.encoder_q.fc.bias)] == 1
    assert {scale[id(p)] for p in method.mix_block.parameters()} == {method.options.mix_block_lr_scale}
    with pytest.raises(UserError, match="optimizer.layer_decay=0.5"):
        squeezed = Vanilla(create_encoder("torchvision/squeezenet1_1", 4))
        build_optimizer(OptimizerConfig(layer_decay=0.5), squeezed)


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
