"""The momentum pipeline: who gets whose gradient, Eq. 12 in numbers, and what λ, options and odd sizes do."""

import copy

import pytest
import torch
from torch import nn

from automix_transfer.errors import RenamedWarning, UserError
from automix_transfer.mixing import AutoMix, AutoMixOptions, build_method, load_options
from automix_transfer.mixing.automix.fast import FastAutoMix
from automix_transfer.mixing.automix.joint import JointAutoMix
from automix_transfer.mixing.automix.mix_block import MixBlock, Projected
from automix_transfer.mixing.automix.momentum import momentum_at, momentum_update
from automix_transfer.mixing.automix.step import AutoMixDraw
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.models import create_encoder


def small_encoder():
    torch.manual_seed(0)
    return create_encoder("resnet10_32", 5)


def batch(count=6, size=(32, 32)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *size, generator=generator), torch.randint(5, (count,), generator=generator)


def fixed_draw(lam_q=0.4, lam_k=0.7, count=6, skip=False):
    generator = torch.Generator().manual_seed(2)
    q, k = (PairDraw(lam, torch.randperm(count, generator=generator)) for lam in (lam_q, lam_k))
    return AutoMixDraw(q.lam, q.permutation, k, skip)


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None and p.grad.abs().sum() > 0]


class OnlyThisLoss(AutoMix):
    """AutoMix with one of its two sides switched off, to see where the other's gradients go."""

    side = "classification"

    def mixed_loss(self, mixed, labels, pairs):
        loss = super().mixed_loss(mixed, labels, pairs)
        return loss if self.side == "classification" else loss.detach()


def test_classification_loss_reaches_q_alone():
    method = OnlyThisLoss(small_encoder())
    images, labels = batch()
    method.step(images, labels, fixed_draw(skip=True)).loss.backward()
    assert gradients(method.encoder_q)
    assert not gradients(method.mix_block)
    assert not gradients(method.encoder_k)


def test_generation_loss_reaches_the_mix_block_alone():
    method = OnlyThisLoss(small_encoder(), cross_entropy=False)
    method.side = "generation"
    images, labels = batch()
    method.step(images, labels, fixed_draw()).loss.backward()
    assert gradients(method.mix_block)
    assert not gradients(method.encoder_q)
    assert not gradients(method.encoder_k)


def test_joint_training_entangles_the_gradients():
    """Table 10's first row: without the pipeline the classifier's loss does reach the Mix Block."""
    method = JointAutoMix(small_encoder(), pipeline="joint", lam_loss_weight=0.0)
    images, labels = batch()
    method.step(images, labels, fixed_draw()).loss.backward()
    assert gradients(method.mix_block) and gradients(method.encoder_q)
    assert list(method.encoders()) == ["q"]


def test_loss_is_the_sum_of_equation_8():
    method = AutoMix(small_encoder(), mask_std_floor=0.0, lam_slope=0.0)
    output = method.step(*batch(), fixed_draw())
    parts = output.metrics
    # λ_k = 0.7 and first masks of 0.5: ℓ_λ = 0.1 · (0.2 - 0.1)
    assert output.loss.item() == pytest.approx(
        sum(parts[k].item() for k in ("loss_ce", "loss_mce", "loss_gen")) + 0.1 * 0.1, abs=2e-3
    )


@pytest.mark.parametrize("buffers", ["own", "ema", "copy"])
def test_momentum_update_is_equation_12(buffers):
    k, q = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    for module in (k, q):
        for tensor in (*module.parameters(), module.running_mean, module.running_var):
            nn.init.normal_(tensor)
    q.num_batches_tracked += 7
    before = copy.deepcopy(k.state_dict())
    momentum_update(k, q, 0.9, buffers)
    for name, tensor in k.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * q.state_dict()[name]
        if name == "num_batches_tracked":
            assert tensor.item() == (0 if buffers == "own" else 7)
            continue
        if name.startswith("running"):
            expected = {"own": before[name], "ema": expected, "copy": q.state_dict()[name]}[buffers]
        assert torch.allclose(tensor, expected), name


def test_momentum_schedule_goes_from_start_to_end_in_a_cosine():
    assert momentum_at(0.0, 0.999, 1.0) == 0.999
    assert momentum_at(0.5, 0.999, 1.0) == pytest.approx(0.9995)
    assert momentum_at(1.0, 0.999, 1.0) == 1.0
    assert momentum_at(0.1, 0.999, 1.0, hold=0.1) == 0.999
    assert momentum_at(0.5, 0.0, 0.0) == 0.0


