"""PxAP against brute force, threshold by threshold and pixel by pixel; masks and their metadata."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.localization.metadata import read_metadata
from automix_transfer.localization.scores.metrics import default_thresholds
from automix_transfer.localization.scores.pxap import PxAP, pixel_counts, read_mask, score_edges
from automix_transfer.localization.targets import Target
from tests.localization import sample_maps as maps
from tests.localization.test_evaluate import run


def brute_force(pairs, thresholds):
    """Percent: the area under precision over recall by steps, with every pixel compared to every threshold
    (and to 1 and 2)."""
    recalls, precisions = [], []
    total = sum(int((mask == 1).sum()) for _, mask in pairs)
    for threshold in [2.0, 1.0, *sorted(thresholds, reverse=True)]:
        hits = sum(int(((values >= threshold) & (mask == 1)).sum()) for values, mask in pairs)
        found = sum(int(((values >= threshold) & (mask != 255)).sum()) for values, mask in pairs)
        recalls.append(hits / total)
        precisions.append(hits / found if found else 0.0)
    return 100 * sum(
        p * (right - left) for p, left, right in zip(precisions[1:], recalls, recalls[1:], strict=False)
    )


def random_mask(rng, height, width):
    mask = (maps.smooth(rng, height, width) > 0.6).astype(np.uint8)
    mask[(maps.smooth(rng, height, width) > 0.8) & (mask == 0)] = 255
    mask[rng.integers(height), rng.integers(width)] = 1
    return mask


@pytest.mark.parametrize("kind", maps.KINDS, ids=lambda kind: kind.__name__)
def test_equals_brute_force(kind):
    rng, thresholds = np.random.default_rng(maps.KINDS.index(kind)), default_thresholds(0.01)
    metric, pairs = PxAP(thresholds), []
    for height, width in ((1, 1), (7, 9), (32, 20), (64, 64)):
        pairs.append((kind(rng, height, width), random_mask(rng, height, width)))
        metric.add(*pairs[-1])
    assert metric.value == pytest.approx(brute_force(pairs, thresholds), rel=1e-12)


def test_by_hand():
    """Four counted pixels, one ignored. t=0.9 finds one of two object pixels (precision 1), t=0.5 adds
    background, t=0 finds all."""
    metric = PxAP(np.array([0.0, 0.5, 0.9]))
    metric.add(np.array([[0.9, 0.6, 0.1, 0.0, 1.0]]), np.array([[1, 0, 1, 0, 255]], dtype=np.uint8))
    recall, precision, thresholds = metric.curve()
    assert thresholds.tolist() == [2, 1, 0.9, 0.5, 0] and recall.tolist() == [0, 0, 0.5, 0.5, 1]
    assert np.isnan(precision[:2]).all() and precision[2:].tolist() == [1, 0.5, 0.5]
    assert metric.value == 100 * (1 * 0.5 + 0.5 * 0 + 0.5 * 0.5)


def test_extremes():
    thresholds = default_thresholds()
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:4, 1:7] = 1
    for values, expected in (
        (mask.astype(float), 100.0),
        (1.0 - mask, 100 * 12 / 64),
        (np.zeros((8, 8)), 100 * 12 / 64),
    ):
        metric = PxAP(thresholds)
        metric.add(values, mask)
        assert metric.value == pytest.approx(expected)


@settings(max_examples=60)
@given(
    arrays(
        np.float64,
        (6, 7),
        elements=st.one_of(
            st.floats(0, 1),
            st.integers(0, 1000).map(lambda k: k / 1000),
            st.integers(0, 999).map(lambda k: float(default_thresholds()[k])),
        ),
    ),
    st.sampled_from([default_thresholds(), default_thresholds(0.37), np.array([0.0, 0.01, 0.7, 0.71, 0.99])]),
)
def test_bins_are_those_of_a_histogram(values, thresholds):
    """Scores on, just below and just above the edges fall where NumPy's histogram puts them."""
    values[0] = np.nextafter(values[1], 0)
    values[2] = np.minimum(np.nextafter(values[1], 2), 1)
    mask = np.random.default_rng(0).choice(np.array([0, 1, 255], dtype=np.uint8), values.shape)
    edges = score_edges(thresholds)
    true, false = pixel_counts(values, mask, edges)
    np.testing.assert_array_equal(true, np.histogram(values[mask == 1], edges)[0])
    np.testing.assert_array_equal(false, np.histogram(values[mask == 0], edges)[0])


