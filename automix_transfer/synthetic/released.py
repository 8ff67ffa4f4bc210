"""The embedded images in the released layouts of ImageNet, CUB-200-2011, FGVC-Aircraft, VOC and COCO.

A layout is two functions: ``*_jobs`` says which images there are, ``*_annotations`` writes the text files
once they are rendered. Numbers of images are those of scale 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from automix_transfer.synthetic.rendering import Instance, Job, Record
from automix_transfer.synthetic.things import COCO_CLASSES, IMAGENET_CLASSES, SPECIES, VARIANTS, VOC_CLASSES

Seeds = Callable[..., int]  # (purpose, *coordinates) -> seed
WNIDS = [f"n{90000001 + index}" for index in range(len(IMAGENET_CLASSES))]
COCO_INFO = {
    "description": "automix_transfer embedded data, rendered",
    "url": "",
    "version": "1.0",
    "year": 2026,
    "contributor": "automix_transfer",
    "date_created": "2026/01/01",
}
COCO_LICENSE = {"url": "https://www.apache.org/licenses/LICENSE-2.0", "id": 1, "name": "Apache License 2.0"}
COCO_CATEGORY_IDS = [1, 2, 3, 5, 6, 8, 11, 13]  # with gaps, as the real ones have


@dataclass(frozen=True)
class Layout:
    """A data set: its folder, the images in it, and the writer of its annotations."""

    folder: str
    jobs: Callable[[float, Seeds], list[Job]]
    annotations: Callable[[Path, list[Record]], None]


def scaled(count: int, scale: float, least: int = 2) -> int:
    """A number of images at a scale."""
    return max(least, round(count * scale))


# --- ImageNet
def imagenet_jobs(scale: float, seeds: Seeds) -> list[Job]:
    """train/<wnid>/<wnid>_N.JPEG and val/<wnid>/ILSVRC2012_val_NNNNNNNN.JPEG."""
    jobs = []
    count = scaled(30, scale)
    for label, wnid in enumerate(WNIDS):
        train = [f"train/{wnid}/{wnid}_{n}.JPEG" for n in range(scaled(160, scale))]
        val = [f"val/{wnid}/ILSVRC2012_val_{label * count + n + 1:08d}.JPEG" for n in range(count)]
        for split, files in (("train", train), ("val", val)):
            seed = partial(seeds, f"imagenet {split}", label)
            jobs += [Job("object", seed(n), file, label) for n, file in enumerate(files)]
    return jobs


def imagenet_annotations(folder: Path, records: list[Record]) -> None:
    """LOC_synset_mapping.txt: what each folder shows."""
    names = [f"{wnid} {kind.name}" for wnid, kind in zip(WNIDS, IMAGENET_CLASSES, strict=True)]
    _lines(folder / "LOC_synset_mapping.txt", names)


# --- CUB-200-2011
def cub_jobs(scale: float, seeds: Seeds) -> list[Job]:
    """images/<NNN.Name>/<Name>_NNNN_NNNNN.jpg; `cub_annotations` says which are for training."""
    jobs = []
    train, test = scaled(30, scale), scaled(20, scale)
    for label, species in enumerate(SPECIES):
        for n in range(train + test):
            seed = seeds(f"cub {'train' if n < train else 'test'}", label, n)
            name = f"{species.name}_{n + 1:04d}_{label * (train + test) + n + 1}.jpg"
            jobs.append(Job("bird", seed, f"images/{label + 1:03d}.{species.name}/{name}", label))
    return jobs


def cub_annotations(folder: Path, records: list[Record]) -> None:
    """images.txt, classes.txt, and of each image its label, split and box (x, y, width, height)."""
    per_class = len(records) // len(SPECIES)
    train = round(per_class * 30 / 50)
    rows: dict[str, list[object]] = {
        "images": [record.file.removeprefix("images/") for record in records],
        "image_class_labels": [record.label + 1 for record in records],
        "train_test_split": [int(n % per_class < train) for n in range(len(records))],
        "classes": [f"{n:03d}.{species.name}" for n, species in enumerate(SPECIES, start=1)],
        "bounding_boxes": [
            f"{x0:.1f} {y0:.1f} {x1 - x0:.1f} {y1 - y0:.1f}"
            for x0, y0, x1, y1 in (record.instances[0].box for record in records)
        ],
    }
    for name, values in rows.items():
        _lines(folder / f"{name}.txt", [f"{n} {value}" for n, value in enumerate(values, start=1)])


# --- FGVC-Aircraft
_AIRCRAFT_SPLITS = {"train": 15, "val": 15, "test": 20}


def aircraft_jobs(scale: float, seeds: Seeds) -> list[Job]:
    """data/images/<7 digits>.jpg; the first digit says the split to this writer only."""
    jobs = []
    for digit, (split, count) in enumerate(_AIRCRAFT_SPLITS.items(), start=1):
        for n in range(scaled(count, scale)):
            for label in range(len(VARIANTS)):
                number = digit * 1_000_000 + 7 * (n * len(VARIANTS) + label) + 11
                seed = seeds(f"aircraft {split}", label, n)
                jobs.append(Job("aircraft", seed, f"data/images/{number}.jpg", label))
    return jobs


def aircraft_annotations(folder: Path, records: list[Record]) -> None:
    """Lists of variants, families and manufacturers, each for each split, and images_box.txt.

    Boxes are 1-based and inclusive.
    """
    data = folder / "data"
    records = sorted(records, key=lambda record: record.file)
    splits = {
        split: [record for record in records if record.stem[0] == str(digit)]
        for digit, split in enumerate(_AIRCRAFT_SPLITS, start=1)
    }
    splits["trainval"] = (
        splits["train"] + splits["val"]
    )  # in the files' order, as the numbers begin with 1, 2
    levels = {
        "variant": ("variants", [variant.name for variant in VARIANTS]),
        "family": ("families", [variant.family for variant in VARIANTS]),
        "manufacturer": ("manufacturers", [variant.manufacturer for variant in VARIANTS]),
    }
    for level, (plural, names) in levels.items():
        _lines(data / f"{plural}.txt", sorted(set(names)))
        for split, members in splits.items():
            rows = [f"{record.stem} {names[record.label]}" for record in members]
            _lines(data / f"images_{level}_{split}.txt", rows)
    for split, members in splits.items():
        _lines(data / f"images_{split}.txt", [record.stem for record in members])
    boxes = ((record.stem, *record.instances[0].box) for record in records)
    rows = [f"{number} {x0 + 1} {y0 + 1} {x1} {y1}" for number, x0, y0, x1, y1 in boxes]
    _lines(data / "images_box.txt", rows)


# --- PASCAL VOC
def voc_jobs(scale: float, seeds: Seeds) -> list[Job]:
    """JPEGImages/NNNNNN.jpg; of every four images in a row the first three are trainval, the last is test."""
    count = scaled(100, scale, least=len(VOC_CLASSES)) * 4
    return [
        Job("voc", seeds("voc", n), f"JPEGImages/{n + 1:06d}.jpg", (n // 4) % len(VOC_CLASSES))
        for n in range(count)
    ]


def voc_annotations(folder: Path, records: list[Record]) -> None:
    """Annotations/*.xml, and ImageSets/Main with a list for each split, and for each class and split.

    Boxes are 1-based and inclusive; a class's flags are 1, -1 (not there) or 0 (difficult only).
    """
    splits: dict[str, list[Record]] = {"train": [], "val": [], "trainval": [], "test": []}
    for index, record in enumerate(records):
        if index % 4 == 3:
            splits["test"].append(record)
        else:
            splits["trainval"].append(record)
            splits["train" if (index // 4 * 3 + index % 4) % 2 == 0 else "val"].append(record)
        _write(folder / "Annotations" / f"{record.stem}.xml", _voc_xml(record))
    lists = folder / "ImageSets" / "Main"
    for split, members in splits.items():
        _lines(lists / f"{split}.txt", [record.stem for record in members])
        for label, kind in enumerate(VOC_CLASSES):
            flags = [f"{record.stem} {_voc_flag(record, label):2d}" for record in members]
            _lines(lists / f"{kind.name}_{split}.txt", flags)


def _voc_flag(record: Record, label: int) -> int:
    mine = [instance for instance in record.instances if instance.label == label]
    return -1 if not mine else 0 if all(instance.difficult for instance in mine) else 1


def _voc_xml(record: Record) -> str:
    objects = "".join(_voc_object(instance) for instance in record.instances)
    return (
        f"<annotation>\n\t<folder>VOC2007</folder>\n\t<filename>{record.stem}.jpg</filename>\n"
        "\t<source>\n\t\t<database>automix_transfer embedded data</database>\n"
        "\t\t<annotation>rendered</annotation>\n\t\t<image>rendered</image>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{record.width}</width>\n\t\t<height>{record.height}</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _voc_object(instance: Instance) -> str:
    x0, y0, x1, y1 = instance.box
    flags = "".join(
        f"\t\t<{name}>{int(getattr(instance, name))}</{name}>\n"
        for name in ("truncated", "occluded", "difficult")
    )
    return (
        f"\t<object>\n\t\t<name>{VOC_CLASSES[instance.label].name}</name>\n"
        f"\t\t<pose>Unspecified</pose>\n{flags}\t\t<bndbox>\n"
        f"\t\t\t<xmin>{x0 + 1}</xmin>\n\t\t\t<ymin>{y0 + 1}</ymin>\n"
        f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n\t\t</bndbox>\n\t</object>\n"
    )


# --- COCO
def coco_jobs(scale: float, seeds: Seeds) -> list[Job]:
    """train2017/<12 digits>.jpg and val2017/<12 digits>.jpg."""
    jobs = []
    for split, count, first in (("train2017", 300, 9), ("val2017", 100, 139)):
        step = 16 if split == "train2017" else 17 * 16
        for n in range(scaled(count, scale, least=len(COCO_CLASSES))):
            image_id = first + n * step + (0 if split == "train2017" else 500_000)
            seed, label = seeds(f"coco {split}", n), n % len(COCO_CLASSES)
            jobs.append(Job("coco", seed, f"{split}/{image_id:012d}.jpg", label))
    return jobs


def coco_annotations(folder: Path, records: list[Record]) -> None:
    """annotations/instances_{train,val}2017.json."""
    categories = [
        {"supercategory": kind.shape, "id": number, "name": kind.name}
        for number, kind in zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True)
    ]
    for split in ("train2017", "val2017"):
        members = [record for record in records if record.file.startswith(split)]
        images = [
            {
                "license": 1,
                "file_name": f"{record.stem}.jpg",
                "height": record.height,
                "width": record.width,
                "date_captured": "2026-01-01 00:00:00",
                "id": int(record.stem),
            }
            for record in members
        ]
        annotations: list[dict[str, Any]] = []
        for record in members:
            for instance in record.instances:
                x0, y0, x1, y1 = instance.box
                annotations.append(
                    {
                        "segmentation": instance.polygons,
                        "area": float(instance.area),
                        "iscrowd": 0,
                        "image_id": int(record.stem),
                        "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                        "category_id": COCO_CATEGORY_IDS[instance.label],
                        "id": len(annotations) + 1 + (0 if split == "train2017" else 1_000_000),
                    }
                )
        content = {
            "info": COCO_INFO,
            "licenses": [COCO_LICENSE],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        _write(folder / "annotations" / f"instances_{split}.json", json.dumps(content))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _lines(path: Path, lines: list[str]) -> None:
    _write(path, "".join(f"{line}\n" for line in lines))


LAYOUTS = [
    Layout("imagenet", imagenet_jobs, imagenet_annotations),
    Layout("CUB_200_2011", cub_jobs, cub_annotations),
    Layout("fgvc-aircraft-2013b", aircraft_jobs, aircraft_annotations),
    Layout("VOC2007", voc_jobs, voc_annotations),
    Layout("coco", coco_jobs, coco_annotations),
]
