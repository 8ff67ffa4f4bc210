"""A method as a function of a batch: what its own step mixes and what its loss says, in anybody's loop."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from automix_transfer.errors import UserError
from automix_transfer.mixing import METHODS, build_method, transform
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.models.encoders import EncoderInfo
from tests.mixing.tiny_methods import CLASSES, SIZE, tiny_resnet

TRANSFORMS = [name for name, entry in METHODS.items() if not entry.no_transform]
OPTIONS: dict[str, dict[str, Any]] = {
    "comixup": {"partition": 3},
    "attentivemix": {"teacher_layer": "2", "teacher_size": 64},
}
IMAGES = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % CLASSES


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return tiny_resnet().train()


def asked(name: str) -> dict[str, Any]:
    """The options of a transform, and the network where the method asks one."""
    return OPTIONS.get(name, {}) | ({"encoder": network()} if METHODS[name].needs else {})


def own_method(name: str, **options: Any) -> Any:
    """The method as its own step has it, around the same network; without a loss on clean images."""
    encoder, info = network().eval(), EncoderInfo("tiny", CLASSES, image_size=SIZE)
    if hasattr(METHODS[name].options_class(), "clean_weight"):
        options["clean_weight"] = 0.0
    parts = {"teacher": Teacher(encoder, info)} if name == "attentivemix" else {}
    return build_method(name, encoder, OPTIONS.get(name, {}) | options, info, **parts)


def test_the_six_and_the_three_are_transforms() -> None:
    plain = {"vanilla", "mixup", "cutmix", "mixup_cutmix", "saliencymix", "fmix", "resizemix"}
    assert plain == {name for name in TRANSFORMS if not METHODS[name].needs}
    assert set(TRANSFORMS) - plain == {"puzzlemix", "comixup", "attentivemix"}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("smoothing", [None, 0.2])
def test_images_and_loss_are_those_of_the_methods_own_step(name: str, smoothing: float | None) -> None:
    options = {} if smoothing is None else {"smoothing": smoothing}
    method = own_method(name, **options)
    mix = transform(name, CLASSES, generator=rng(4), **asked(name), **options)
    generator = rng(4)
    for _ in range(3):
        output = method(IMAGES, LABELS, generator)
        images, targets = mix(IMAGES, LABELS)
        assert torch.equal(images, IMAGES if output.mixed is None else output.mixed)
        assert targets.shape == (6, CLASSES) and targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        with torch.no_grad():
            loss = SoftTargetCrossEntropy()(method.encoder(images), targets)
        torch.testing.assert_close(loss, output.loss.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resizemix", "saliencymix", "comixup"])
def test_binary_cross_entropy_is_the_methods_too(name: str) -> None:
    method = own_method(name, loss="bce", bce_threshold=-1.0)
    images, targets = transform(name, CLASSES, generator=rng(), **asked(name))(IMAGES, LABELS)
    loss = functional.binary_cross_entropy_with_logits(method.encoder(images), targets)
    torch.testing.assert_close(loss, method(IMAGES, LABELS, rng()).loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_labels_may_be_vectors(name: str) -> None:
    one_hot = functional.one_hot(LABELS, CLASSES)
    expected = transform(name, CLASSES, generator=rng(), **asked(name))(IMAGES, LABELS)
    for vectors in (one_hot, one_hot.float(), one_hot.bool()):
        found = transform(name, CLASSES, generator=rng(), **asked(name))(IMAGES, vectors)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_several_classes_of_an_image_keep_their_shares(name: str) -> None:
    """A class that every image has stays whole, one that none has stays 0."""
    vectors = (torch.rand(6, CLASSES, generator=rng()) < 0.5).float()
    vectors[:, 0], vectors[:, 1] = 1, 0
    _, targets = transform(name, CLASSES, generator=rng(2), smoothing=0.0, **asked(name))(IMAGES, vectors)
    torch.testing.assert_close(targets[:, 0], torch.ones(6))
    assert (targets[:, 1] == 0).all() and (targets <= 1 + 1e-6).all()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_networks_state_and_the_images_are_left_alone(name: str) -> None:
    given = asked(name)
    encoder, before = given.get("encoder", network()), IMAGES.clone()
    encoder.layer1.eval()
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    images, targets = transform(name, CLASSES, **given)(IMAGES, LABELS)
    assert torch.equal(IMAGES, before) and not images.requires_grad and not targets.requires_grad
    assert encoder.training and encoder.layer2.training and not encoder.layer1.training
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in encoder.parameters())


def test_without_a_generator_draws_are_torchs_own_and_a_copy_draws_alike() -> None:
    mix = pickle.loads(pickle.dumps(transform("resizemix", CLASSES)))
    torch.manual_seed(7)
    first = mix(IMAGES, LABELS)
    torch.manual_seed(7)
    second, third = mix(IMAGES, LABELS), mix(IMAGES, LABELS)
    assert torch.equal(first[0], second[0]) and not torch.equal(second[0], third[0])
    expected = transform("resizemix", CLASSES, generator=rng(7))(IMAGES, LABELS)
    assert torch.equal(first[0], expected[0]) and torch.equal(first[1], expected[1])


def test_a_coin_and_timms_switch_leave_the_batch_as_it_is() -> None:
    never = transform("cutmix", CLASSES, probability=0.0, smoothing=0.1)
    switched = transform("cutmix", CLASSES, smoothing=0.1)
    switched.mixup_enabled = False
    for mix in (never, switched):
        images, targets = mix(IMAGES, LABELS)
        assert images is IMAGES
        torch.testing.assert_close(targets, 0.9 * functional.one_hot(LABELS, CLASSES) + 0.1 / CLASSES)


def test_the_normalisation_is_what_saliency_sees() -> None:
    """Images in other units give the same boxes, where mean and std say so."""
    pixels = torch.rand(6, 3, SIZE, SIZE, generator=rng())
    plain = transform("saliencymix", CLASSES, generator=rng(3), mean=(0, 0, 0), std=(1, 1, 1))
    scaled = transform("saliencymix", CLASSES, generator=rng(3), mean=(0.5, 0.5, 0.5), std=(0.25,) * 3)
    images, targets = plain(pixels, LABELS)
    others, same = scaled((pixels - 0.5) / 0.25, LABELS)
    torch.testing.assert_close(others * 0.25 + 0.5, images)
    assert torch.equal(targets, same)


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return transform("mixup", CLASSES)(*default_collate(samples))


def test_as_a_collate_function() -> None:
    loader = DataLoader(list(zip(IMAGES, LABELS.tolist(), strict=True)), batch_size=3, collate_fn=collate)
    assert [(images.shape, targets.shape) for images, targets in loader] == [
        ((3, 3, SIZE, SIZE), (3, CLASSES))
    ] * 2


def test_beside_torchvisions_own_in_a_collate_function() -> None:
    """Behind its transforms of single images, and as one choice of its `RandomChoice`."""
    single = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=[0.5] * 3, std=[0.25] * 3)]
    )
    pictures = (IMAGES * 40 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    samples = [(single(picture), int(label)) for picture, label in zip(pictures, LABELS, strict=True)]
    mix = transform("resizemix", CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)
    either = v2.RandomChoice([mix, v2.CutMix(num_classes=CLASSES)])
    loader = DataLoader(samples, batch_size=2, collate_fn=lambda batch: either(*default_collate(batch)))
    for images, targets in loader:
        assert images.shape == (2, 3, SIZE, SIZE) and targets.shape == (2, CLASSES)
        torch.testing.assert_close(targets.sum(1), torch.ones(2))
    torch.manual_seed(3)
    images, targets = mix(*default_collate(samples))
    expected = transform("resizemix", CLASSES, generator=rng(3))(
        torch.stack([image.as_subclass(Tensor) for image, _ in samples]), LABELS
    )
    assert torch.equal(images.as_subclass(Tensor), expected[0]) and torch.equal(targets, expected[1])


@pytest.mark.slow
def test_a_generator_is_refused_in_workers_where_it_would_repeat_itself() -> None:
    mix = transform("mixup", CLASSES, generator=rng())
    samples = list(zip(IMAGES, LABELS.tolist(), strict=True))
    loader = DataLoader(
        samples, batch_size=3, num_workers=1, collate_fn=lambda batch: mix(*default_collate(batch))
    )
    with pytest.raises(UserError, match="generator"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("manifoldmix", "mixup"),
        ("alignmix", "mixup"),
        ("transmix", "cutmix"),
        ("augmix", "own step"),
        ("supermix", "puzzlemix"),
        ("automix", "after_step"),
    ],
)
def test_methods_that_are_no_function_of_a_batch_are_refused(name: str, instead: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*{instead}") as caught:
        transform(name, CLASSES, encoder=network())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("mixupp", {}, "mixupp.*mixup"),
        ("mixup", {"alpha": 0.0}, "alpha"),
        ("mixup", {"colour": 1}, "colour"),
        ("mixup_cutmix", {"alpha": 1.0}, "mixup_alpha and cutmix_alpha"),
        ("mixup", {"clean_weight": 1.0}, "clean_weight"),
        ("fmix", {"loss": "bce"}, "loss"),
        ("puzzlemix", {}, "puzzlemix.*encoder="),
        ("attentivemix", {"teacher_weights": "x.pth"}, "teacher_weights.*encoder="),
        ("puzzlemix", {"encoder": "resnet18"}, "str.*puzzlemix"),
        ("mixup", {"encoder": torch.nn.Identity()}, "encoder.*mixup"),
        ("mixup", {"generator": 3}, "generator"),
        ("mixup", {"num_classes": 0}, "num_classes"),
        ("saliencymix", {"std": (1.0,)}, "std"),
        ("saliencymix", {"mean": 0.5, "std": 0.5}, "std"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_built(
    name: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        transform(name, **{"num_classes": CLASSES, **given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "images", "labels", "words"),
    [
        ("mixup", IMAGES, LABELS + 1, f"labels.*num_classes is {CLASSES}"),
        ("mixup", IMAGES, LABELS - 1, "labels"),
        ("mixup", IMAGES, torch.rand(6, 7), "7.*num_classes"),
        ("mixup", IMAGES, torch.full((6, CLASSES), float("nan")), "labels"),
        ("mixup", IMAGES, LABELS.float(), "labels"),
        ("mixup", IMAGES, LABELS[:5], "labels"),
        ("mixup", IMAGES, torch.rand(5, CLASSES), "labels"),
        ("mixup", (IMAGES * 9).byte(), LABELS, "images.*uint8"),
        ("mixup", IMAGES[:1], LABELS[:1], "one image"),
        ("mixup", IMAGES, LABELS.tolist(), "labels.*list"),
        ("mixup", IMAGES.numpy(), LABELS, "images.*ndarray"),
        ("puzzlemix", IMAGES[:, :1], LABELS, r"puzzlemix.*1, 32, 32"),
        ("puzzlemix", IMAGES[..., :30], LABELS, "blocks.*32x30"),
        ("comixup", IMAGES[..., :30], LABELS, "blocks.*32x30"),
    ],
)
def test_labels_and_sizes_that_do_not_go_with_it_are_one_sentence(
    name: str, images: Tensor, labels: Tensor, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        transform(name, CLASSES, **asked(name))(images, labels)
    assert "\n" not in str(caught.value)


def test_a_network_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match=rf"puzzlemix.*{CLASSES}.*num_classes"):
        transform("puzzlemix", CLASSES - 1, encoder=network())(IMAGES, LABELS.clamp(max=CLASSES - 2))
