"""What `mutations.py` changes: for each reader, valid files, how they are read, and a command that does."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

from automix_transfer.data.detection.coco import read_coco
from automix_transfer.data.detection.voc import read_voc
from automix_transfer.data.images import read_image
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.shards.packing import main as pack
from automix_transfer.localization.maps.score_maps import read_map
from automix_transfer.localization.metadata import read_metadata
from automix_transfer.mixing import build_method
from automix_transfer.models import EncoderInfo, create_encoder, load_encoder, read_weights
from automix_transfer.recipes.find import RECIPES
from automix_transfer.runs.folder import read_run
from automix_transfer.training.record import checkpoint
from automix_transfer.training.settings import load_experiment

ENCODER, CLASSES, SIZE = "resnet10_32", 3, 32


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        make: writes its valid files into a folder.
        read: reads them; what it returns is compared where the data are the same.
        files: patterns of the files that are changed.
        command: words of `automix-transfer` that read ``{folder}``; none where a command costs too much.
        binary: bytes are changed, and no text.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: tuple[str, ...]
    command: Sequence[str] = ()
    binary: bool = False

    def changed(self, folder: Path) -> list[str]:
        """The files that may be changed, as names within ``folder``."""
        found = {file for pattern in self.files for file in folder.glob(pattern) if file.is_file()}
        return sorted(file.relative_to(folder).as_posix() for file in found)


def image(path: Path, seed: int = 0, size: tuple[int, int] = (16, 12), **options: Any) -> None:
    """An image of noise, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def text(path: Path, *lines: str) -> None:
    """A file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def listed(dataset: str, split: str = "train") -> Callable[[Path], Any]:
    """Names, labels and boxes that a layout's reader finds."""

    def read(folder: Path) -> Any:
        listing = load_listing(DataConfig(dataset=dataset, root=str(folder)), split)
        names = [path.relative_to(folder).as_posix() for path in listing.paths]
        return names, [int(label) for label in listing.labels], list(listing.classes)

    return read


# Configs


def recipe(folder: Path) -> None:
    values = {
        "seed": 3,
        "encoder": {"name": ENCODER},
        "data": {"root": "data", "image_size": SIZE, "scale": [0.2, 1.0], "mean": [0.5, 0.4, 0.3]},
        "method": {"name": "automix", "alpha": 1.5, "preset": "robust"},
        "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
        "train": {"epochs": 3, "batch_size": 8, "keep_epochs": [1, 2]},
    }
    lines = []
    for key, value in values.items():
        inner = value.items() if isinstance(value, dict) else ()
        lines += [f"{key}:", *(f"  {name}: {one}" for name, one in inner)] if inner else [f"{key}: {value}"]
    text(folder / "recipe.yaml", *lines)


def detection_config(folder: Path) -> None:
    text(
        folder / "detector.yaml",
        f"_BASE_: {RECIPES / 'detection' / 'embedded_R10_FPN.yaml'}",
        "MODEL:",
        '  WEIGHTS: ""',
        "  ROI_HEADS: {NUM_CLASSES: 3}",
        "SOLVER:",
        "  BASE_LR: 0.01",
        "  STEPS: [10, 20]",
        "  MAX_ITER: 30",
        "INPUT: {MIN_SIZE_TRAIN: [96, 128]}",
        "SEED: 4",
    )


def read_detection_config(folder: Path) -> Any:
    from automix_transfer.detection.config import load_config

    return load_config(folder / "detector.yaml", [], 0)[0].dump()


def overlay(folder: Path) -> None:
    """Weights as ours are exported, with what lies beside them."""
    detection_config(folder)
    text(
        folder / "weights.yaml",
        "MODEL:",
        "  PIXEL_MEAN: [123.7, 116.3, 103.5]",
        "  PIXEL_STD: [58.4, 57.1, 57.4]",
    )
    (folder / "weights.pkl").write_bytes(pickle.dumps({"model": {}, "__author__": "x"}))


def read_overlay(folder: Path) -> Any:
    from automix_transfer.detection.config import load_config

    return load_config(folder / "detector.yaml", ["MODEL.WEIGHTS", str(folder / "weights.pkl")], 0)[
        0
    ].MODEL.PIXEL_MEAN


# Weights


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_encoder(ENCODER, CLASSES).state_dict()


