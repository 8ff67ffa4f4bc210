"""What every export has to show before it may exist: all keys, equal values, equal features.

The source encoder and the network that the target framework itself built and loaded from the exported file
see the same random images; their outputs are compared after the stem, after every stage, and at the logits. A
difference above `TOLERANCE` of the largest feature, or nothing to compare, is an error.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.rng import derive_generator

# of the largest absolute feature; equal arithmetic gives 0, another order of additions about 1e-6
TOLERANCE = 1e-5
RESNET_LAYERS = (("stem", "maxpool"), *((f"layer{i}", f"layer{i}") for i in (1, 2, 3, 4)), ("logits", ""))
PACKAGES = ("automix_transfer", "torch", "torchvision", "timm", "safetensors", "numpy")

Taps = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Row:
    """One comparison: input (N, 3, H, W), layer, its shape, largest |source|, largest |source - target|."""

    input: tuple[int, ...]
    layer: str
    shape: tuple[int, ...]
    largest: float
    difference: float


@dataclass(frozen=True)
class Loaded:
    """An exported file, loaded back by its target framework.

    Attributes:
        target: the network it was loaded into and how, in words a reader can repeat.
        matched, total: keys of that network that came from the file with the source's exact values, of all it
            has.
        source_taps, target_taps: images -> feature maps of both networks by the same names.
        packages: further packages whose versions matter.
    """

    target: str
    matched: int
    total: int
    source_taps: Taps = field(repr=False)
    target_taps: Taps = field(repr=False)
    notes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    sizes: tuple[
        tuple[int, int, int], ...
    ] = ()  # (N, H, W) of the images that are compared; see `proof_sizes`


def loaded_back(
    target: str,
    source: nn.Module,
    network: nn.Module,
    layers: Sequence[tuple[str, str]],
    notes: tuple[str, ...] = (),
) -> Loaded:
    """What is `Loaded` where both networks have the same keys and ``layers``."""
    state = network.state_dict()
    matched = same_values(source.state_dict(), state)
    return Loaded(
        target, matched, len(state), module_taps(source, layers), module_taps(network, layers), notes
    )


@dataclass(frozen=True)
class Proof:
    """The proof of one export, printed by ``str`` and written beside the file."""

    kind: str
    file: str
    sha256: str
    source: str
    source_sha256: str
    encoder: dict[str, Any]
    which: str | None
    step: int | None
    target: str
    matched: int
    total: int
    tolerance: float
    largest_difference: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)  # sha256 of those that were written beside

    def to_dict(self) -> dict[str, Any]:
        """Primitive types only, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        chosen = f", encoder {self.which}" if self.which else ""
        step = f", step {self.step}" if self.step is not None else ""
        head = ("input", "layer", "output", "largest value", "largest difference")
        rows = [(_shape(r.input), r.layer, _shape(r.shape), r.largest, r.difference) for r in self.rows]
        lines = [
            f"{self.source}{chosen}{step} ({self.encoder['name']}, {self.encoder['num_classes']} classes)",
            f"-> {self.file} ({self.kind})",
            f"loaded by {self.target}",
            f"keys: {self.matched} of {self.total} matched, shapes and values equal",
            "",
            tabulate(rows, head, "simple", floatfmt=("", "", "", ".6g", ".3g")),
            "",
            f"largest difference {self.largest_difference:.3g} "
            f"(allowed: {self.tolerance:g} of the largest value)",
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def check_keys(loaded: Loaded) -> None:
    """Every key of the target's network has to come from the file."""
    if loaded.total < 1 or loaded.matched != loaded.total:
        raise UserError(
            f"only {loaded.matched} of {loaded.total} keys of {loaded.target} came from the exported file "
            "with the source's values, so nothing was written"
        )


@torch.no_grad()
def compare(
    source: Taps,
    target: Taps,
    sizes: Iterable[tuple[int, int, int]],
    seed: int = 0,
    subject: str = "the exported network",
    outcome: str = "nothing was written",
    tolerance: float = TOLERANCE,
) -> tuple[Row, ...]:
    """Compare features of both on random images (N, 3, H, W) for each (N, H, W) of ``sizes``.

    Args:
        subject, outcome: what messages call the target, and what they say did not happen.

    Raises:
        UserError: a layer is missing, a shape differs, a difference is above ``tolerance`` of the largest
            feature, or there is nothing to see (zero, NaN or infinite features prove nothing).
    """
    rows = []
    for number, (batch, height, width) in enumerate(sizes):
        images = torch.randn(batch, 3, height, width, generator=derive_generator(seed, "proof", number))
        expected, found = source(images), target(images)
        if not expected or list(expected) != list(found):
            raise UserError(
                f"{subject} has layers {list(found)}, the source has {list(expected)}, so {outcome}"
            )
        for layer, a in expected.items():
            b = found[layer]
            if a.shape != b.shape:
                raise UserError(
                    f"layer {layer} gives {tuple(b.shape)} in {subject} and {tuple(a.shape)} in the source, "
                    f"so {outcome}"
                )
            largest, difference = a.abs().max().item(), (a - b).abs().max().item()
            rows.append(Row(tuple(images.shape), layer, tuple(a.shape), largest, difference))
            if not (0 < largest < float("inf")):
                raise UserError(
                    f"layer {layer} of the source gives no usable features (largest value {largest}), so it "
                    f"cannot be proven and {outcome}; take a checkpoint that was trained longer, or from "
                    "before it diverged"
                )
            if not difference <= tolerance * largest:
                raise UserError(
                    f"layer {layer} of {subject} differs from the source by {difference:.3g} (largest value "
                    f"{largest:.3g}) on random images {tuple(images.shape)}, so {outcome}"
                )
    return tuple(rows)


def module_taps(network: nn.Module, layers: Sequence[tuple[str, str]]) -> Taps:
    """Outputs of ``network``'s submodules: ``layers`` are (name, submodule), where ``""`` is the whole."""

    def run(images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        hooked = [(name, network.get_submodule(path)) for name, path in layers]
        handles = [module.register_forward_hook(_keep(found, name)) for name, module in hooked]
        try:
            network(images)
        finally:
            for handle in handles:
                handle.remove()
        return {name: found[name] for name, _ in layers if name in found}  # the order of ``layers``

    return run


def layers_of(encoder: nn.Module, image_size: int) -> tuple[tuple[str, str], ...]:
    """What to compare in two networks of one class: parts that give a tensor, timm's stages, logits."""
    present = dict(encoder.named_modules())
    if {"maxpool", "layer4"} <= set(present):
        return RESNET_LAYERS
    names = [name for name, _ in encoder.named_children()]
    names += [stage["module"] for stage in getattr(encoder, "feature_info", None) or ()]
    candidates = [(name, name) for name in dict.fromkeys(names) if name in present]
    with torch.no_grad():
        ran = module_taps(encoder, candidates)(torch.zeros(1, 3, image_size, image_size))
    return (*((name, path) for name, path in candidates if name in ran), ("logits", ""))


def proof_sizes(encoder: nn.Module, image_size: int) -> tuple[tuple[int, int, int], ...]:
    """(N, H, W) of the random images: the training size, and odd ones if the network takes any size."""
    side = min(max(image_size, 32), 224)
    try:
        with torch.no_grad():
            encoder(torch.zeros(1, 3, side + 33, side - 1))
    except Exception:  # a network of fixed size says so in its own way: assertion, shape mismatch, ...
        return ((2, image_size, image_size),)
    return ((2, side, side), (1, side + 33, side - 1), (1, side - 1, side + 14))


def same_values(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> int:
    """Number of keys of ``found`` whose tensors are equal, bit for bit, to those of ``expected``."""
    return sum(
        key in expected and value.shape == expected[key].shape and torch.equal(value, expected[key])
        for key, value in found.items()
    )


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions; a package without metadata is left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _keep(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            found[name] = output

    return hook


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)
