"""The hand-crafted mixups against their definitions: areas, labels, boxes, masks, and what each author's code
does otherwise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.losses import pair_loss, pair_targets
from automix_transfer.mixing.methods.fmix import FMix, fmix_mask
from automix_transfer.mixing.methods.mixup_cutmix import MixUpCutMix, MixUpCutMixOptions
from automix_transfer.mixing.methods.resizemix import ResizeMix, ResizeMixOptions
from automix_transfer.mixing.methods.saliencymix import SaliencyMix, SaliencyMixOptions
from automix_transfer.mixing.pairs import BoxDraw, PairOptions
from automix_transfer.mixing.parts.boxes import box_masks, box_share, centred_box, cut_sides
from automix_transfer.mixing.parts.detector import (
    NEIGHBOURHOODS,
    fine_grained,
    gray_bytes,
    saliency_as_published,
    saliency_uint8,
    smooth_bytes,
)
from automix_transfer.models.encoders import EncoderInfo

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))
SEEDS = st.integers(0, 10_000)
LAMS = st.floats(0, 1)
INFO = EncoderInfo("none", 4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
FIXTURE = Path(__file__).parents[2] / "fixtures" / "opencv_saliency.npz"
NETWORK, LABELS = torch.nn.Identity(), torch.zeros(4, dtype=torch.int64)  # these methods ask neither


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40)
@given(size=SIZES, lam=LAMS, up=st.booleans(), seed=SEEDS, spectrum=st.sampled_from(["paper", "released"]))
def test_fmix_has_exactly_the_area_it_says(
    size: tuple[int, int], lam: float, up: bool, seed: int, spectrum: str
) -> None:
    noise = torch.randn(size[0], size[1] // 2 + 1, 2, generator=rng(seed), dtype=torch.float64)
    mask = fmix_mask(noise, size, lam, up, spectrum=spectrum)
    wanted = lam * size[0] * size[1]
    assert mask.shape == size and set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask.sum().item() == (np.ceil(wanted) if up else np.floor(wanted))


def test_fmix_masks_are_low_pass_and_released_ones_are_bands() -> None:
    """δ = 3 gives few large patches where white noise (δ = 0) gives many; the released code has two
    frequencies along the rows only."""
    changes = {}
    for decay in (0.0, 3.0):
        masks = torch.stack(
            [
                fmix_mask(FMix(NETWORK).draw(2, (32, 32), rng(s)).noise, (32, 32), 0.5, True, decay)
                for s in range(20)
            ]
        )
        changes[decay] = masks.diff(dim=2).abs().mean().item()
    assert changes[3.0] < changes[0.0] / 3
    noise = FMix(NETWORK).draw(2, (32, 32), rng(0)).noise
    field = torch.fft.irfft2(
        torch.complex(
            *(
                noise
                / torch.sqrt(
                    torch.fft.fftfreq(32, dtype=torch.float64).view(-1, 1) ** 2
                    + torch.fft.rfftfreq(32, dtype=torch.float64) ** 2
                )
                .clamp(min=1 / 32)
                .unsqueeze(-1)
                ** 3
            )[:2]
        ),
        s=(32, 32),
    )
    top = torch.zeros(1024)
    top[field.flatten().argsort(descending=True)[:512]] = 1
    assert torch.equal(fmix_mask(noise, (32, 32), 0.5, True, spectrum="released").flatten(), top)


@settings(max_examples=25)
@given(size=SIZES, seed=SEEDS, channels=st.sampled_from([1, 3]))
def test_resizemix_shows_the_whole_partner(size: tuple[int, int], seed: int, channels: int) -> None:
    images = torch.randn(3, channels, *size, generator=rng(seed))
    draw = ResizeMix(NETWORK).draw(3, size, rng(seed))
    mixed = ResizeMix(NETWORK).mix(images, LABELS, draw)
    top, bottom, left, right = draw.box
    assert mixed.lam == pytest.approx(mixed.mask[0].mean().item(), abs=1e-6)
    outside = mixed.mask.bool().expand_as(images)
    assert torch.equal(mixed.images[outside], images[outside])
    if bottom > top and right > left:
        small = functional.interpolate(images[draw.permutation], size=(bottom - top, right - left))
        assert torch.equal(mixed.images[:, :, top:bottom, left:right], small)


def test_resizemix_draws_sides_in_the_scope_by_both_rules() -> None:
    for options in (ResizeMixOptions(), ResizeMixOptions(scale="beta", alpha=0.2)):
        draws = [ResizeMix(NETWORK, options).draw(2, (100, 100), rng(seed)) for seed in range(300)]
        sides = [max(d.box[1] - d.box[0], d.box[3] - d.box[2]) for d in draws]
        assert max(sides) <= 80 and min(sides) < 15
    inside = [ResizeMix(NETWORK).draw(2, (64, 64), rng(seed), lam=0.5) for seed in range(20)]
    assert all(abs(d.lam - 0.5) < 0.05 for d in inside)


@settings(max_examples=25)
@given(
    size=SIZES,
    lam=LAMS,
    seed=SEEDS,
    box=st.sampled_from(["pair", "batch"]),
    detector=st.sampled_from(["uint8", "as_published"]),
    channels=st.sampled_from([1, 3]),
)
def test_saliencymix_labels_by_area(
    size: tuple[int, int], lam: float, seed: int, box: str, detector: str, channels: int
) -> None:
    images = torch.randn(4, channels, *size, generator=rng(seed))
    if seed % 5 == 0:
        images[0] = torch.nan
    draw = PairDraw(lam, torch.randperm(4, generator=rng(seed)))
    method = SaliencyMix(NETWORK, SaliencyMixOptions(box=box, detector=detector))
    method.prepare(INFO)
    mixed = method.mix(images, LABELS, draw)
    area = mixed.mask.mean(dim=(1, 2, 3))
    assert torch.allclose(torch.as_tensor(mixed.lam, dtype=torch.float32).expand(4), area, atol=1e-5)
    assert torch.equal(
        mixed.images.nan_to_num(9.0),
        torch.where(mixed.mask > 0.5, images, images[draw.permutation]).nan_to_num(9.0),
    )
    if box == "batch":
        assert torch.equal(mixed.mask, mixed.mask[:1].expand_as(mixed.mask))


def test_detector_smooths_and_weighs_as_opencv_does() -> None:
    pixels = torch.randint(0, 256, (1, 3, 17, 23), generator=rng(0))
    gray = cv2.cvtColor(pixels[0].permute(1, 2, 0).numpy().astype(np.uint8), cv2.COLOR_RGB2GRAY)
    assert np.array_equal(gray_bytes(pixels)[0].numpy(), gray)
    assert np.array_equal(
        smooth_bytes(torch.from_numpy(gray[None].astype(np.int64)))[0].numpy(),
        cv2.GaussianBlur(gray, (3, 3), 0),
    )


def test_detector_is_opencvs_bit_for_bit() -> None:
    """Maps that StaticSaliencyFineGrained of opencv-contrib 5.0 gave for colour bytes, and for floats of mean
    .5 and deviation .25 in the channel order that the released code hands it."""
    with np.load(FIXTURE) as found:
        for number in range(3):
            rgb = torch.from_numpy(found[f"rgb{number}"]).permute(2, 0, 1).unsqueeze(0)
            maps = saliency_uint8(rgb.float()), saliency_as_published((rgb.float() / 255 - 0.5) / 0.25)
            for saliency, name in zip(maps, ("uint8", "floats"), strict=True):
                assert np.array_equal(saliency[0].numpy(), found[f"{name}_{number}"]), (name, number)


@pytest.mark.parametrize("size", [(9, 14), (31, 5), (1, 20)])
@pytest.mark.parametrize("floats", [False, True])
def test_detector_is_its_formula_pixel_by_pixel(size: tuple[int, int], floats: bool) -> None:
    """Each window is cut out of the image, so that no table and no clamped index is shared with the code; the
    floats are eighths, whose sums do not depend on their order."""
    height, width = size
    values = torch.randint(0, 256, size, generator=rng(1)).double()
    gray = (values - 128) / 32 if floats else values
    centre = values.numpy()  # what the windows' means are compared with
    on, off = np.zeros(size), np.zeros(size)
    for half in NEIGHBOURHOODS:
        for y, x in np.ndindex(size):
            rows = [row for row in range(y - half + 1, y + half + 1) if 0 <= row < height]
            columns = [column for column in range(x - half + 1, x + half + 1) if 0 <= column < width]
            window = np.float32(gray[rows][:, columns].sum().item())
            mean = (window - np.float32(centre[y, x])) / np.float32(len(rows) * len(columns) - 1)
            on[y, x] += int(max(centre[y, x] - mean, 0)) % 256
            off[y, x] += int(max(mean - centre[y, x], 0)) % 256
    total = sum(np.floor(255.0 * (part.astype("f4") / np.float32(max(part.max(), 1)))) for part in (on, off))
    found = fine_grained(gray.float()[None], values[None]) if floats else fine_grained(values.long()[None])
    assert np.array_equal(found[0].numpy(), total % 256)


def test_detector_finds_an_object_and_the_published_one_does_not() -> None:
    inside = {"uint8": 0, "as_published": 0}
    for seed in range(40):
        pixels = torch.full((1, 3, 48, 48), 90.0) + 6 * torch.randn(1, 3, 48, 48, generator=rng(seed))
        y, x = torch.randint(4, 32, (2,), generator=rng(seed)).tolist()
        pixels[:, :, y : y + 12, x : x + 12] = 210
        pixels = pixels.round().clamp(0, 255)
        maps = {
            "uint8": saliency_uint8(pixels),
            "as_published": saliency_as_published((pixels / 255 - 0.5) / 0.25),
        }
        for name, found in maps.items():
            place = int(found.argmax())
            inside[name] += y - 1 <= place // 48 <= y + 12 and x - 1 <= place % 48 <= x + 12
    # chance: about 3; bytes that wrap cost the first many
    assert inside["uint8"] >= 16 and inside["as_published"] <= 6, inside


@settings(max_examples=25)
@given(size=SIZES, seed=SEEDS)
def test_the_switch_is_mixup_or_cutmix_with_its_realised_area(size: tuple[int, int], seed: int) -> None:
    images = torch.randn(4, 3, *size, generator=rng(seed))
    draw = MixUpCutMix(NETWORK).draw(4, size, rng(seed))
    mixed = MixUpCutMix(NETWORK).mix(images, LABELS, draw)
    assert draw.permutation.tolist() == [3, 2, 1, 0]
    expected = mixed.mask * images + (1 - mixed.mask) * images.flip(0)
    assert torch.allclose(mixed.images, expected, atol=1e-5)
    assert mixed.mask.mean(dim=(1, 2, 3)).tolist() == pytest.approx([draw.lam] * 4, abs=1e-5)


def test_the_switch_draws_both_and_can_leave_one_out() -> None:
    def cut(seed: int, **options: float) -> bool:
        method = MixUpCutMix(NETWORK, MixUpCutMixOptions(**options))
        return isinstance(method.draw(2, (8, 8), rng(seed)), BoxDraw)

    assert 60 < sum(cut(seed) for seed in range(200)) < 140
    assert not any(cut(seed, cutmix_alpha=0.0) for seed in range(50)) and all(
        cut(seed, mixup_alpha=0.0) for seed in range(50)
    )


@settings(max_examples=40)
@given(size=SIZES, lam=LAMS, y=st.integers(0, 30), x=st.integers(0, 30))
def test_box_masks_and_shares_agree(size: tuple[int, int], lam: float, y: int, x: int) -> None:
    box = centred_box((y % size[0], x % size[1]), cut_sides(size, lam), size)
    mask = box_masks([box], torch.zeros(2, 3, *size))
    assert mask.shape == (2, 1, *size)
    assert 1 - mask.mean().item() == pytest.approx(box_share(box, size), abs=1e-6)


@settings(max_examples=30)
@given(lam=LAMS, smoothing=st.sampled_from([0.0, 0.1]), seed=SEEDS, each=st.booleans())
def test_soft_labels_sum_to_one_and_give_the_loss(
    lam: float, smoothing: float, seed: int, each: bool
) -> None:
    logits = torch.randn(5, 4, generator=rng(seed))
    y_i, y_j = torch.randint(0, 4, (2, 5), generator=rng(seed))
    share = torch.full((5,), lam) if each else lam
    targets = pair_targets(y_i, y_j, share, 4, smoothing)
    assert torch.allclose(targets.sum(dim=1), torch.ones(5))
    loss = pair_loss(logits, y_i, y_j, share, PairOptions(smoothing=smoothing))
    assert torch.allclose(loss, functional.cross_entropy(logits, targets), atol=1e-5)


def test_binary_cross_entropy_is_timms() -> None:
    from timm.loss import BinaryCrossEntropy

    logits, (y_i, y_j) = torch.randn(5, 4), torch.randint(0, 4, (2, 5))
    for threshold in (0.2, -1.0):
        loss = pair_loss(logits, y_i, y_j, 0.7, PairOptions(loss="bce", bce_threshold=threshold))
        timms = BinaryCrossEntropy(smoothing=0.0, target_threshold=threshold if threshold >= 0 else None)
        assert torch.allclose(loss, timms(logits, pair_targets(y_i, y_j, 0.7, 4)))


@settings(max_examples=15)
@given(size=SIZES, seed=SEEDS, lam=LAMS)
def test_fmix_shows_each_pixel_of_one_image(size: tuple[int, int], seed: int, lam: float) -> None:
    images = torch.randn(3, 1, *size, generator=rng(seed))
    draw = FMix(NETWORK).draw(3, size, rng(seed), lam)
    mixed = FMix(NETWORK).mix(images, LABELS, draw)
    assert (
        torch.equal(mixed.images, torch.where(mixed.mask.bool(), images, images[draw.permutation]))
        and mixed.lam == lam
    )
