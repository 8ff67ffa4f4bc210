"""What holds for every method: two steps, one draw one result, odd batches, half precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from automix_transfer.mixing import METHODS
from tests.mixing.tiny_methods import EVERY, PAIRED, SIZE, batch, tiny_method


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", EVERY)
def test_two_steps_lower_nothing_but_run(name: str) -> None:
    method = tiny_method(name)
    images, labels = batch(method)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    before = [p.detach().clone() for p in method.inference_encoder().parameters()]
    for step in range(2):
        output = method(images, labels, rng(step))
        assert output.loss.ndim == 0 and torch.isfinite(output.loss)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step((step + 1) / 2)
    assert any((p != q).any() for p, q in zip(method.inference_encoder().parameters(), before, strict=True))
    assert method.inference_encoder() is next(iter(method.encoders().values()))
    grouped = {name for group in method.parameter_groups() for name, _ in group["params"]}
    assert grouped == {name for name, p in method.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", EVERY)
def test_one_draw_one_result_and_masks_are_shares(name: str) -> None:
    method = tiny_method(name)
    images, labels = batch(method)
    before = images.clone()
    first, second = (method.eval()(images, labels, rng(3)) for _ in range(2))
    assert torch.equal(first.loss, second.loss) and torch.equal(images, before)
    if first.mixed is not None:
        assert torch.equal(first.mixed, second.mixed) and torch.equal(first.mask, second.mask)
        assert first.mixed.shape == (6, 3, SIZE, SIZE) and first.mask.shape == (6, 1, SIZE, SIZE)
        assert first.mask.min() >= 0 and first.mask.max() <= 1 + 1e-6
        # there the partner is moved, or there are several
        if name not in ("resizemix", "puzzlemix", "comixup"):
            partner = images[first.permutation]
            assert torch.allclose(first.mixed, first.mask * images + (1 - first.mask) * partner, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_two_of_one_class_under_autocast(name: str) -> None:
    method = tiny_method(name)
    images, labels = batch(method, count=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(images, torch.zeros_like(labels), rng(1))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    # half precision is for the network, not for the images
    assert output.mixed is None or output.mixed.dtype == images.dtype


@pytest.mark.parametrize("name", EVERY)
def test_autocast_reaches_the_network_and_nothing_else(name: str) -> None:
    """A step under bfloat16, of networks whose layers stay in float32 all the same, is that of float32 bit
    for bit: losses, gradients, and all that any layer sees. In AutoMix W_P is one of the layers that autocast
    is for, so its masks differ by what that rounds."""
    for seed in range(3):  # both sides of every coin
        plain, half = (traced_step(name, seed, autocast) for autocast in (False, True))
        assert len(plain) == len(half)
        for a, b in zip(plain, half, strict=True):
            tolerance = 0.02 if name == "automix" else 0.0
            torch.testing.assert_close(b, a, rtol=0, atol=tolerance * float(a.abs().max()))


def traced_step(name: str, seed: int, autocast: bool) -> list[torch.Tensor]:
    """What each layer's inputs were in a step (SuperMix: and in its mixing), the loss and the gradients."""
    lively = {
        "alignmix": {"feature_layer": "2", "align_probability": 1.0},  # 4×4 places
        "automix": {"similarity_std": 0.3, "init_std": 1.0},
    }
    method = tiny_method(name, **lively.get(name, {}))
    networks = [*method.encoders().values()]
    if hasattr(method, "teacher"):
        networks.append(method.teacher.network)
    seen: list[torch.Tensor] = []
    for layer in (layer for network in networks for layer in network.modules()):
        if not list(layer.children()) or hasattr(layer, "num_heads"):
            layer.forward = in_float32(layer.forward)  # and the hooks on it outside
        layer.register_forward_pre_hook(
            lambda _layer, inputs: seen.extend(part.detach() for part in inputs if torch.is_tensor(part))
        )
    images, labels = batch(method)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = method(images, labels, rng(seed))
        if METHODS[name].offline:
            method.mix(images, labels, method.draw(6, (SIZE, SIZE), rng(seed)))
    output.loss.backward()
    return [*seen, output.loss.detach(), *(p.grad for p in method.parameters() if p.grad is not None)]


def in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    def without_autocast(*arguments: Any, **named: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(*arguments, **named)

    return without_autocast


@pytest.mark.parametrize("name", PAIRED)
def test_lam_of_one_gives_the_image_back(name: str) -> None:
    """λ → 1: the image, its own label, also where shares come from saliency: AttentiveMix with λ's cells."""
    method = tiny_method(
        name, **({"cells": 0} if name == "attentivemix" else {"layers": [0]} if name == "manifoldmix" else {})
    )
    images, labels = batch(method)
    draw = method.draw(6, (SIZE, SIZE), rng(), lam=1.0)
    mixed = method.mix(images, labels, draw)
    assert torch.equal(mixed.images, images)
    assert torch.allclose(torch.as_tensor(mixed.lam, dtype=torch.float32), torch.tensor(1.0))


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_masks_and_labels_agree_with_half_precision_images(name: str, size: tuple[int, int]) -> None:
    if name == "transmix" and size != (32, 32):
        pytest.skip("this transformer takes one size")
    method = tiny_method(name)
    images, labels = batch(method, size=size)
    draw = method.draw(6, size, rng(), lam=0.5)
    full = method.mix(images, labels, draw)
    if name not in ("puzzlemix", "attentivemix"):  # these look at the images through a network
        half = method.mix(images.half(), labels, draw)
        assert half.images.dtype == torch.float16 and torch.allclose(
            half.images.float(), full.images, atol=2e-3
        )
    lam = torch.as_tensor(full.lam, dtype=torch.float32).expand(6)
    area = full.mask.float().mean(dim=(1, 2, 3))
    # FMix rounds the area, not the label
    assert torch.allclose(lam, area, atol=1 / (size[0] * size[1]) + 1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_options_are_documented_and_plain(name: str) -> None:
    """Defaults survive being written to a recipe and read back, and every field is explained in the docstring
    or beside it."""
    schema = METHODS[name].options_class()
    assert schema.__doc__ and not schema.__doc__.startswith(f"{schema.__name__}(")
    for field in dataclasses.fields(schema):
        value = getattr(schema(), field.name)
        assert isinstance(value, (bool, int, float, str, list, tuple, type(None)))


@pytest.mark.parametrize("name", EVERY)
def test_class_weights_reach_every_cross_entropy(name: str) -> None:
    method = tiny_method(name).eval()
    images, labels = batch(method)
    plain = method(images, labels, rng(2))
    classes = method.inference_encoder()(images[:1, :3]).shape[1]
    method.weigh_classes(torch.ones(classes))
    torch.testing.assert_close(method(images, labels, rng(2)).loss, plain.loss)
    method.weigh_classes(torch.zeros(classes))
    metrics = method(images, labels, rng(2)).metrics
    entropies = [key for key in metrics if key in ("loss_ce", "loss_mce", "loss_gen")]
    assert entropies and all(metrics[key] == 0 for key in entropies)


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVERY)
def test_on_a_gpu_with_the_draws_of_the_cpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    method = tiny_method(name).eval()
    images, labels = batch(method)
    alone = method(images, labels, rng(2))
    output = method.cuda()(images.cuda(), labels.cuda(), rng(2))
    output.loss.backward()
    assert output.loss.item() == pytest.approx(alone.loss.item(), abs=0.05)
    # their masks hang on gradients, whose last bits differ
    if alone.mixed is not None and name not in ("puzzlemix", "comixup"):
        assert output.mixed.is_cuda and torch.allclose(output.mixed.cpu(), alone.mixed, atol=1e-3)
