"""SHA-256 of every method's weights after 20 steps, to prove that a change of the code changed no training.

python benchmarks/weights_after_20_steps.py --output before.json                        # on the old code
python benchmarks/weights_after_20_steps.py --output after.json --compare before.json   # on the new code
python benchmarks/weights_after_20_steps.py --methods automix puzzlemix --presets fast  # some of the rows

Every method runs at its default options, and AutoMix by each preset besides, on the embedded images (rendered
into a temporary folder, or kept in --data DIR), with the library's loader, optimizer and schedule, in one
thread; all of it takes one to two minutes. A row has two digests of the tensors of the method's state dict:
``with names`` changes when a tensor is renamed, ``values`` only with dtypes, shapes, bytes or their order.

No row depends on another. The first two are of what all methods start from: ``images`` (the batches as they
are loaded) and ``start`` (the encoder before its first step); where one of these differs, look there first.
Bits depend on the processor and on the versions of torch, NumPy and Pillow, so compare files of one machine
and environment.

--compare says of each row whether it is equal, renamed (equal values, other names), different, or missing in
one of the files. The exit code is 1 where a row differs or where there was none to compare, else 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import timm
import torch
from torch import Tensor, nn

from automix_transfer.data.loader import train_loader
from automix_transfer.data.settings import DataConfig

# All that is asked of the library; where a module moves, this is the place to edit.
from automix_transfer.data.splits import train_dataset
from automix_transfer.mixing import METHODS, Method, build_method
from automix_transfer.models import EncoderInfo, create_encoder
from automix_transfer.synthetic.write import write_all
from automix_transfer.training.optimizers import build_optimizer
from automix_transfer.training.schedule import LearningRates
from automix_transfer.training.settings import OptimizerConfig, ScheduleConfig

STEPS, BATCH, SIZE, SEED = 20, 16, 64, 7
SCALE, CLASSES = 0.1, 16  # of the embedded data: 16 images a class, so 20 steps see a second epoch
PRESETS = ("robust", "fast", "openmixup")  # of AutoMix
ENCODER: tuple[str, dict[str, Any]] = ("resnet10_32", {})
#: for methods that need a class token: 16 patches, two blocks
TRANSFORMER: tuple[str, dict[str, Any]] = (
    "vit_tiny_patch16_224",
    {"embed_dim": 48, "depth": 2, "num_heads": 3},
)
ON_TRANSFORMER = ("transmix",)
IMAGES, START = "images", "start"  # rows that are no methods

Rows = dict[str, dict[str, str]]


def main() -> int:
    """Print the table, write it and compare it where asked, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", default=list(METHODS), help="which; default: all"
    )
    parser.add_argument(
        "--presets",
        nargs="*",
        metavar="NAME",
        default=list(PRESETS),
        help=f"of automix, where it is among the methods (default: {' '.join(PRESETS)})",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder for the embedded data, rendered where it is not there yet"
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="file for the digests")
    parser.add_argument(
        "--compare", type=Path, metavar="JSON", help="file of an earlier --output, to compare with"
    )
    options = parser.parse_args()
    unknown = [name for name in options.methods if name not in METHODS]
    if unknown:
        parser.error(f"--methods {unknown[0]} is unknown; choose from {', '.join(METHODS)}")
    before = json.loads(options.compare.read_text()) if options.compare else None
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.data or temporary)
        write_all(root, scale=SCALE, progress=False)
        teacher = Path(temporary) / "teacher.pth"
        rows = measure(options.methods, options.presets, root / "imagenet", teacher)
    result = {"environment": environment(), "rows": rows}
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return compare(before, result) if before else 0


def measure(methods: Iterable[str], presets: Iterable[str], images: Path, teacher: Path) -> Rows:
    """The digests of every row, printed as they are known."""
    print(f"{'':<22}{'values':<18}{'with names':<18}{'last loss':>10}{'seconds':>9}", flush=True)
    rows: Rows = {}

    def add(
        name: str, tensors: Iterable[tuple[str, Tensor]], loss: float | None = None, seconds: float = 0.0
    ) -> None:
        rows[name] = row = digests(tensors)
        if loss is not None:
            row["loss"] = repr(loss)  # tells how far apart two rows are that differ
        figures = "" if loss is None else f"{loss:>10.4f}{seconds:>9.1f}"
        print(f"{name:<22}{row['values'][:16]:<18}{row['names'][:16]:<18}{figures}", flush=True)

    add(IMAGES, ((f"{step:02d}", batch) for step, (batch, _) in enumerate(step_batches(images))))
    seed_all(0)
    start = new_encoder("vanilla")
    add(START, start.state_dict().items())
    torch.save(start.state_dict(), teacher)  # what a teacher has learnt is of no importance here
    for name in methods:
        cases: dict[str, dict[str, Any]] = {name: own_options(name, teacher)}
        if name == "automix":
            cases |= {f"{name} {preset}": {"preset": preset} for preset in presets}
        for case, values in cases.items():
            begun = time.monotonic()
            method, loss = train(name, values, images)
            state = method.state_dict().items()
            tensors = [(key, value) for key, value in state if isinstance(value, Tensor)]
            add(case, tensors, loss, time.monotonic() - begun)
    return rows