def test_zero_momentum_makes_k_a_copy_of_q():
    method = AutoMix(small_encoder(), momentum=0.0, momentum_end=0.0, k_buffers="copy")
    for p in method.encoder_q.parameters():
        p.data += 1
    method.after_step(0.5)
    for (name, a), (_, b) in zip(
        method.encoder_k.state_dict().items(), method.encoder_q.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_small_lam_falls_back_to_mixup():
    method = AutoMix(small_encoder(), small_lam=0.08)
    output = method.step(*batch(), fixed_draw(lam_q=0.05))
    assert torch.equal(output.mask, torch.full_like(output.mask, 0.05))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_extreme_lam_trains_on_one_images_label(lam):
    method = AutoMix(small_encoder(), cross_entropy=False)
    images, labels = batch()
    draw = fixed_draw(lam_q=lam)
    output = method.step(images, labels, draw)
    target = labels if lam == 1 else labels[draw.permutation]
    method.encoder_q.train()
    expected = nn.functional.cross_entropy(method.encoder_q(output.mixed), target)
    assert output.metrics["loss_mce"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("size", [(33, 47), (64, 31)])
def test_odd_and_non_square_images(size):
    images, labels = batch(size=size)
    output = AutoMix(small_encoder(), feature_layer="2")(images, labels)
    assert output.mask.shape == (6, 1, *size) and output.mixed.shape == images.shape
    output.loss.backward()


@pytest.mark.parametrize(
    "options",
    [
        {"mask": "random_grids"},
        {"lam_embedding": False},
        {"lam_loss_weight": 0.0},
        {"pipeline": "joint"},
        {"momentum": 0.0, "momentum_end": 0.0},
        {"cross_entropy": False},
        {"normalize": False, "mask_std_floor": 0.0},
        {"value": "own"},
        {"heads": "separate"},
        {"k_mode": "train", "k_buffers": "own"},
        {"mask_variance_weight": 2.0},
        {"skip_generator": 1.0},
        {"upsampling": "bilinear", "order": "upsample_sigmoid"},
        {"preset": "openmixup"},
        {"lam_loss_schedule": "cosine"},
    ],
)
def test_every_ablation_takes_two_steps(options):
    method = build_method("automix", small_encoder(), options)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        output = method(*batch(), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step((step + 1) / 2)
        assert torch.isfinite(output.loss) and "mask_std" in output.metrics


def test_separate_heads_learn_apart_and_inference_uses_the_clean_one():
    method = AutoMix(small_encoder(), heads="separate")
    method.mixed_loss(*batch(), fixed_draw()).backward()
    assert gradients(method.head_q) and method.encoder_q.fc.weight.grad is None
    method.zero_grad()
    method.clean_loss(*batch()).backward()
    assert not gradients(method.head_q) and method.encoder_q.fc.weight.grad.abs().sum() > 0


def test_same_generator_same_step():
    method = AutoMix(small_encoder(), mask="random_grids").eval()
    first, second = (method(*batch(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.loss, second.loss) and torch.equal(first.mixed, second.mixed)


def test_state_dict_brings_back_progress_and_steps():
    method, other = AutoMix(small_encoder()), AutoMix(small_encoder())
    method.after_step(0.25)
    other.load_state_dict(method.state_dict())
    assert (other.progress, other.steps) == (0.25, 1)


def test_mix_block_has_its_own_optimizer_group():
    groups = list(
        AutoMix(
            small_encoder(), mix_block_lr_scale=0.5, mix_block_lr_end=0.01, mix_block_weight_decay=0.0
        ).parameter_groups()
    )
    assert [group["lr_scale"] for group in groups] == [1.0, 0.5]
    assert (
        all(name.startswith("mix_block.") for name, _ in groups[1]["params"])
        and len(groups[1]["params"]) == 4
    )
    assert not any(name.startswith("encoder_k.") for group in groups for name, _ in group["params"])


@pytest.mark.parametrize(
    "values, words",
    [
        ({"lam_los_weight": 1}, "lam_loss_weight"),
        ({"alpha": -1}, "method.alpha"),
        ({"alpha": "two"}, "alpha"),
        ({"momentum": 2}, "method.momentum"),
        ({"preset": "nature"}, "openmixup"),
        ({"preset": "../paper"}, "method.preset"),
        ({"heads": "both"}, "method.heads"),
        ({"feature_layer": "layer9"}, "layer9"),
        ({"feature_layer": "7"}, "feature layer 7"),
        ({"feature_layer": "fc"}, "not a feature map"),
        # the classifier that is evaluated would learn nothing
        ({"preset": "openmixup", "cross_entropy": False}, "method.cross_entropy=false.*method.heads"),
        ({"heads": "separate", "clean_share": 0.0}, "method.clean_share=0.*method.heads"),
    ],
)
def test_wrong_options_are_one_sentence(values, words):
    with pytest.raises(UserError, match=words):
        build_method("automix", small_encoder(), values)


def test_presets():
    assert load_options("automix") == AutoMixOptions() == load_options("automix", {"preset": "paper"})
    published = load_options("automix", {"preset": "openmixup", "small_lam": 0.0})
    assert published.heads == "separate" and published.small_lam == 0.0


def test_a_preset_by_name_brings_its_values():
    method = AutoMix(small_encoder(), preset="openmixup_wrn", small_lam=0.0)
    assert method.options == load_options("automix", {"preset": "openmixup_wrn", "small_lam": 0.0})
    with pytest.warns(RenamedWarning, match="'paper'.*'robust'"):
        assert AutoMix(small_encoder(), preset="paper").options == AutoMixOptions()
    for wrong, words in (
        ({"preset": "nature"}, "method.preset"),
        ({"preset": "openmixup", "lam_los_weight": 1}, "lam_loss_weight"),
        ({"preset": "fast"}, "FastAutoMix"),
        # its name alone changes nothing
        ({"options": AutoMixOptions(preset="openmixup")}, "method.preset=openmixup"),
        ({"options": AutoMixOptions(), "preset": "openmixup"}, "method.preset=openmixup"),
    ):
        with pytest.raises(UserError, match=words):
            AutoMix(small_encoder(), **wrong)


class Normed(MixBlock):
    """A Mix Block of one's own: what is not linear in z after W_P, so λ cannot be added later."""

    def __init__(self, channels):
        super().__init__(channels, init_std=1.0)
        self.norm = nn.GroupNorm(1, channels // 2)

    def project(self, z):
        projected = super().project(z)
        return Projected(self.norm(projected.similarity).relu(), projected.value)


class Plain(nn.Module):
    """One that shares no line with ours: projects to a tensor, and compares both images cell by cell."""

    def __init__(self, channels):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 1, 1, bias=False)
        )

    def project(self, z):
        return self.mlp(z)

    def pair_mask(self, z_i, z_j, lam, size):
        return nn.functional.interpolate(torch.sigmoid(z_i - z_j + 4 * (lam - 0.5)), size=size)


@pytest.mark.parametrize("kind", [Normed, Plain])
def test_a_mix_block_of_ones_own_learns(kind):
    method = AutoMix(small_encoder(), kind(128))
    before = copy.deepcopy(method.mix_block.state_dict())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        output = method(*batch(), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step((step + 1) / 3)
        assert torch.isfinite(output.loss) and output.mask.shape == (6, 1, 32, 32)
    assert all(not torch.equal(value, before[name]) for name, value in method.mix_block.state_dict().items())
    assert len(list(method.parameter_groups())) == 2


@pytest.mark.parametrize(
    "options", [{}, {"mask": "random_grids"}, {"preset": "openmixup"}, {"preset": "fast"}]
)
def test_a_draw_is_replayed(options):
    """`mix` is a pure function of images, labels and draw, and gives what the step gave."""
    method, (images, labels) = build_method("automix", small_encoder(), options), batch()
    draw = method.draw(6, (32, 32), torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    first, second = (method.mix(images, labels, draw) for _ in range(2))
    output = method.step(images, labels, draw)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.images, second.images) and torch.equal(first.mask, second.mask)
    assert torch.equal(first.images, output.mixed) and torch.equal(first.mask, output.mask)
    other = method.draw(6, (32, 32), torch.Generator().manual_seed(3), lam=0.25)
    assert other.lam == 0.25 and torch.equal(other.permutation, draw.permutation) and other.seed == draw.seed


@pytest.mark.parametrize(
    "options, key, kind",
    [
        ({"mixed_share": 0.5}, "method.mixed_share", FastAutoMix),
        ({"pipeline": "joint"}, "method.pipeline", JointAutoMix),
    ],
)
def test_options_of_a_subclass_name_it(options, key, kind):
    with pytest.raises(UserError, match=f"{key}.*{kind.__name__}"):
        AutoMix(small_encoder(), **options)
    assert type(build_method("automix", small_encoder(), options)) is kind
    assert type(kind(small_encoder(), **options)) is kind


def test_an_option_that_is_gone_is_passed_over_where_it_changed_nothing():
    gone = {"generator_every": 1, "generator_scale": 1.0, "features_from": "k", "early_backward": False}
    assert load_options("automix", gone) == AutoMixOptions()
    for key, value in (("generator_every", 4), ("features_from", "q"), ("mask_std_weight", 0.5)):
        with pytest.raises(UserError, match=key):
            load_options("automix", {key: value})
