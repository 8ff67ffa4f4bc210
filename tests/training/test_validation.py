from __future__ import annotations

import torch
from torch import nn

from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.training.distributed import World
from automix_transfer.training.validation import evaluate

CPU = World(0, 1, torch.device("cpu"))


class Given(nn.Module):
    """Images are the logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_counts_by_hand_with_an_uneven_last_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(23, 9, generator=generator), torch.randint(9, (23,), generator=generator)
    batches = [(logits[i : i + 5], labels[i : i + 5], None) for i in range(0, 23, 5)]
    found = evaluate(Given(), batches, CPU)
    order = logits.argsort(dim=1, descending=True)
    assert found["top1"] == 100 * sum(int(order[i, 0] == labels[i]) for i in range(23)) / 23
    assert found["top5"] == 100 * sum(int(labels[i] in order[i, :5]) for i in range(23)) / 23
    assert abs(found["loss"] - float(nn.functional.cross_entropy(logits, labels))) < 1e-6


def test_fewer_than_five_classes() -> None:
    assert evaluate(Given(), [(torch.eye(3), torch.tensor([0, 1, 0]), None)], CPU)["top5"] == 100


def test_modes_come_back() -> None:
    encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    encoder.train()
    encoder[0].eval()
    with eval_mode(encoder):
        assert not any(module.training for module in encoder.modules())
    assert (encoder.training, encoder[0].training, encoder[1].training) == (True, False, True)


def test_evaluation_changes_nothing() -> None:
    encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    evaluate(
        encoder, [(torch.randn(5, 3, 2, 2), torch.zeros(5, dtype=torch.long), None)], CPU, precision="bf16"
    )
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
