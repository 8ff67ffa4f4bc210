r"""What one training step of every method costs: passes by FLOPs, seconds, peak memory, and how much of it is
not the network's.

python benchmarks/step_time.py                     # ResNet-18 with the CIFAR stem, 32 px, batch 100
python benchmarks/step_time.py --methods vanilla mixup automix automix_fast --threads 1 --rounds 9
python benchmarks/step_time.py --stem imagenet --size 224 --batch 8 --threads 1 --methods vanilla automix
python benchmarks/step_time.py --device cuda --encoder resnet50 --stem imagenet --size 224 --batch 128 \
    --compile --precision bf16 --channels-last

Methods take turns within a round, so that a busy machine slows all of them; seconds are medians over the
rounds, and ratios medians of the rounds' own ratios. One thread on a CPU is timed by its CPU time, which
other processes lengthen little; several threads and GPUs by the clock. Memory is all that a step holds at its
peak: weights, optimizer, batch, and what the step allocates (on a CPU as torch's allocator reports it to the
profiler). TransMix runs on a vision transformer and is compared with MixUp and vanilla on the same one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from automix_transfer.errors import UserError, run_script
from automix_transfer.io import write_json
from automix_transfer.mixing import METHODS, Method, build_method
from automix_transfer.mixing.methods.comixup import CoMixup, CoMixupOptions, solve_shares
from automix_transfer.mixing.methods.puzzlemix import PuzzleMixDraw, PuzzleMixOptions, solve_masks
from automix_transfer.mixing.parts.saliency import block_shares
from automix_transfer.models.checkpointing import checkpoint_blocks, update_once
from automix_transfer.models.encoders import EncoderInfo, create_encoder
from automix_transfer.training.validation import autocast

#: passes that a step needs at least (forward, weight gradient and input gradient count 1 each); AutoMix: k on
#: x stops at the feature layer
FLOORS = {
    "vanilla": 3.0,
    "automix": 8.8,
    "puzzlemix": 5.0,
    "comixup": 6.0,
    "augmix": 9.0,
    "automix_openmixup": 9.0,
    "automix_fast": 4.3,
}
#: AutoMix by other presets
PRESETS = {"automix_openmixup": "openmixup", "automix_fast": "fast"}


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", default=[*METHODS, *PRESETS], help="which; default: all"
    )
    parser.add_argument("--encoder", default="resnet18", help="for all but transmix (default %(default)s)")
    parser.add_argument("--stem", default="cifar", choices=("cifar", "imagenet"))
    parser.add_argument(
        "--size", type=int, default=32, help="side of the images in pixels (default %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=100, help="images a step (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="timed steps of each method (default %(default)s)"
    )
    parser.add_argument(
        "--teacher", default="resnet50", help="attentivemix's network, at 224 px (default %(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile on the encoders, for methods that allow it"
    )
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="autocast to it (default: none)"
    )
    parser.add_argument(
        "--checkpointing", action="store_true", help="compute activations again in the backward pass"
    )
    parser.add_argument("--channels-last", action="store_true", help="memory layout NHWC")
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch and of the solvers (default: torch's choice)"
    )
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    known = [*METHODS, *PRESETS]
    unknown = [name for name in options.methods if name not in known]
    if unknown:
        raise UserError(f"--methods {unknown[0]} is unknown; choose from {', '.join(known)}")
    if min(options.rounds, options.size, options.batch - 1) < 1 or options.threads < 0:
        raise UserError(
            "--rounds and --size must be at least 1, --batch at least 2 and --threads not negative"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is visible; give --device cpu")
    hardware = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{options.encoder}, {options.stem} stem, {options.size} px, batch {options.batch}, "
        f"{options.precision}, "
        f"{'compiled' if options.compile else 'not compiled'}, {hardware}"
    )
    setting = {key: str(value) for key, value in vars(options).items()}
    result = {"setting": setting, "hardware": hardware, "steps": time_steps(options, device)}
    if {"puzzlemix", "comixup"} & set(options.methods):
        result["solvers"] = time_solvers(options.batch, options.size)
    if options.output:
        write_json(options.output, result)


def time_steps(options: argparse.Namespace, device: torch.device) -> dict[str, dict[str, Any]]:
    """The table of steps, printed as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        names = list(dict.fromkeys(["vanilla", "mixup", *options.methods]))
        steps = {name: make_step(name, options, device, folder) for name in names}
        if "transmix" in steps:
            steps |= {
                f"{name}{ON_VIT}": make_step(name, options, device, folder, transformer=True)
                for name in ("vanilla", "mixup")
            }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(-1, options.rounds):  # the first round compiles, allocates and is not counted
            for name, one in steps.items():
                took = timed(one.run, number + 1, device)
                if number >= 0:
                    seconds[name].append(took)
            print(f"round {number + 1} of {options.rounds}" if number >= 0 else "warmed up", flush=True)
        memory = {name: peak_memory(one, device) for name, one in steps.items()}
        own = {
            name: None if options.compile else own_share(one.run, one.method, device)
            for name, one in steps.items()
        }
        steps.clear()  # what follows counts, and needs no large batch
        small = argparse.Namespace(**{**vars(options), "batch": 8, "compile": False})
        passes, floors = {}, {}
        for name in seconds:
            one = make_step(name.removesuffix(ON_VIT), small, device, folder, transformer=ON_VIT in name)
            passes[name] = count_passes(one.run, one.method, small)
            floors[name] = least_passes(one.method, small, name)
    print(
        f"\n{'method':<20}{'passes':>8}{'floor':>7}{'seconds':>9}{'x vanilla':>11}{'x MixUp':>9}{'floor':>7}"
        f"{'MB':>8}{'x vanilla':>11}{'not the network':>17}"
    )
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(seconds, key=lambda n: statistics.median(seconds[n])):
        suffix = ON_VIT if name == "transmix" or ON_VIT in name else ""
        to_vanilla, to_mixup = (
            statistics.median(a / b for a, b in zip(seconds[name], seconds[f"{base}{suffix}"], strict=True))
            for base in ("vanilla", "mixup")
        )
        rows[name] = row = {
            "passes": passes[name],
            "floor": floors[name],
            "seconds": statistics.median(seconds[name]),
            "to_vanilla": to_vanilla,
            "ratio": to_mixup,
            "bytes": memory[name],
            "bytes_to_vanilla": memory[name] / memory[f"vanilla{suffix}"],
            "not_the_network": own[name],
            "all_seconds": seconds[name],
        }
        share = f"{own[name]:.0%}" if own[name] is not None else ""
        print(
            f"{name:<20}{row['passes']:>8.2f}{row['floor']:>7.1f}{row['seconds']:>9.3f}"
            f"{to_vanilla:>11.2f}{to_mixup:>9.2f}"
            f"{row['floor'] / 3:>7.2f}{memory[name] / 1e6:>8.0f}{row['bytes_to_vanilla']:>11.2f}{share:>17}"
        )
    return rows