def own_options(name: str, teacher: Path) -> dict[str, Any]:
    """What a method cannot do without."""
    if name == "attentivemix":
        return {"teacher_weights": str(teacher), "teacher": ENCODER[0]}
    return {}


def train(name: str, values: Mapping[str, Any], images: Path) -> tuple[Method, float]:
    """The method after its steps, and the loss of the last one."""
    seed_all(0)
    info = EncoderInfo(name_and_options(name)[0], CLASSES, image_size=SIZE)
    method = build_method(name, new_encoder(name), values, info).train()
    config = OptimizerConfig(lr=0.05, momentum=0.9, weight_decay=1e-4)
    optimizer = build_optimizer(config, method)
    rates = LearningRates(optimizer, ScheduleConfig(), epochs=1, lr=config.lr)
    loss = torch.zeros(())
    for step, (batch, labels) in enumerate(step_batches(images, name, method.view_transforms())):
        rates.set(step / STEPS)
        seed_all(step + 1)
        loss = method(batch, labels, torch.Generator().manual_seed(step + 1)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step((step + 1) / STEPS)
    return method, loss.item()


def step_batches(
    root: Path, name: str = "vanilla", views: Sequence[Callable[[Any], Any]] = ()
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of each step, with the views that the method wants, epoch after epoch."""
    dataset = train_dataset(DataConfig(root=str(root), image_size=SIZE, scale=[0.7, 1.0], workers=0), SEED)
    if len(dataset.classes) != CLASSES:
        raise RuntimeError(f"{root} has {len(dataset.classes)} classes instead of {CLASSES}")
    soft = METHODS[name].offline
    if views:
        dataset.add_views(1 + len(views), views[0])
    loader = train_loader(dataset, BATCH, SEED)
    step = 0
    while step < STEPS:
        loader.set_epoch(step // loader.batches_per_epoch)
        for batch, labels, _ in loader:
            if step < STEPS:
                yield soften(batch, labels, step) if soft else (batch, labels)
            step += 1


def soften(images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Each image mixed with another one, its label too, for methods that train on mixed data."""
    rng = torch.Generator().manual_seed(step)
    order = torch.randperm(len(images), generator=rng)
    share = torch.rand(len(images), 1, generator=rng)
    known = nn.functional.one_hot(labels, CLASSES).float()
    pixels = share[..., None, None]
    return pixels * images + (1 - pixels) * images[order], share * known + (1 - share) * known[order]


def name_and_options(method: str) -> tuple[str, dict[str, Any]]:
    """Which encoder a method is trained on."""
    return TRANSFORMER if method in ON_TRANSFORMER else ENCODER


def new_encoder(method: str) -> nn.Module:
    """The encoder for a method, with weights from torch's global generator."""
    name, options = name_and_options(method)
    return create_encoder(name, CLASSES, image_size=SIZE, **options)


def seed_all(seed: int) -> None:
    """Seed every global generator, for initial weights and for code that takes no generator."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def digests(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """SHA-256 of tensors: ``names`` over names and values, sorted by name; ``values`` in the order given."""
    parts = []
    for name, tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        parts.append((name, f"{plain.dtype} {tuple(plain.shape)} ".encode() + content))
    values, names = hashlib.sha256(), hashlib.sha256()
    for _, content in parts:
        values.update(hashlib.sha256(content).digest())
    for name, content in sorted(parts):
        names.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return {"values": values.hexdigest(), "names": names.hexdigest()}


def environment() -> dict[str, str]:
    """What bits depend on besides the code."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Print what became of each row, and return the exit code."""
    for key, value in after["environment"].items():
        earlier = before["environment"].get(key)
        if earlier != value:
            print(f"warning: {key} was {earlier} and is {value}, which may change bits by itself")
    count = dict.fromkeys(("equal", "renamed", "different", "missing"), 0)
    print()
    for name in dict.fromkeys([*before["rows"], *after["rows"]]):
        old, new = before["rows"].get(name), after["rows"].get(name)
        verdict, note = "different", ""
        if old is None or new is None:
            verdict, note = "missing", "in the earlier file" if old is None else "here"
        elif old["values"] == new["values"]:
            verdict = "equal" if old["names"] == new["names"] else "renamed"
        elif "loss" in old and "loss" in new:
            note = f"last loss {float(old['loss']):.9g} before, {float(new['loss']):.9g} now"
        count[verdict] += 1
        print(f"{name:<22}{verdict:<11}{note}")
    print("\n" + ", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return 1 if count["different"] or not count["equal"] + count["renamed"] else 0


if __name__ == "__main__":
    sys.exit(main())
