"""Gradient checkpointing changes memory, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.mixing import Method, build_method
from automix_transfer.models.checkpointing import checkpoint_blocks, update_once
from automix_transfer.models.encoders import EncoderInfo, create_encoder
from automix_transfer.models.taps import features
from automix_transfer.training.validation import autocast

CPU = torch.device("cpu")


def stepped(name: str, method: str, checkpointing: bool, precision: str = "fp32", **options: Any) -> Method:
    """A method after one backward pass on 4 images of 32 px."""
    torch.manual_seed(0)
    info = EncoderInfo(name, 3, image_size=32)
    encoder = info.build(**options)
    if checkpointing:
        checkpoint_blocks(encoder, name)
    built = build_method(method, encoder, {}, info).train()
    if checkpointing:
        update_once(built)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    torch.manual_seed(5)  # of stochastic depth
    with autocast(CPU, precision):
        output = built(images, labels, torch.Generator().manual_seed(1))
    output.loss.backward()
    built.register_buffer("loss", output.loss.detach())
    return built


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("resnet10_32", "vanilla", {"drop_path_rate": 0.5}),
        ("resnet10_32", "puzzlemix", {}),
        ("resnet10_32", "automix", {}),
        ("convnext_atto", "mixup", {"drop_path_rate": 0.3}),
        ("vit_tiny_patch16_224", "cutmix", {}),
    ],
)
def test_gradients_and_statistics_are_the_same(name: str, method: str, options: dict[str, Any]) -> None:
    plain, checkpointed = (stepped(name, method, on, **options) for on in (False, True))
    found = dict(checkpointed.named_parameters())
    for key, parameter in plain.named_parameters():
        assert (parameter.grad is None) == (found[key].grad is None), key
        assert parameter.grad is None or torch.equal(parameter.grad, found[key].grad), key
    buffers = dict(checkpointed.named_buffers())
    for key, buffer in plain.named_buffers():
        assert torch.equal(buffer, buffers[key]), key
    if name == "resnet10_32":
        assert int(checkpointed.inference_encoder().bn1.num_batches_tracked) <= 1  # type: ignore[union-attr]


def test_lower_precision_is_repeated_in_lower_precision() -> None:
    plain, checkpointed = (stepped("resnet10_32", "mixup", on, "bf16") for on in (False, True))
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


def test_without_the_hooks_batches_would_count_twice() -> None:
    """What `update_once` is for; it also survives a repetition that ends by an exception."""
    counted = []
    for hooked in (False, True):
        encoder = create_encoder("resnet10_32", 3).train()
        checkpoint_blocks(encoder, "resnet10_32")
        if hooked:
            update_once(encoder)
        for _ in range(2):
            encoder(torch.randn(2, 3, 32, 32)).sum().backward()
        counted.append(int(encoder.layer1[0].bn1.num_batches_tracked))  # type: ignore[index, union-attr]
    assert counted == [4, 2]


def test_taps_read_a_checkpointed_network() -> None:
    encoder, images = create_encoder("resnet10_32", 3).eval(), torch.randn(2, 3, 32, 32)
    expected = features(encoder, images, "layer3")
    checkpoint_blocks(encoder, "resnet10_32")
    assert torch.equal(features(encoder, images, "layer3"), expected)
    assert encoder.grad_checkpointing is True


@pytest.mark.parametrize("name", ["cifar_resnet8", "wrn_10_1", "torchvision/squeezenet1_1", "dla34"])
def test_encoders_without_it_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*encoder.checkpointing"):
        checkpoint_blocks(create_encoder(name, 3), name)