@pytest.mark.parametrize(
    "values, mask, word",
    [
        (np.zeros((2, 2)), np.zeros((2, 3), np.uint8), "do not belong together"),
        (np.array([[0.0, np.nan]]), np.zeros((1, 2), np.uint8), "NaN"),
        (np.array([[0.0, 1.1]]), np.zeros((1, 2), np.uint8), "outside"),
        (np.zeros((1, 2)), np.full((1, 2), 7, np.uint8), "other values"),
    ],
)
def test_bad_input_is_refused_by_name(values, mask, word):
    with pytest.raises(UserError, match=word):
        PxAP(default_thresholds()).add(values, mask)


def test_what_is_not_defined_is_refused():
    with pytest.raises(UserError, match="ascending"):
        PxAP(np.array([0.5, 0.1]))
    metric = PxAP(default_thresholds())
    metric.add(np.zeros((2, 2)), np.zeros((2, 2), dtype=np.uint8))
    with pytest.raises(UserError, match="not defined"):
        _ = metric.value


@pytest.fixture
def open_images(tmp_path):
    """Three images of two classes with masks (one has two instances, one no ignored region), and their score
    maps."""
    rng = np.random.default_rng(0)
    rows = {"image_ids": [], "class_labels": [], "localization": []}
    for k in range(3):
        name = f"train/{k}.jpg"
        rows["image_ids"].append(name)
        rows["class_labels"].append(f"{name},{k % 2}")
        for instance in range(1 + (k == 1)):
            shape = (40, 60)
            file, ignore = f"{k}/mask_{instance}.png", "" if k == 2 else f"{k}/ignore.png"
            (tmp_path / "masks" / str(k)).mkdir(parents=True, exist_ok=True)
            for path, above in ((file, 0.6), *(((ignore, 0.7),) if ignore else ())):
                Image.fromarray(np.uint8(255 * (maps.smooth(rng, *shape) > above))).save(
                    tmp_path / "masks" / path
                )
            rows["localization"].append(f"{name},{file},{ignore}")
        (tmp_path / "maps" / "train").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "maps" / f"{name}.npy", maps.smooth(rng, 32, 32))
    (tmp_path / "metadata").mkdir()
    for name, lines in rows.items():
        (tmp_path / "metadata" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_from_score_maps_and_masks(open_images, monkeypatch, capsys):
    output = open_images / "out.json"
    assert (
        run(
            monkeypatch,
            "--scoremaps",
            open_images / "maps",
            "--metadata",
            open_images / "metadata",
            "--masks",
            open_images / "masks",
            "--map-size",
            32,
            "--interval",
            0.01,
            "--output",
            output,
        )
        == 0
    )
    assert "PxAP" in capsys.readouterr().out
    found = json.loads(output.read_text())
    pairs = []
    for target in read_metadata(open_images / "metadata", open_images / "masks").targets:
        # the nearest pixel, written out: position k of 32 looks at pixel floor(k · 40 / 32) and floor(k · 60
        # / 32)
        rows, columns = np.arange(32) * 40 // 32, np.arange(32) * 60 // 32
        small = [np.asarray(Image.open(file))[rows][:, columns] > 0 for file in target.masks]
        mask = np.any(small, axis=0).astype(np.uint8)
        if target.ignore:
            mask[(np.asarray(Image.open(target.ignore))[rows][:, columns] > 0) & (mask == 0)] = 255
        np.testing.assert_array_equal(read_mask(target, 32), mask)
        pairs.append((np.load(open_images / "maps" / f"{target.image_id}.npy"), mask))
    assert found["PxAP"] == pytest.approx(brute_force(pairs, default_thresholds(0.01)), rel=1e-12)
    counted = sum(int((mask != 255).sum()) for _, mask in pairs)
    assert found["counted_pixels"] == counted and found["n_images"] == 3
    assert found["full_image"]["PxAP"] == pytest.approx(
        100 * sum(int((mask == 1).sum()) for _, mask in pairs) / counted
    )
    lines = output.with_suffix(".csv").read_text().splitlines()
    assert len(lines) == 4
    assert float(lines[1].split(",")[3]) == pytest.approx(
        brute_force(pairs[:1], default_thresholds(0.01)), abs=1e-5
    )
    assert (
        output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        and not output.with_suffix(".html").exists()
    )


def test_the_page_shows_images_with_masks(open_images, monkeypatch):
    (open_images / "images" / "train").mkdir(parents=True)
    for k in range(3):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(
            open_images / f"images/train/{k}.jpg"
        )
    output = open_images / "out.json"
    assert (
        run(
            monkeypatch,
            "--scoremaps",
            open_images / "maps",
            "--metadata",
            open_images / "metadata",
            "--masks",
            open_images / "masks",
            "--images",
            open_images / "images",
            "--map-size",
            32,
            "--output",
            output,
            "--examples",
            1,
        )
        == 0
    )
    page = output.with_suffix(".html").read_text()
    assert (
        page.count("data:image/webp") == 3
        and "border of the mask" in page
        and "PxAP" in page
        and "://" not in page
    )


@pytest.mark.parametrize(
    "line, word",
    [
        ("train/0.jpg,../../x.png,0/ignore.png", "leads out"),
        ("train/0.jpg,0/mask_9.png,0/ignore.png", "missing"),
        ("train/0.jpg,0/mask_0.png,0/ignore.png", "stands twice"),
        ("train/0.jpg,1/mask_1.png,1/ignore.png", "two ignore files"),
        ("train/9.jpg,0/mask_0.png,0/ignore.png", "is not in image_ids.txt"),
        ("train/0.jpg,0/broken.png,0/ignore.png", "cannot be read"),
        ("train/0.jpg,0/mask_0.png", "is not of the form"),
    ],
)
def test_bad_masks_are_named_before_the_first_image(open_images, monkeypatch, capsys, line, word):
    file = open_images / "metadata" / "localization.txt"
    file.write_text(file.read_text() + line + "\n")
    (open_images / "masks" / "0" / "broken.png").write_bytes(b"no image")
    monkeypatch.setattr(
        "automix_transfer.localization.pipeline.measure_all", lambda *_: pytest.fail("an image was evaluated")
    )
    arguments = (
        "--scoremaps",
        open_images / "maps",
        "--metadata",
        open_images / "metadata",
        "--map-size",
        32,
    )
    assert run(monkeypatch, *arguments, "--masks", open_images / "masks") == 2
    assert word in capsys.readouterr().err


def test_the_folder_of_masks_is_asked_for(open_images, monkeypatch, capsys):
    arguments = (
        "--scoremaps",
        open_images / "maps",
        "--metadata",
        open_images / "metadata",
        "--map-size",
        32,
    )
    assert run(monkeypatch, *arguments) == 2
    assert "--masks" in capsys.readouterr().err
    assert (
        run(
            monkeypatch,
            *arguments,
            "--masks",
            open_images / "masks",
            "--threshold-metadata",
            open_images / "metadata",
        )
        == 2
    )
    assert "--threshold-split" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--masks", open_images / "masks", "--threshold", 0.2) == 2
    assert "--threshold-split" in capsys.readouterr().err


def test_an_object_is_never_ignored(tmp_path):
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "ignore.png")
    Image.fromarray(np.uint8([[255, 0, 0, 0]] * 4)).save(tmp_path / "mask.png")
    mask = read_mask(Target("x", 0, masks=(tmp_path / "mask.png",), ignore=tmp_path / "ignore.png"), 4)
    assert mask.tolist() == [[1, 255, 255, 255]] * 4