def tensors(folder: Path, name: str) -> str:
    """A digest of the tensors that a file holds."""
    return digest(read_weights(folder / name).state_dict)


def digest(found: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names and values."""
    total = hashlib.sha256()
    for key in sorted(found):
        total.update(key.encode() + found[key].contiguous().numpy().tobytes())
    return total.hexdigest()


def whole_checkpoint(folder: Path) -> None:
    """A run's last.pt."""
    torch.manual_seed(0)
    method = build_method("vanilla", create_encoder(ENCODER, CLASSES))
    experiment = load_experiment(overrides=[f"encoder.name={ENCODER}", "data.root=data"])
    content = {
        **checkpoint.split_state(method),
        "encoder": EncoderInfo(ENCODER, CLASSES, image_size=SIZE).to_dict(),
        "encoders": checkpoint.encoder_prefixes(method),
        "config": asdict(experiment),
    }
    checkpoint.save(folder, checkpoint.Checkpoint(**content, step=3, epoch=1))


def backbone(folder: Path) -> Any:
    """A digest of a backbone that Detectron2 starts from."""
    from automix_transfer.detection.weights.weights_check import read_backbone

    return digest(read_backbone(folder / "weights.pkl"))


# Data


def folders(folder: Path) -> None:
    for split, name in ((s, n) for s in ("train", "val") for n in ("a", "b")):
        for number in range(2):
            image(folder / split / name / f"{number}.png", number)


def tiny(folder: Path) -> None:
    text(folder / "wnids.txt", "n02", "n01")
    text(folder / "words.txt", "n01\ttench", "n02\tgoldfish")
    rows = []
    for wnid in ("n01", "n02"):
        names = [f"{wnid}_{number}.JPEG" for number in range(2)]
        for number, name in enumerate(names):
            image(folder / "train" / wnid / "images" / name, number, (64, 64))
            image(folder / "val" / "images" / f"val_{wnid}_{number}.JPEG", number, (64, 64))
            rows.append(f"val_{wnid}_{number}.JPEG\t{wnid}\t1\t2\t30\t40")
        text(folder / "train" / wnid / f"{wnid}_boxes.txt", *(f"{name}\t0\t1\t20\t30" for name in names))
    text(folder / "val" / "val_annotations.txt", *rows)


def cub(folder: Path) -> None:
    names = [f"{label:03}.Bird_{label}/b_{label}_{n}.jpg" for label in (1, 2) for n in range(4)]
    for number, name in enumerate(names):
        image(folder / "images" / name, number)
    numbered = list(enumerate(names, 1))
    text(folder / "images.txt", *(f"{number} {name}" for number, name in numbered))
    text(folder / "classes.txt", "1 001.Bird_1", "2 002.Bird_2")
    text(folder / "image_class_labels.txt", *(f"{number} {int(name[:3])}" for number, name in numbered))
    text(folder / "train_test_split.txt", *(f"{number} {number % 2}" for number, _ in numbered))
    text(folder / "bounding_boxes.txt", *(f"{number} 1.0 2.0 9.0 8.0" for number, _ in numbered))


def aircraft(folder: Path) -> None:
    data = folder / "data"
    variants = ("707-320", "A300B4")
    text(data / "variants.txt", *variants)
    boxes = []
    for part, split in enumerate(("train", "val", "test")):
        rows = [f"{1000 + 10 * part + n} {variant}" for n, variant in enumerate(variants)]
        text(data / f"images_variant_{split}.txt", *rows)
        for row in rows:
            image(data / "images" / f"{row.split()[0]}.jpg", part, (24, 40))
            boxes.append(f"{row.split()[0]} 2 3 20 18")
    both = [
        line for s in ("train", "val") for line in (data / f"images_variant_{s}.txt").read_text().splitlines()
    ]
    text(data / "images_variant_trainval.txt", *both)
    text(data / "images_box.txt", *boxes)


def cars(folder: Path) -> None:
    kind = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for part in ("train", "test"):
        rows = np.zeros((1, 4), dtype=kind)
        for n in range(4):
            name = f"{n + 1:05}.jpg"
            image(folder / f"cars_{part}" / name, n)
            rows[0, n] = (1, 2, 14, 11, 1 + n % 2, name)
        where = "cars_test_annos_withlabels.mat" if part == "test" else "devkit/cars_train_annos.mat"
        (folder / where).parent.mkdir(exist_ok=True)
        savemat(folder / where, {"annotations": rows})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array([["Audi", "BMW"]], dtype=object)})


