"""The backbones that are compared: what a person names, opened and checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automix_transfer.compared.named import folder_name, refuse_twins, split_name
from automix_transfer.errors import UserError, first_line
from automix_transfer.io import save_torch
from automix_transfer.models.encoders import EncoderInfo, create_encoder, plain_info
from automix_transfer.models.weights import load_encoder
from automix_transfer.models.weights_file import sha256_of_weights

RANDOM, TIMM = "random", "timm:"
#: in a source: each seed has a file of its own, so that differences are those of pretrainings
SEED = "{seed}"


@dataclass(frozen=True)
class Named:
    """What ``--backbones`` says: a name for the table, and where the weights come from.

    Attributes:
        source: ``random``, ``timm:NAME``, or a file or folder, with ``{seed}`` where each seed has its own.
        encoder: the network's name, where the source does not say it; empty: it says so.
        which: the encoder of a file with several; empty: the one for inference.
    """

    name: str
    source: str
    encoder: str = ""
    which: str = ""

    @property
    def drawn(self) -> bool:
        """Whether each seed has weights of its own."""
        return self.source == RANDOM or SEED in self.source

    @property
    def folder(self) -> str:
        return folder_name(self.name, "backbone")


@dataclass(frozen=True)
class Backbone:
    """A backbone of one seed: the file ('' for random weights), its digest, and its network."""

    named: Named
    file: str
    sha256: str
    info: EncoderInfo


def parse_backbones(
    values: Sequence[str], encoders: Sequence[str] = (), which: Sequence[str] = ()
) -> tuple[Named, ...]:
    """``random``, ``NAME=SOURCE`` or ``SOURCE``, in the table's order; the first is the reference.

    Args:
        encoders, which: ``NAME=VALUE`` for one backbone, or ``VALUE`` for all.

    Raises:
        UserError: two of one name, or an option that names none of them.
    """
    found: list[tuple[str, str]] = []
    for value in values:
        usual = RANDOM if value == RANDOM else Path(value.removeprefix(TIMM)).stem
        name, source = split_name(value, Path.exists, usual)
        if not value.isprintable():
            raise UserError(f"--backbones {value!r} has characters that are not printable; rename it")
        if not name or not source:
            raise UserError(f"--backbones {value} must be NAME=SOURCE, a file, timm:NAME, or {RANDOM}")
        found.append((name, source))
    names = [name for name, _ in found]
    of_encoder, of_which = (
        _by_name(option, given, names) for option, given in (("--encoder", encoders), ("--which", which))
    )
    result: list[Named] = []
    for name, source in found:
        own = "" if source == RANDOM else of_which.get(name, of_which.get("", ""))
        named = Named(name, source, of_encoder.get(name, of_encoder.get("", "")), own)
        refuse_twins("--backbones", "", name, named.folder, [other.folder for other in result], "FILE")
        result.append(named)
    return tuple(result)


def _by_name(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Name -> value; the name '' stands for all."""
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name, value = (name, value) if equals else ("", name)
        if name and name not in names:
            raise UserError(f"{option} {text} names no backbone; they are {', '.join(names)}")
        values[name] = value
    return values


def open_backbones(
    named: Sequence[Named], seeds: Sequence[int], folder: Path
) -> dict[tuple[str, int], Backbone]:
    """(name, seed) -> backbone, each file read and built whole once.

    timm's pretrained weights are written into ``folder``, once.

    Raises:
        UserError: as `load_encoder`, for any of them; ``random`` without any network to initialise.
    """
    opened: dict[str, tuple[str, str, EncoderInfo]] = {}
    result: dict[tuple[str, int], Backbone] = {}
    for one in sorted(named, key=lambda one: one.source == RANDOM):  # random has another's network
        for seed in seeds:
            source = one.source.replace(SEED, str(seed))
            key = f"{source} {one.encoder} {one.which}"
            if key not in opened:
                first = next(iter(result.values())).info if result else None
                opened[key] = _open(one, source, folder, first)
            result[one.name, seed] = Backbone(one, *opened[key])
    return result


def _open(named: Named, source: str, folder: Path, other: EncoderInfo | None) -> tuple[str, str, EncoderInfo]:
    """File, digest and network of one source."""
    if source == RANDOM:
        name = named.encoder or (other.name if other else "")
        if not name:
            raise UserError(f"--backbones {RANDOM} alone names no network; add --encoder NAME")
        stem = other.stem if other and not named.encoder else "imagenet"
        create_encoder(name, 1, stem)  # an unknown name is said here
        if other and name == other.name:
            return "", "", other
        return "", "", plain_info(name, 0, stem)
    network = named.encoder or None
    if source.startswith(TIMM):
        network = source.removeprefix(TIMM)
        source = str(_of_timm(network, folder))
    path = Path(source)
    if not path.exists():
        raise UserError(f"backbone '{named.name}': {source} does not exist; give its file")
    try:
        _, info = load_encoder(path, network, named.which or None)
    except UserError as error:
        raise UserError(f"backbone '{named.name}': {error}") from error
    return source, sha256_of_weights(path), info


def _of_timm(name: str, folder: Path) -> Path:
    """timm's pretrained weights, as a file."""
    import timm

    file = folder / f"{name}.pth"
    if not file.is_file():
        try:
            encoder = timm.create_model(name, pretrained=True)
        except Exception as error:  # timm, its hub and the network raise what they like
            raise UserError(
                f"backbone timm:{name} could not be had from timm ({first_line(error)}); where there is no "
                f"network, give its file instead: NAME=FILE --encoder NAME={name}"
            ) from error
        save_torch(file, encoder.state_dict())
    return file
