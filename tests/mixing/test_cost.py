"""What a step costs, counted by torch's FLOP counter: at most 2.95 (32 px) and 3.0 (224 px) vanilla steps for ResNet-18."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from automix_transfer.mixing import build_method
from automix_transfer.models import create_encoder


def step_flops(name, stem, size):
    method = build_method(name, create_encoder("resnet18", 100, stem))
    images, labels = torch.randn(2, 3, size, size), torch.tensor([0, 1])
    with FlopCounterMode(display=False) as counter:
        method(images, labels, torch.Generator().manual_seed(0)).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("stem, size, most", [("cifar", 32, 2.95), ("imagenet", 224, 3.0)])
def test_a_step_costs_at_most(stem, size, most):
    ratio = step_flops("automix", stem, size) / step_flops("vanilla", stem, size)
    assert 2.5 < ratio <= most