def cifar(folder: Path) -> None:
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        batch = {
            b"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
            b"labels": [n % 10 for n in range(20)],
        }
        batch[b"batch_label"] = str(number).encode()
        (inner / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"class{n}" for n in range(10)]
    (inner / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))


def packed(folder: Path) -> None:
    source = folder.parent / f"{folder.name}_source"
    folders(source)
    for split in ("train", "val"):
        pack(["--dataset", "imagefolder", "--root", str(source), "--split", split, "--output", str(folder)])


# Annotations


def coco(folder: Path) -> None:
    images, annotations = [], []
    for n in range(3):
        image(folder / "images" / f"{n}.jpg", n, (40, 30))
        images.append({"id": n + 1, "file_name": f"{n}.jpg", "width": 40, "height": 30})
        annotations.append(
            {
                "id": n + 10,
                "image_id": n + 1,
                "category_id": 7,
                "bbox": [1, 2, 20.5, 10],
                "area": 205.0,
                "iscrowd": 0,
                "segmentation": [[1, 2, 21.5, 2, 21.5, 12, 1, 12]],
            }
        )
    annotations[2] |= {"iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [100, 50, 1050]}}
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "bird"}]}
    (folder / "boxes.json").write_text(json.dumps(content, indent=1))


def voc(folder: Path) -> None:
    names = ["one", "two"]
    for n, name in enumerate(names):
        image(folder / "JPEGImages" / f"{name}.jpg", n, (40, 30))
        text(
            folder / "Annotations" / f"{name}.xml",
            "<annotation>",
            f"  <filename>{name}.jpg</filename>",
            "  <size><width>40</width><height>30</height><depth>3</depth></size>",
            "  <object>",
            "    <name>bird</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>",
            "    <bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>",
            "  </object>",
            "</annotation>",
        )
    for split in ("train", "val", "trainval", "test"):
        text(folder / "ImageSets" / "Main" / f"{split}.txt", *names)


def boxes_of(records: list[dict[str, Any]]) -> Any:
    """What a detector is trained on."""
    return [
        (Path(record["file_name"]).name, [(one["bbox"], one["class"]) for one in record["objects"]])
        for record in records
    ]


def localization(folder: Path) -> None:
    names = [f"images/{n}.jpg" for n in range(3)]
    text(folder / "image_ids.txt", *names)
    text(folder / "class_labels.txt", *(f"{name},{n}" for n, name in enumerate(names)))
    text(folder / "image_sizes.txt", *(f"{name},40,30" for name in names))
    text(folder / "localization.txt", *(f"{name},1,2,20,25" for name in names))


def score_map(folder: Path) -> None:
    values = np.random.default_rng(0).random((224, 224))
    np.save(folder / "map.npy", values)


# Runs


def run_folder(folder: Path) -> None:
    text(folder / "config.yaml", "output: runs/x", "seed: 0", "method: {name: vanilla}")
    (folder / "metrics.json").write_text(
        json.dumps({"top1_median": 50.0, "epochs": 2, "steps": 8, "seconds": 3.5})
    )
    (folder / "run.json").write_text(
        json.dumps({"seed": 0, "starts": [{"commit": "c0ffee", "command": "x"}]})
    )
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([("epoch", "step", "loss", "top1"), (1, 4, 1.5, 30.0), (2, 8, 1.2, 50.0)])
    (folder / "log.csv").write_text(out.getvalue())


def read_page(folder: Path) -> None:
    """The whole page of a folder of runs."""
    from automix_transfer.report.cli import main

    (folder / "runs").mkdir()
    for file in list(folder.iterdir()):
        if file.is_file():
            file.rename(folder / "runs" / file.name)
    if main(["page", str(folder / "runs"), "--output", str(folder / "page.html"), "--no-mixes"]):
        raise RuntimeError("the page was not written")