ON_VIT = " on the ViT"


@dataclass
class Step:
    """A function that does one step of a method, draws included, and what that step keeps from one call to
    the next."""

    run: Callable[[int], Tensor]
    method: Method
    optimizer: torch.optim.Optimizer
    batch: tuple[Tensor, Tensor]

    def kept(self) -> int:
        """Bytes of weights, buffers, optimizer state and batch."""
        tensors = [*self.method.parameters(), *self.method.buffers(), *self.batch]
        tensors += [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        if hasattr(self.method, "teacher"):
            tensors += [*self.method.teacher.network.parameters(), *self.method.teacher.network.buffers()]
        return sum(
            storage.nbytes()
            for storage in {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}.values()
        )


def make_step(
    name: str,
    options: argparse.Namespace,
    device: torch.device,
    folder: str,
    transformer: bool = False,
    values: Mapping[str, Any] | None = None,
) -> Step:
    """One step of method ``name``, or of AutoMix by a preset, with the options that suit a comparison, or
    ``values``."""
    torch.manual_seed(0)
    chosen: dict[str, Any] = dict(values or {})
    if name in PRESETS:
        name, chosen = "automix", {"preset": PRESETS[name], **chosen}
    if name == "attentivemix":
        weights = Path(folder) / "teacher.pth"  # the cost does not depend on what it has learnt
        torch.save(create_encoder(options.teacher, 1000).state_dict(), weights)
        chosen = {"teacher_weights": str(weights), "teacher": options.teacher}
    elif name == "transmix":
        chosen = {"switch_probability": 1.0}  # its own branch
    elif name == "alignmix":
        chosen = {"align_probability": 1.0}
    elif name == "puzzlemix":
        chosen = {"blocks": [b for b in (2, 4, 8, 16) if options.size % b == 0]}
    if name == "transmix" or transformer:
        encoder = timm.create_model(
            "vit_tiny_patch16_224",
            num_classes=100,
            img_size=options.size,
            patch_size=max(options.size // 8, 1),
        )
    else:
        encoder = create_encoder(options.encoder, 100, options.stem)
    if getattr(options, "checkpointing", False):
        checkpoint_blocks(encoder, options.encoder)
    info = EncoderInfo(options.encoder, 100, options.stem, options.size)
    method = build_method(name, encoder, chosen, info).to(device).train()
    if getattr(options, "checkpointing", False):
        update_once(method)
    rng = torch.Generator().manual_seed(0)
    channels = 3 * (1 + len(method.view_transforms()))
    images = torch.randn(options.batch, channels, options.size, options.size, generator=rng).to(device)
    labels = (torch.arange(options.batch) % 100).to(device)
    if getattr(options, "channels_last", False):
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    if getattr(options, "compile", False) and not method.reads_layers:
        for network in method.encoders().values():
            network.compile()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    fp16, scale = getattr(options, "precision", "fp32") == "fp16", getattr(options, "loss_scale", 2.0**16)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale, enabled=fp16)

    def run(number: int) -> Tensor:
        with autocast(device, getattr(options, "precision", "fp32")):
            output = method(images, labels, torch.Generator().manual_seed(number))
        scaler.scale(output.loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)
        return output.loss

    return Step(run, method, optimizer, (images, labels))


Run = Callable[[int], Tensor]


def timed(step: Run, number: int, device: torch.device) -> float:
    """Seconds of one step: of CPU time where one thread computes, else by the clock."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    synchronize(device)
    begun = clock()
    step(number)
    synchronize(device)
    return clock() - begun


def peak_memory(step: Step, device: torch.device) -> int:
    """The most bytes held within a step: what is kept over steps, and the peak of what is allocated on top of
    it."""
    if device.type == "cuda":
        others = torch.cuda.memory_allocated(device) - step.kept()  # of the methods that wait for their turn
        torch.cuda.reset_peak_memory_stats(device)
        step.run(0)
        return torch.cuda.max_memory_allocated(device) - others
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run(0)
    now = most = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return step.kept() + most


def synchronize(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def own_share(step: Run, method: Method, device: torch.device, rounds: int = 1) -> float:
    """Share of a step's time outside of forward and backward passes and the optimizer: draws, masks, solvers,
    transport. The median."""
    shares = []
    for number in range(rounds):
        with clock(method, device) as inside:
            total = timed(step, number, device)
        shares.append(max(1 - inside[0] / total, 0.0))
    return statistics.median(shares)


@contextmanager
def clock(method: Method, device: torch.device) -> Iterator[list[float]]:
    """Adds up the seconds of every call of an encoder, of autograd and of the optimizer within the block."""
    spent, depth = [0.0], [0]

    def measured(function: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            synchronize(device)
            begun = time.perf_counter()
            depth[0] += 1
            try:
                return function(*args, **kwargs)
            finally:
                synchronize(device)
                depth[0] -= 1
                if depth[0] == 0:
                    spent[0] += time.perf_counter() - begun

        return run

    networks = list(method.encoders().values())
    if hasattr(method, "teacher"):
        networks.append(method.teacher.network)
    before = torch.autograd.grad, torch.Tensor.backward, torch.optim.SGD.step
    torch.autograd.grad, torch.Tensor.backward = measured(before[0]), measured(before[1])
    torch.optim.SGD.step = measured(before[2])
    for network in networks:
        network.forward = measured(network.forward)
    try:
        yield spent
    finally:
        torch.autograd.grad, torch.Tensor.backward, torch.optim.SGD.step = before
        for network in networks:
            del network.forward


def count_passes(step: Run, method: Method, options: argparse.Namespace) -> float:
    """FLOPs of a step in forward passes of the trained encoder over one batch.

    A whole step of vanilla counts a little less than 3, because the first layer has no input gradient.
    """
    with flop_counter() as counter:
        step(0)
    return counter.get_total_flops() / forward_flops(method.inference_encoder(), options)


def least_passes(method: Method, options: argparse.Namespace, name: str) -> float:
    """The floor of a method's step, a teacher's pass included."""
    if not hasattr(method, "teacher"):
        return FLOORS.get(name, 3.0)
    return 3 + forward_flops(method.teacher.network, options, method.options.teacher_size) / forward_flops(
        method.encoder, options
    )


def forward_flops(network: torch.nn.Module, options: argparse.Namespace, size: int = 0) -> int:
    """FLOPs of one forward pass over a batch of images of ``size`` (0: those of the setting)."""
    size = size or options.size
    with flop_counter() as counter, torch.no_grad():
        network(torch.randn(options.batch, 3, size, size, device=next(network.parameters()).device))
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """A counter that does not ask which module an operation belongs to: that way it cannot count
    `torch.autograd.grad`."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()
    return counter


class NoModules:
    """In place of the counter's module tracker."""

    parents = frozenset({"Global"})

    def __enter__(self) -> NoModules:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def time_solvers(batch: int, size: int, repeats: int = 5) -> list[dict[str, float]]:
    """The min-cuts of a batch in one thread and in as many as torch computes with."""
    threads, rng = torch.get_num_threads(), torch.Generator().manual_seed(0)
    saliency = torch.rand(batch, size, size, generator=rng) ** 4
    plain = torch.rand(batch, 3, size, size, generator=rng)
    permutation = torch.randperm(batch, generator=rng)
    jobs: dict[str, Callable[[int], Any]] = {}
    for b in (2, 4, 8, 16):
        if size % b == 0:
            jobs[f"puzzlemix, {b}x{b} blocks"] = lambda n, b=b: solve_masks(
                plain,
                block_shares(saliency, (b, b)),
                PuzzleMixDraw(0.5, permutation, b),
                PuzzleMixOptions(),
                n,
            )
    draw = CoMixup(torch.nn.Identity()).draw(batch, (size, size), rng)
    jobs["comixup, partitions of 20"] = lambda n: solve_shares(saliency, draw, CoMixupOptions(), n)
    print(
        f"\n{'solving a batch of ' + str(batch):<30}{'1 thread':>12}{f'{threads} threads':>12}{'faster':>8}"
    )
    rows = []
    for name, job in jobs.items():
        job(1)
        alone, together = [], []
        for _ in range(repeats):
            for many, kept in ((1, alone), (threads, together)):
                begun = time.perf_counter()
                job(many)
                kept.append(time.perf_counter() - begun)
        one, several = float(np.median(alone)), float(np.median(together))
        rows.append({"name": name, "one_thread": one, "threads": several})
        print(f"{name:<30}{1000 * one:>9.1f} ms{1000 * several:>9.1f} ms{one / several:>8.2f}")
    return rows


if __name__ == "__main__":
    run_script(main)
