"""Parts of benchmarks/gpu.py about the machine and about how the training loop behaves on it."""

from __future__ import annotations

import os
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from gpu_setting import Found, Setting, over, table

from automix_transfer.device import choose_device
from automix_transfer.mixing import METHODS
from automix_transfer.synthetic.write import write_all
from automix_transfer.training import joining
from automix_transfer.training.loop import fit
from automix_transfer.training.record.run_folder import prepare
from automix_transfer.training.settings import load_experiment
from automix_transfer.training.setup.build_run import build_run
from automix_transfer.training.setup.run_state import Run

PHOTO_CLASSES = 8
#: Methods whose solver is on the CPU, which therefore has to wait for the GPU.
WAITING = ("puzzlemix", "comixup")


def machine(setting: Setting, _until: float) -> Found:
    """Which device this is, and the versions that use it."""
    device = choose_device(setting.device)
    cores = len(os.sched_getaffinity(0))
    rows = [("torch", torch.__version__), ("timm", timm.__version__), ("Python", platform.python_version())]
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        name = of.name
        about = f"{of.total_memory / 2**30:.0f} GiB, capability {of.major}.{of.minor}"
        rows += [("CUDA", torch.version.cuda), ("cuDNN", torch.backends.cudnn.version())]
    else:
        name = "CPU"
        about = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    rows = [("device", f"{name}, {about}"), ("CPU cores", cores), *rows]
    return Found([f"{name}, {about}", *table(("", ""), rows)[1:]], device=str(device), name=name)


def data(setting: Setting, _until: float) -> Found:
    """The embedded data sets, and a folder of JPEG files of a photo's size and roughness."""
    write_all(setting.data, scale=setting.scale, progress=False)
    width, height = setting.photo_size
    root = setting.data / "photos"
    for split in ("train", "val"):
        for label in range(PHOTO_CLASSES):
            (root / split / f"class_{label}").mkdir(parents=True)

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        coarse, grain = (rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((9, 12), (60, 80)))
        base, noise = (cv2.resize(one, (width, height)) for one in (coarse, grain))
        pixels = cv2.addWeighted(base, 0.8, noise, 0.2, 0)
        split = "val" if number < PHOTO_CLASSES else "train"
        cv2.imwrite(str(root / split / f"class_{number % PHOTO_CLASSES}" / f"{number}.jpg"), pixels)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(PHOTO_CLASSES + setting.photos)))
    return Found([f"{setting.photos} photos of {width}x{height} px"])


def begin(setting: Setting, name: str, *overrides: str) -> Run:
    """A run at its beginning, without a log while it trains."""
    output = Path(setting.folder) / name
    experiment = load_experiment(
        overrides=[
            f"output={output}",
            f"train.device={setting.device}",
            "train.log_every=1000000",
            "train.save_every_steps=0",
            *overrides,
        ]
    )
    world = joining.start(setting.device)
    run = build_run(experiment, world)
    prepare(output, experiment, world)
    return run


def begin_small(setting: Setting, name: str, *overrides: str) -> Run:
    """A run on the embedded images, small enough for a look at how it behaves."""
    root = f"data.root={setting.data / 'imagenet'}"
    return begin(setting, name, root, "data.image_size=64", "train.epochs=1", *setting.small, *overrides)


def syncs(setting: Setting, until: float) -> Found:
    """Where the training loop waits for the GPU, in steps that log and save nothing."""
    rows, wrong, cuda = [], [], setting.device.startswith("cuda")
    for method in setting.methods:
        if over(until):
            rows.append((METHODS[method].title, "no time", ""))
            continue
        precision = "bf16" if cuda else "fp32"
        run = begin_small(setting, f"syncs_{method}", f"method.name={method}", f"train.precision={precision}")
        places: Counter[str] = Counter()
        steps = watch(run, places)
        fit(run)
        count = sum(places.values())
        shown = ", ".join(f"`{place}` {times} times" for place, times in places.most_common(5))
        rows.append((METHODS[method].title, f"{count / max(steps(), 1):.1f}", shown))
        wrong += [method] if count and method not in WAITING else []
    lines = [
        "`torch.cuda.set_sync_debug_mode` in the training loop, records included, from the third step to the "
        "last but one. PuzzleMix solves for its masks on the CPU, and has to wait; the others must not."
        f"{'' if cuda else ' Nothing is waited for on a CPU: here the part is only tried.'}",
        *table(("method", "waits a step", "where"), rows),
    ]
    return Found(lines, f"the host waits for the GPU in steps of {', '.join(wrong)}" if wrong else "")


def watch(run: Run, places: Counter[str]) -> Callable[[], int]:
    """Count in ``places`` (file:line) what waits for the GPU in the steps of ``run``, but for the first two
    and the last; returns how to ask for the number of steps."""
    batches, watched = run.batches, [0]
    first, last = 2, run.steps_per_epoch - 1

    def listening(max_steps: int | None = None) -> Iterator[Any]:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                for number, batch in enumerate(batches(max_steps)):
                    set_sync_debug("warn" if first <= number < last else "default")
                    watched[0] += first <= number < last
                    yield batch
            finally:
                set_sync_debug("default")
        for warning in seen:
            if "synchronizing" in str(warning.message):
                parts = Path(warning.filename).parts[-2:]
                places[f"{'/'.join(parts)}:{warning.lineno}"] += 1

    run.batches = listening  # type: ignore[method-assign]
    return lambda: watched[0]


def set_sync_debug(mode: str) -> None:
    """On a GPU: warn of what waits for it, or be silent again."""
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def fp16(setting: Setting, _until: float) -> Found:
    """A loss scale that overflows: steps are left out and the scale is halved until gradients are finite."""
    run = begin_small(setting, "fp16", "train.precision=fp16")
    run.scaler = torch.amp.GradScaler(run.world.device.type, init_scale=2.0**18 * 2 ** _halvings(run))
    began, scales = run.scaler.get_scale(), []
    batches = run.batches

    def noting(max_steps: int | None = None) -> Iterator[Any]:
        for batch in batches(max_steps):
            scales.append(run.scaler.get_scale())
            yield batch

    run.batches = noting  # type: ignore[method-assign]
    before = [p.detach().clone() for p in run.method.parameters()]
    fit(run)
    scales.append(run.scaler.get_scale())
    skipped = sum(after < one for one, after in zip(scales, scales[1:], strict=False))
    finite = all(bool(p.isfinite().all()) for p in run.method.parameters())
    moved = any(not torch.equal(p, b) for p, b in zip(run.method.parameters(), before, strict=True))
    went_well = skipped > 0 and finite and moved
    loss = run.at.history[-1]["loss"]
    lines = [
        f"A run of {run.at.step} steps of {run.experiment.encoder.name} that begins with a loss scale of "
        f"{began:g}: {skipped} steps overflowed and were left out, the scale ended at {scales[-1]:g}, the "
        f"weights {'are finite' if finite else 'are NOT finite'} and {'moved' if moved else 'did NOT move'}, "
        f"the mean loss was {loss:.3f}."
    ]
    return Found(lines, "" if went_well else "the overflow was not handled")


def _halvings(run: Run) -> int:
    """How often a scale that is too large can be halved, with half of the steps left to train."""
    return min(run.total_steps // 2, 60)
