"""A linear probe and nearest neighbours against a general optimizer and against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from automix_transfer.evaluation.probing.classifiers import (
    held_out_part,
    linear_probe,
    nearest_neighbours,
    top1,
)
from automix_transfer.evaluation.probing.features import Features


def clusters(count: int = 90, classes: int = 3, seed: int = 0) -> Features:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, 5, generator=rng)
    values = centres[labels] + torch.randn(count, 5, generator=rng)
    return Features(torch.cat([values, torch.ones(count, 1)], 1), labels)  # one feature is constant


def test_linear_probe_is_the_minimum_that_scipy_finds() -> None:
    train, decay = clusters(), 0.01
    model = linear_probe(train, 3, [decay])
    values, labels = train.values.double().numpy(), train.labels.numpy()
    std = values.std(0)
    values = (values - values.mean(0)) / np.where(std == 0, 1, std)

    def loss(parameters: np.ndarray) -> float:
        weight, bias = parameters[:18].reshape(3, 6), parameters[18:]
        logits = values @ weight.T + bias
        entropy = (logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean()
        return float(entropy + decay / 2 * (weight**2).sum())

    found = minimize(loss, np.zeros(21), tol=1e-10)
    ours = np.concatenate([model.weight.double().numpy().ravel(), model.bias.double().numpy()])
    assert loss(ours) == pytest.approx(found.fun, abs=1e-7)
    assert np.abs(ours[:18] - found.x[:18]).max() < 1e-3


def test_the_weight_decay_is_chosen_on_held_out_training_images() -> None:
    train = clusters(300, seed=1)
    model = linear_probe(train, 3)
    assert model.held_out[model.weight_decay] == max(model.held_out.values())
    again = linear_probe(train, 3)
    assert torch.equal(model.weight, again.weight)  # nothing is drawn


def test_every_fifth_image_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 11 + [1] * 4)
    assert held_out_part(labels).nonzero().flatten().tolist() == [4, 9]


def test_a_feature_that_only_rounding_moves_counts_as_constant() -> None:
    train = clusters(90, seed=2)
    moved = train.values.clone()
    moved[0, 5] = torch.nextafter(moved[0, 5], torch.tensor(2.0))
    test = torch.cat([clusters(40, seed=4).values[:, :5], torch.full((40, 1), 1.5)], 1)
    logits = [
        linear_probe(Features(values, train.labels), 3, [0.01]).logits(test)
        for values in (train.values, moved)
    ]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-3, rtol=1e-3)


def test_nearest_neighbours_that_are_far_have_votes_at_any_temperature() -> None:
    train = Features(torch.eye(3), torch.tensor([0, 1, 2]))
    far = torch.tensor([[-1.0, -1.0, -0.5], [-1.0, -0.5, -1.0]])
    assert nearest_neighbours(train, far, 3, k=3, temperature=0.001).tolist() == [2, 1]


def test_nearest_neighbours_equal_a_loop() -> None:
    train, test = clusters(60), clusters(17, seed=3)
    found = nearest_neighbours(train, test.values, 3, k=7, temperature=0.1)
    bank = train.values / train.values.norm(dim=1, keepdim=True)
    for value, predicted in zip(test.values, found, strict=True):
        similar = bank @ (value / value.norm())
        votes = [0.0, 0.0, 0.0]
        for index in similar.argsort(descending=True)[:7]:
            votes[int(train.labels[index])] += float((similar[index] / 0.1).exp())
        assert int(predicted) == int(np.argmax(votes))
    assert top1(found, test.labels) > 50
