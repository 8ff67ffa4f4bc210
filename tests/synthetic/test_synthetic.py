"""The embedded data: same seed, same bytes; released layouts; exact boxes; no easy way around."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import FGVCAircraft, ImageFolder

from automix_transfer.data.detection.coco import read_coco
from automix_transfer.data.detection.voc import read_voc
from automix_transfer.errors import UserError
from automix_transfer.synthetic import released as _render_layouts
from automix_transfer.synthetic import write as synthetic
from automix_transfer.synthetic.parts import SUPERSAMPLING, draw_thing, mask_box, shrink, thing_mask
from automix_transfer.synthetic.rendering import RENDERERS, Job, Placed, describe, render, trace, write_images
from automix_transfer.synthetic.things import COCO_CLASSES, IMAGENET_CLASSES, SPECIES, VARIANTS, VOC_CLASSES
from automix_transfer.synthetic.write import write_all

SCALE = 0.1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("embedded")
    write_all(out, seed=3, scale=SCALE, progress=False)
    return out


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- same seed, same bytes
@pytest.mark.slow
def test_bytes_depend_on_the_seed_only_and_not_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "POOL_FROM", 1)
    monkeypatch.setattr(synthetic, "CHUNK", 3)
    monkeypatch.setattr(
        synthetic,
        "LAYOUTS",
        [layout for layout in _render_layouts.LAYOUTS if layout.folder in ("imagenet", "coco")],
    )
    for name, seed, processes in (("one", 5, 1), ("two", 5, 2), ("other", 6, 1)):
        write_all(tmp_path / name, seed=seed, scale=0.01, processes=processes, progress=False)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    one, other = digest(tmp_path / "one"), digest(tmp_path / "other")
    assert one.keys() == other.keys() and all(
        one[name] != other[name] for name in one if name.endswith(("JPEG", "jpg", "2017.json"))
    )


@pytest.mark.parametrize("kind", RENDERERS)
def test_an_image_depends_on_its_seed_only(kind):
    first, record = render(Job(kind, 11, "x.jpg", 1))
    render(Job(kind, 12, "y.jpg", 0))
    again, record_again = render(Job(kind, 11, "x.jpg", 1))
    assert np.array_equal(first, again) and record == record_again
    assert not np.array_equal(first, render(Job(kind, 13, "x.jpg", 1))[0])


# --- complete or not there
def test_a_second_call_changes_nothing(data):
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.jpg")}
    write_all(data, seed=3, scale=SCALE, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*.jpg")}


def test_lost_files_and_another_seed_are_rendered_anew_and_an_interrupted_set_is_not_there(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        synthetic,
        "LAYOUTS",
        [layout for layout in _render_layouts.LAYOUTS if layout.folder == "CUB_200_2011"],
    )
    write_all(tmp_path, scale=0.01, progress=False)
    complete = digest(tmp_path / "CUB_200_2011")
    next((tmp_path / "CUB_200_2011").rglob("*.jpg")).unlink()
    write_all(tmp_path, scale=0.01, progress=False)
    assert digest(tmp_path / "CUB_200_2011") == complete

    def interrupted(folder, jobs):
        write_images(folder, jobs[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "write_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path, seed=1, scale=0.01, progress=False)
    assert digest(tmp_path / "CUB_200_2011") == complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CUB_200_2011"]
    monkeypatch.setattr(synthetic, "write_images", write_images)
    write_all(tmp_path, seed=1, scale=0.01, progress=False)
    assert (
        digest(tmp_path / "CUB_200_2011").keys() == complete.keys()
        and digest(tmp_path / "CUB_200_2011") != complete
    )


def test_real_data_is_never_touched(tmp_path):
    (tmp_path / "VOC2007").mkdir()
    (tmp_path / "VOC2007" / "mine.txt").write_text("real")
    with pytest.raises(UserError, match="VOC2007 exists"):
        write_all(tmp_path, scale=0.01, progress=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["VOC2007", "mine.txt"]


def test_a_full_disk_is_one_clear_sentence_and_leaves_no_half_set(tmp_path, monkeypatch):
    def full(folder, jobs):
        raise OSError(28, "No space left on device", str(folder / jobs[0].file))

    monkeypatch.setattr(synthetic, "write_images", full)
    with pytest.raises(UserError, match="No space left"):
        write_all(tmp_path, scale=0.01, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--scale", "0"], ["--scale", "nan"], ["--out", "/proc/nothing"]])
def test_bad_arguments_exit_with_2_and_no_traceback(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "automix_transfer", "data", "synthetic", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


# --- layouts
def test_imagenet_folders_hold_sixteen_balanced_classes(data):
    train, val = ImageFolder(data / "imagenet" / "train"), ImageFolder(data / "imagenet" / "val")
    assert train.classes == val.classes and len(train.classes) == len(IMAGENET_CLASSES) == 16
    assert np.bincount(train.targets).tolist() == [16] * 16 and np.bincount(val.targets).tolist() == [3] * 16
    assert train[0][0].size == (64, 64)
    names = dict(
        line.split(" ", 1) for line in (data / "imagenet" / "LOC_synset_mapping.txt").read_text().splitlines()
    )
    assert list(names) == train.classes


def test_no_single_attribute_names_a_class():
    for attribute, share in (("shape", 4), ("texture", 4), ("marking", 4)):
        values = [getattr(kind, attribute) for kind in IMAGENET_CLASSES]
        assert all(values.count(value) == share for value in values)
    assert len({(kind.shape, kind.texture, kind.marking) for kind in IMAGENET_CLASSES}) == 16


def test_cub_files_agree_with_each_other_and_the_images(data):
    root = data / "CUB_200_2011"

    def table(name):
        return {
            int(line.split(" ", 1)[0]): line.split(" ", 1)[1]
            for line in (root / name).read_text().splitlines()
        }

    names = (
        "images.txt",
        "image_class_labels.txt",
        "train_test_split.txt",
        "bounding_boxes.txt",
        "classes.txt",
    )
    images, labels, split, boxes, classes = map(table, names)
    assert images.keys() == labels.keys() == split.keys() == boxes.keys() and len(classes) == len(SPECIES)
    assert sorted(
        path.relative_to(root / "images").as_posix() for path in root.glob("images/*/*.jpg")
    ) == sorted(images.values())
    for number, name in images.items():
        assert name.startswith(classes[int(labels[number])] + "/")
        width, height = Image.open(root / "images" / name).size
        x, y, w, h = map(float, boxes[number].split())
        assert 0 <= x < x + w <= width and 0 <= y < y + h <= height and width != height
    train = [int(labels[number]) for number in images if split[number] == "1"]
    test = [int(labels[number]) for number in images if split[number] == "0"]
    assert np.bincount(train)[1:].tolist() == [3] * len(SPECIES) and np.bincount(test)[1:].tolist() == [
        2
    ] * len(SPECIES)


def test_aircraft_is_read_by_torchvision(data):
    sizes = {}
    for level, expected in (("variant", len(VARIANTS)), ("family", 5), ("manufacturer", 3)):
        for split in ("train", "val", "trainval", "test"):
            dataset = FGVCAircraft(data, split=split, annotation_level=level, download=False)
            assert len(dataset.classes) == expected == len(set(dataset._labels))
            sizes[split] = len(dataset)
    assert sizes == {"train": 20, "val": 20, "trainval": 40, "test": 20}
    image, _ = dataset[0]
    assert np.asarray(image)[-19:, -8:].max() < 60  # the banner's ground
    boxes = dict(
        line.split(" ", 1)
        for line in (data / "fgvc-aircraft-2013b" / "data" / "images_box.txt").read_text().splitlines()
    )
    for path in (data / "fgvc-aircraft-2013b" / "data" / "images").iterdir():
        x0, y0, x1, y1 = map(int, boxes[path.stem].split())
        width, height = Image.open(path).size
        assert 1 <= x0 < x1 <= width and 1 <= y0 < y1 <= height - 20


def test_voc_is_read_and_every_class_is_in_every_split(data):
    root = data / "VOC2007"
    names = sorted(kind.name for kind in VOC_CLASSES)
    splits = {
        split: read_voc(root, split, names, strict=True) for split in ("train", "val", "trainval", "test")
    }
    assert (
        len(splits["trainval"]) == 30
        and len(splits["test"]) == 10
        and len(splits["train"]) == len(splits["val"]) == 15
    )
    identifiers = {split: {record["image_id"] for record in records} for split, records in splits.items()}
    assert (
        identifiers["train"] | identifiers["val"] == identifiers["trainval"]
        and not identifiers["trainval"] & identifiers["test"]
    )
    for records in splits.values():
        assert {thing["class"] for record in records for thing in record["objects"]} == set(names)
        assert all(1 <= len(record["objects"]) <= 4 for record in records)
    for name in names:
        flags = dict(
            line.split()
            for line in (root / "ImageSets" / "Main" / f"{name}_test.txt").read_text().splitlines()
        )
        for record in splits["test"]:
            mine = [thing["difficult"] for thing in record["objects"] if thing["class"] == name]
            assert int(flags[record["image_id"]]) == (-1 if not mine else 0 if all(mine) else 1)
    tree = ElementTree.parse(root / "Annotations" / "000001.xml").getroot()
    assert all(
        node.findtext(field) is not None
        for node in tree.iter("object")
        for field in ("pose", "truncated", "occluded", "difficult")
    )


def test_coco_is_read_by_pycocotools_and_polygons_cover_the_masks(data, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    ids = set()
    for split in ("train2017", "val2017"):
        file = data / "coco" / "annotations" / f"instances_{split}.json"
        index = coco.COCO(str(file))
        records = read_coco(data / "coco" / split, file)
        assert len(records) == len(index.imgs) and len(index.cats) == len(COCO_CLASSES)
        # ids with gaps: a mapping is needed, as for the real ones
        assert set(index.cats) != set(range(1, len(COCO_CLASSES) + 1))
        for number, annotation in index.anns.items():
            assert number not in ids
            ids.add(number)
            mask = index.annToMask(annotation)
            assert mask.sum() == pytest.approx(annotation["area"], rel=0.03, abs=4)
            x, y, width, height = annotation["bbox"]
            assert mask_box(mask > 0) == pytest.approx((x, y, x + width, y + height), abs=1)


# --- exact boxes
def matte(one: Placed, height: int, width: int) -> np.ndarray:
    """How much of each pixel a thing covers, from pictures of it alone before black and before white."""
    canvases = [
        np.full((height * SUPERSAMPLING, width * SUPERSAMPLING, 3), ground, np.float32) for ground in (0, 255)
    ]
    for canvas in canvases:
        draw_thing(canvas, one.thing, one.place)
    black, white = (shrink(canvas, (height, width)) for canvas in canvases)
    return 1 - (white - black).mean(axis=2) / 255


@pytest.mark.parametrize("kind", ["bird", "aircraft", "voc", "coco"])
def test_boxes_are_those_of_the_rendered_pixels(kind):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        image, placed = RENDERERS[kind](rng, seed % 6)
        height, width = image.shape[:2]
        if kind == "aircraft":
            height -= 20  # without the banner
        instances = describe(placed, height, width)
        assert len(instances) == len(placed)
        mattes = [matte(one, height, width) for one in placed]
        for index, instance in enumerate(instances):
            hidden = (
                np.any([later >= 0.5 for later in mattes[index + 1 :]], axis=0)
                if mattes[index + 1 :]
                else False
            )
            sure, possible = (
                mask_box((mattes[index] >= level) & ~np.asarray(hidden)) for level in (0.53, 0.47)
            )
            assert sure is not None and possible is not None
            inside = [
                possible[0] <= instance.box[0] <= sure[0],
                possible[1] <= instance.box[1] <= sure[1],
                sure[2] <= instance.box[2] <= possible[2],
                sure[3] <= instance.box[3] <= possible[3],
            ]
            assert all(inside), (kind, seed, instance.box, sure, possible)


def test_truncated_occluded_and_difficult_are_told_apart():
    rng = np.random.default_rng(0)
    _, placed = RENDERERS["bird"](rng, 0)
    one = placed[0]

    def at(x, y):
        return Placed(one.thing, type(one.place)(x, y, 30.0), 0)

    (free,) = describe([at(60, 60)], 120, 120)
    assert not (free.truncated or free.occluded or free.difficult)
    (cut,) = describe([at(20, 60)], 120, 120)
    assert cut.truncated and not cut.occluded and cut.box[0] == 0
    (mostly_cut,) = describe([at(0, 60)], 120, 120)
    assert mostly_cut.truncated and mostly_cut.difficult
    under, over = describe([at(60, 60), at(75, 70)], 140, 140)
    assert under.occluded and not over.occluded and under.area < over.area


def test_a_traced_mask_is_the_mask():
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:25] = True
    (polygon,) = trace(mask)
    points = np.reshape(polygon, (-1, 2))
    assert np.allclose(points.min(axis=0), (4, 3), atol=0.07) and np.allclose(
        points.max(axis=0), (25, 9), atol=0.07
    )


# --- difficulty
def test_objects_are_partial_and_off_centre():
    shares, centres = [], []
    for seed in range(60):
        _, placed = RENDERERS["object"](np.random.default_rng(seed), seed % 16)
        box = mask_box(thing_mask(placed[0].thing, placed[0].place, (64, 64)))
        assert box is not None
        shares.append((box[2] - box[0]) / 64)
        centres.append((box[0] + box[2]) / 128)
    assert 0.35 < np.mean(shares) < 0.65 and np.std(centres) > 0.08


@pytest.mark.slow
def test_a_linear_model_on_pixels_stays_far_below_a_network(tmp_path):
    """Logistic regression on 16×16 pixels of 16 classes, 40 + 20 images each, stays below 40 %."""
    images, labels = {}, {}
    for part, count in (("train", 40), ("val", 20)):
        jobs = [
            Job("object", 1000 * label + n + (500 if part == "val" else 0), "", label)
            for label in range(16)
            for n in range(count)
        ]
        small = [
            np.asarray(Image.fromarray(render(job)[0]).resize((16, 16), Image.Resampling.BOX)) for job in jobs
        ]
        images[part] = torch.tensor(np.stack(small)).flatten(1).float() / 255 - 0.5
        labels[part] = torch.tensor([job.label for job in jobs])
    torch.manual_seed(0)
    model = torch.nn.Linear(768, 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    best = 0.0
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(images["train"]), labels["train"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = max(best, (model(images["val"]).argmax(1) == labels["val"]).float().mean().item())
    assert best < 0.4


def test_the_manifest_says_what_the_data_is(data):
    for layout in _render_layouts.LAYOUTS:
        manifest = json.loads((data / layout.folder / "synthetic.json").read_text())
        assert manifest["seed"] == 3 and "not the data set" in manifest["note"]