TARGETS: dict[str, Target] = {
    "recipe": Target(
        recipe,
        lambda folder: str(load_experiment([folder / "recipe.yaml"])),
        ("recipe.yaml",),
        ("pretrain", "--config-file", "{folder}/recipe.yaml", "--dry-run", "output={folder}/run"),
    ),
    "detection_config": Target(
        detection_config,
        read_detection_config,
        ("detector.yaml",),
        (
            "detect",
            "train",
            "--config-file",
            "{folder}/detector.yaml",
            "--num-gpus",
            "0",
            "--data-root",
            "/nowhere",
        ),
    ),
    "overlay": Target(overlay, read_overlay, ("weights.yaml",)),
    "pth": Target(
        lambda folder: torch.save(state(), folder / "weights.pth"),
        lambda folder: tensors(folder, "weights.pth"),
        ("weights.pth",),
        (
            "evaluate",
            "--weights",
            "{folder}/weights.pth",
            "--encoder",
            ENCODER,
            "--data",
            "{folder}",
            "--output",
            "{folder}/out.json",
        ),
        binary=True,
    ),
    "pth_legacy": Target(
        lambda folder: torch.save(state(), folder / "weights.pth", _use_new_zipfile_serialization=False),
        lambda folder: tensors(folder, "weights.pth"),
        ("weights.pth",),
        binary=True,
    ),
    "safetensors": Target(
        lambda folder: save_file(state(), folder / "weights.safetensors"),
        lambda folder: tensors(folder, "weights.safetensors"),
        ("weights.safetensors",),
        binary=True,
    ),
    "pkl": Target(
        lambda folder: (
            (folder / "weights.pkl").write_bytes(
                pickle.dumps({"model": {key: value.numpy() for key, value in state().items()}})
            )
            and None
        ),
        backbone,
        ("weights.pkl",),
        binary=True,
    ),
    "encoder": Target(
        whole_checkpoint,
        lambda folder: load_encoder(folder / "last.pt") and None,
        ("last.pt",),
        (
            "export",
            "--checkpoint",
            "{folder}/last.pt",
            "--to",
            "safetensors",
            "--output",
            "{folder}/out.safetensors",
        ),
        binary=True,
    ),
    "checkpoint": Target(
        whole_checkpoint,
        lambda folder: checkpoint.read(folder / "last.pt")["step"],
        ("last.pt",),
        binary=True,
    ),
    "imagefolder": Target(
        folders,
        lambda folder: [
            read_image(path).size for path in load_listing(DataConfig(root=str(folder)), "train").paths
        ],
        ("train/*/*.png",),
        ("data", "check", "--dataset", "imagefolder", "--root", "{folder}"),
        binary=True,
    ),
    "jpeg": Target(
        lambda folder: image(folder / "one.jpg", quality=90),
        lambda folder: read_image(folder / "one.jpg").size,
        ("one.jpg",),
        binary=True,
    ),
    "tiny_imagenet": Target(
        tiny,
        listed("tiny_imagenet", "val"),
        ("wnids.txt", "val/val_annotations.txt"),
        ("data", "check", "--dataset", "tiny_imagenet", "--root", "{folder}"),
    ),
    "cub": Target(
        cub, listed("cub"), ("*.txt",), ("data", "check", "--dataset", "cub", "--root", "{folder}")
    ),
    "aircraft": Target(aircraft, listed("aircraft"), ("data/*.txt",)),
    "cars": Target(cars, listed("cars"), ("*.mat", "devkit/*.mat"), binary=True),
    "cifar10": Target(cifar, listed("cifar10"), ("*/*",), binary=True),
    "shards": Target(packed, listed("shards"), ("**/*",), binary=True),
    "coco": Target(
        coco, lambda folder: boxes_of(read_coco(folder / "images", folder / "boxes.json")), ("boxes.json",)
    ),
    "voc": Target(
        voc,
        lambda folder: boxes_of(read_voc(folder, "trainval")),
        ("Annotations/*.xml", "ImageSets/Main/trainval.txt"),
    ),
    "localization": Target(
        localization,
        lambda folder: [(t.image_id, t.label, t.boxes) for t in read_metadata(folder).targets],
        ("*.txt",),
    ),
    "score_map": Target(score_map, lambda folder: read_map(folder, "map").shape, ("map.npy",), binary=True),
    "run_folder": Target(run_folder, lambda folder: read_run(folder) and None, ("*",)),
    "page": Target(
        run_folder,
        read_page,
        ("*",),
        ("report", "page", "{folder}", "--output", "{folder}/page.html", "--no-mixes"),
    ),
}
