"""How long a training would take on this machine: a few steps of its network and method, measured once and
kept in a JSON file."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from automix_transfer.device import choose_device, device_name, synchronize
from automix_transfer.errors import UserError
from automix_transfer.io import write_json
from automix_transfer.mixing import METHODS
from automix_transfer.paper.measured import method_of
from automix_transfer.paper.references import Reference
from automix_transfer.runs.folder import is_number, read_optional
from automix_transfer.training.validation import autocast

CPU_BATCH = 8  # images; on a CPU the time of a step grows with its images, so a small batch tells
STEPS = 2  # timed, after one that is not


class StepTimes:
    """Seconds of a step and of evaluating an image, by device, network, method and size; kept in ``file``."""

    def __init__(
        self, file: Path, measure: bool = True, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.file, self.measuring, self.say = file, measure, say
        self.device = choose_device("auto")
        name = device_name(self.device)
        on_cpu = self.device.type == "cpu"
        self.machine = f"CPU {name}, {torch.get_num_threads()} threads" if on_cpu else name
        self.problems: list[str] = []
        self.known: dict[str, Any] = read_optional(file, self.problems) if file.exists() else {}
        if not all(isinstance(found, dict) for found in self.known.values()):
            raise UserError(f"{file} is no file of measured times; give another --times")

    def hours(self, reference: Reference, epochs: int, images: int) -> float | None:
        """Of ``epochs`` over ``images`` and an evaluation after each; None if it was not measured. Reading
        images is not counted."""
        found = self._measured(reference)
        if found is None or reference.data is None:
            return None
        steps = max(1, images // int(reference.config["train.batch_size"]))
        return epochs * (steps * found["step"] + reference.data.test * found["evaluate"]) / 3600

    def _measured(self, reference: Reference) -> Mapping[str, float] | None:
        key = self.key(reference)
        found = self.known.get(key)
        if isinstance(found, dict) and found.get("why"):
            return None
        if isinstance(found, dict) and all(
            is_number(found.get(name)) and found[name] >= 0 for name in ("step", "evaluate")
        ):
            return found
        if not self.measuring:
            return None
        config = reference.config
        self.say(
            f"measuring {config['method.name']} with {config['encoder.name']} at {config['data.image_size']} "
            "px"
        )
        try:
            self.known[key] = measure(config, reference.data.classes if reference.data else 10, self.device)
        # a teacher's file that is not there, a GPU without enough memory
        except (UserError, RuntimeError, ValueError) as error:
            self.known[key] = {"why": " ".join(str(error).split())[:200]}
        write_json(self.file, self.known)
        return self.known[key] if "why" not in self.known[key] else None

    def why(self, reference: Reference) -> str:
        """Why there is no time, if measuring failed."""
        found = self.known.get(self.key(reference))
        return str(found.get("why", "")) if isinstance(found, dict) else ""

    def key(self, reference: Reference) -> str:
        """What a measurement is of; settings that do not change the cost are not in it."""
        config = reference.config
        method = {name: value for name, value in config.items() if name.startswith("method.")}
        digest = hashlib.sha256(json.dumps(method, sort_keys=True, default=str).encode()).hexdigest()[:8]
        parts = (
            self.machine,
            config["encoder.name"],
            config["encoder.stem"],
            config["method.name"],
            digest,
            config["data.image_size"],
            config["data.test_size"] or config["data.image_size"],
            config["train.batch_size"],
            config["train.precision"],
        )
        return " | ".join(map(str, parts))


def measure(config: Mapping[str, Any], classes: int, device: torch.device) -> dict[str, float]:
    """Seconds of a step of ``train.batch_size`` images, and of evaluating one image, on random pixels.

    Raises:
        UserError, RuntimeError: the method cannot be built from the recipe alone, or memory is short.
    """
    size, whole = int(config["data.image_size"]), int(config["train.batch_size"])
    batch = min(whole, CPU_BATCH) if device.type == "cpu" else whole
    method = method_of(config, classes).to(device).train()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    rng = torch.Generator().manual_seed(0)
    channels = 3 * (1 + len(method.view_transforms()))
    images = torch.randn(batch, channels, size, size, generator=rng).to(device)
    labels = (torch.arange(batch) % classes).to(device)
    if METHODS[str(config["method.name"])].offline:
        labels = torch.nn.functional.one_hot(labels, classes).float()
    precision = str(config["train.precision"])

    def step(number: int) -> None:
        with autocast(device, precision):
            output = method(images, labels, torch.Generator().manual_seed(number))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)

    encoder = method.inference_encoder()
    test = torch.randn(batch, 3, *[int(config["data.test_size"] or size)] * 2, generator=rng).to(device)

    def evaluate(_: int) -> None:
        with torch.no_grad(), autocast(device, precision):
            encoder(test)

    seconds = _seconds(step, device)
    method.eval()
    return {"step": seconds * whole / batch, "evaluate": _seconds(evaluate, device) / batch}


def _seconds(work: Callable[[int], None], device: torch.device) -> float:
    """Median over `STEPS`, after one that allocates and compiles."""
    found = []
    for number in range(STEPS + 1):
        begun = time.perf_counter()
        work(number)
        synchronize(device)
        found.append(time.perf_counter() - begun)
    return statistics.median(found[1:])
