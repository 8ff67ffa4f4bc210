"""Parts of benchmarks/gpu.py: what a step costs in time and memory, and whether lower precision agrees."""

from __future__ import annotations

import argparse
import gc
import statistics
from typing import Any

import torch
from gpu_setting import Found, Setting, over, table
from step_time import Step, make_step, peak_memory, timed

from automix_transfer.training.setup.kernels import choose_kernels, try_to_compile

#: Of two precisions on equal weights, images and draws: the largest relative difference of the first loss,
#: and the least cosine between the changes that the first step makes to the weights. PuzzleMix's masks hang
#: on gradients whose last bits differ, so it need only agree in its loss.
TOLERANCE = {"fp32 on the CPU": (1e-3, 0.999), "bf16": (1e-2, 0.97), "fp16": (1e-2, 0.97)}


def steps(
    setting: Setting,
    until: float,
    precision: str,
    channels_last: bool = False,
    compiled: bool = False,
    checkpointing: bool = False,
) -> Found:
    """Milliseconds and megabytes of a step of each method, which take turns."""
    choose_kernels(deterministic=False)
    device = torch.device(setting.device)
    if compiled:
        try_to_compile(device)
    names = setting.compiled if compiled else setting.methods
    form: dict[str, Any] = {"precision": precision, "channels_last": channels_last, "compile": compiled}
    encoder = setting.checkpointed if checkpointing else setting.encoder
    form |= {"checkpointing": checkpointing, "encoder": encoder}
    options = setting.step(device=setting.device, **form)
    ready = fitting(names, options, device, until)
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for number in range(setting.rounds):
        if number and over(until):
            break
        for name, step in ready.items():
            seconds[name].append(timed(step.run, number + 1, device))
    rows = []
    for name, step in ready.items():
        median = statistics.median(seconds[name])
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["vanilla"], strict=True))
        memory = peak_memory(step, device) / 1e6
        rows.append(
            (name, f"{1000 * median:.1f}", f"{ratio:.2f}", f"{options.batch / median:.0f}", f"{memory:.0f}")
        )
    late = [name for name in names if name not in ready]
    rounds = len(seconds["vanilla"])
    lines = [
        f"{options.encoder}, {options.size} px, batch {options.batch}"
        f"{', halved until it fitted' if options.batch < setting.batch else ''}; medians of {rounds} rounds."
        f"{' No time was left for ' + ', '.join(late) + '.' if late else ''}",
        *table(("method", "ms a step", "× vanilla", "images/s", "MB"), rows),
    ]
    return Found(lines)


def fitting(
    names: tuple[str, ...], options: argparse.Namespace, device: torch.device, until: float
) -> dict[str, Step]:
    """Steps that have run once, so that they are compiled and have their memory; the batch is halved for all
    until each has room. Methods that are not ready at ``until`` are left out, but for the first."""
    while True:
        ready: dict[str, Step] = {}
        try:
            for name in names:
                if ready and over(until):
                    break
                step = make_step(name, options, device, "")
                step.run(0)
                ready[name] = step
            return ready
        except torch.OutOfMemoryError:
            if options.batch < 4:
                raise
            options.batch //= 2
        del ready, step
        gc.collect()
        torch.cuda.empty_cache()


def agreement(setting: Setting, until: float) -> Found:
    """The first step of each method in bf16 and fp16, and in fp32 on the CPU, against fp32 on the device."""
    torch.backends.cudnn.allow_tf32 = False  # so that fp32 is what it says
    device, rows, wrong = torch.device(setting.device), [], []
    others = {"bf16": ("bf16", device)}
    if device.type == "cuda":
        others = {"fp32 on the CPU": ("fp32", torch.device("cpu")), "fp16": ("fp16", device), **others}
    for name in setting.methods:
        if over(until):
            rows.append((name, "no time", "", "", ""))
            continue
        loss, change = first_step(name, setting, "fp32", device)
        for other, (precision, where) in others.items():
            its_loss, its_change = first_step(name, setting, precision, where)
            apart = abs(its_loss - loss) / abs(loss)
            cosine = float(torch.nn.functional.cosine_similarity(change, its_change, dim=0))
            most, least = TOLERANCE[other]
            agrees = apart <= most and (cosine >= least or name == "puzzlemix")
            wrong += [] if agrees else [f"{name} in {other}"]
            rows.append((name, other, f"{apart:.1e}", f"{cosine:.4f}", "yes" if agrees else "**no**"))
    bounds = "; ".join(f"{name}: {most:g} and {least:g}" for name, (most, least) in TOLERANCE.items())
    lines = [
        "The first step on equal weights, images and draws against fp32 on the device without TF32: relative "
        "difference of the loss, and cosine between the changes of the weights. At most and at least, for "
        f"{bounds}. PuzzleMix's masks hang on gradients, so only its loss must agree.",
        *table(("method", "form", "loss apart by", "cosine", "agrees"), rows),
    ]
    return Found(lines, f"no agreement of {', '.join(wrong)}" if wrong else "")


def first_step(
    name: str, setting: Setting, precision: str, device: torch.device
) -> tuple[float, torch.Tensor]:
    """The loss of a method's first step, and what it changes in the weights, flat, in float64."""
    small = setting.step(encoder=setting.compared, stem="cifar", size=32, batch=32, precision=precision)
    small.loss_scale = 1024.0  # of fp16; torch's first one may overflow in the first step
    step = make_step(name, small, device, "")
    trained = [p for p in step.method.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    loss = float(step.run(0).detach())
    changes = [(p.detach() - b).double().flatten().cpu() for p, b in zip(trained, before, strict=True)]
    return loss, torch.cat(changes)
