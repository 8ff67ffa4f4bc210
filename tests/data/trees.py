"""Small data sets on disk, in native layouts, for the tests of their readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def save_image(path: Path, size: tuple[int, int] = (16, 12), seed: int = 0, **options: object) -> Path:
    """An RGB image of noise, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def folders(
    root: Path,
    splits: tuple[str, ...] = ("train", "val"),
    classes: int = 3,
    images: int = 4,
    size: tuple[int, int] = (16, 12),
) -> Path:
    """ImageNet layout; images of class c in split s are named c_0.png, c_1.png, ..."""
    seed = 0
    for split in splits:
        for label in range(classes):
            for number in range(images):
                save_image(root / split / f"class_{label}" / f"{label}_{number}.png", size, seed := seed + 1)
    return root


def tiny(root: Path, classes: tuple[str, ...] = ("n02", "n01"), images: int = 2) -> Path:
    """Tiny-ImageNet as released; wnids.txt is not sorted there either."""
    (root / "val").mkdir(parents=True)
    (root / "wnids.txt").write_text("".join(f"{name}\n" for name in classes))
    rows = []
    for name in classes:
        for number in range(images):
            save_image(root / "train" / name / "images" / f"{name}_{number}.JPEG", seed=number)
            save_image(root / "val" / "images" / f"val_{len(rows)}.JPEG", seed=50 + number)
            rows.append(f"val_{len(rows)}.JPEG\t{name}\t1\t2\t{5 + number}\t6\n")
        (root / "train" / name / f"{name}_boxes.txt").write_text(
            "".join(f"{name}_{n}.JPEG\t0\t1\t{8 + n}\t9\n" for n in range(images))
        )
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    return root


def cub(root: Path, classes: int = 3, images: int = 4) -> Path:
    """CUB-200-2011; of each class the odd images train and the even ones test."""
    names = [f"{c + 1:03d}.Bird_{c}" for c in range(classes)]
    files = [(label, f"{name}/{name}_{n}.jpg") for label, name in enumerate(names) for n in range(images)]
    for seed, (_, file) in enumerate(files):
        save_image(root / "images" / file, seed=seed)
    tables = {
        "classes.txt": [f"{c + 1} {name}" for c, name in enumerate(names)],
        "images.txt": [f"{i} {file}" for i, (_, file) in enumerate(files, 1)],
        "image_class_labels.txt": [f"{i} {label + 1}" for i, (label, _) in enumerate(files, 1)],
        "train_test_split.txt": [f"{i} {i % 2}" for i in range(1, len(files) + 1)],
        "bounding_boxes.txt": [f"{i} 1.0 2.0 {5 + i % 3}.5 7.0" for i in range(1, len(files) + 1)],
    }
    for name, lines in tables.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def aircraft(
    root: Path, variants: tuple[str, ...] = ("707-320", "A340 300", "F/A-18"), images: int = 2
) -> Path:
    """FGVC-Aircraft 2013b, inside data/."""
    data = root / "data"
    (data / "images").mkdir(parents=True)
    (data / "variants.txt").write_text("".join(f"{v}\n" for v in variants))
    boxes, number = [], 0
    for split in ("train", "val", "test"):
        rows = []
        for variant in variants:
            for _ in range(images):
                number += 1
                save_image(data / "images" / f"{number:07d}.jpg", (30, 44), number)
                rows.append(f"{number:07d} {variant}\n")
                boxes.append(f"{number:07d} 3 4 20 22\n")
        (data / f"images_variant_{split}.txt").write_text("".join(rows))
    (data / "images_variant_trainval.txt").write_text(
        "".join((data / f"images_variant_{s}.txt").read_text() for s in ("train", "val"))
    )
    (data / "images_box.txt").write_text("".join(boxes))
    return root


def edit_line(path: Path, number: int, text: str | None) -> None:
    """Replace line ``number`` (from 1), or remove it."""
    lines = path.read_text().splitlines()
    lines[number - 1 : number] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")


def inaturalist(root: Path, year: int = 2018) -> Path:
    """iNaturalist: three categories whose ids are not their labels, images in one folder a category."""
    folder = "train_val2018" if year == 2018 else "train_val_images"
    for split, start in (("train", 100), ("val", 200)):
        rows = [(start + n, 7 * (n % 3)) for n in range(6)]
        names = {i: f"{folder}/Plantae/{category}/{i}.jpg" for i, category in rows}
        for seed, name in enumerate(names.values()):
            save_image(root / name, seed=start + seed)
        content = {
            "images": [{"id": i, "file_name": name, "width": 16, "height": 12} for i, name in names.items()],
            "annotations": [{"id": i, "image_id": i, "category_id": category} for i, category in rows],
            "categories": [
                {"id": category, "name": f"species {category}", "supercategory": "Plantae"}
                for category in (14, 0, 7)
            ],
        }
        (root / f"{split}{year}.json").write_text(json.dumps(content))
    return root


def places(root: Path, images: str = "data/vision/torralba/deeplearning/images256") -> Path:
    """Places205 with three scenes."""
    (root / "trainvalsplit_places205").mkdir(parents=True)
    for split, count in (("train", 6), ("val", 3)):
        rows = [(f"a/scene_{n % 3}/{split}_{n}.jpg", n % 3) for n in range(count)]
        for seed, (name, _) in enumerate(rows):
            save_image(root / images / name, seed=seed)
        (root / "trainvalsplit_places205" / f"{split}_places205.csv").write_text(
            "".join(f"{name} {label}\n" for name, label in rows)
        )
    return root


def cars(root: Path, classes: int = 3, images: int = 6) -> Path:
    """Stanford Cars; MATLAB's structs as the released files have them."""
    (root / "devkit").mkdir(parents=True)
    savemat(
        root / "devkit" / "cars_meta.mat",
        {"class_names": np.array([[f"Make {c} 2012" for c in range(classes)]], dtype=object)},
    )
    for split, table in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        kind = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        rows = np.empty((1, images), dtype=kind)
        for n in range(images):
            rows[0, n] = (
                np.uint16(1),
                np.uint16(2),
                np.uint16(10 + n),
                np.uint16(9),
                np.uint8(1 + n % classes),
                f"{n + 1:05d}.jpg",
            )
            save_image(root / f"cars_{split}" / f"{n + 1:05d}.jpg", seed=n)
        savemat(root / table, {"annotations": rows})
    return root
