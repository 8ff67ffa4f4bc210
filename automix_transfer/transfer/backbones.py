"""The backbones that are compared: what a person names, opened and checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from automix_transfer.compared.named import folder_name, refuse_twins, split_name
from automix_transfer.errors import UserError, first_line
from automix_transfer.io import expand_home, save_torch
from automix_transfer.models.encoders import EncoderInfo, create_encoder, plain_info
from automix_transfer.models.weights import rebuild
from automix_transfer.models.weights_file import Weights, read_weights, sha256_of_weights
from automix_transfer.progress import to_stderr

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
        name, source = split_name(value, lambda path: expand_home(path).exists(), usual)
        if not value.isprintable():
            raise UserError(f"--backbones {value!r} has characters that are not printable; rename it")
        if not name or not source:
            raise UserError(f"--backbones {value} must be NAME=SOURCE, a file, timm:NAME, or {RANDOM}")
        is_file = source and source != RANDOM and not source.startswith(TIMM)
        found.append((name, str(expand_home(source)) if is_file else source))
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

    A file that does not say its network is tried as those of the others, of which every key has to fit.
    timm's pretrained weights are written into ``folder``, once.

    Raises:
        UserError: as `load_encoder`, for any of them; ``random`` without any network to initialise.
    """
    opened: dict[str, Backbone] = {}
    result: dict[tuple[str, int], Backbone] = {}
    sources = [(one, seed, one.source.replace(SEED, str(seed))) for one in named for seed in seeds]
    for one, seed, source in sorted(sources, key=_says_too_little):
        key = f"{source} {one.encoder} {one.which}"
        if key not in opened:
            opened[key] = _open(one, source, folder, [found.info for found in opened.values()])
        found = opened[key]
        own = replace(one, encoder=found.named.encoder)
        result[one.name, seed] = replace(found, named=own)
    return result


def _says_too_little(one: tuple[Named, int, str]) -> int:
    """0 for a source that says its network, 1 for a file that does not, 2 for ``random``."""
    named, _, source = one
    if source == RANDOM:
        return 2
    if named.encoder or source.startswith(TIMM) or not Path(source).exists():
        return 0
    with _called(named):
        return int(read_weights(source, named.which or None).info is None)


@contextmanager
def _called(named: Named) -> Iterator[None]:
    """What is wrong with a backbone, with its name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"backbone '{named.name}': {error}") from error


def _open(named: Named, source: str, folder: Path, others: Sequence[EncoderInfo]) -> Backbone:
    """The backbone of one source; ``named`` of it says the network where its file does not."""
    if source == RANDOM:
        other = others[0] if others else None
        name = named.encoder or (other.name if other else "")
        if not name:
            raise UserError(f"--backbones {RANDOM} alone names no network; add --encoder NAME")
        stem = other.stem if other and not named.encoder else "imagenet"
        create_encoder(name, 1, stem)  # an unknown name is said here
        same = other if other and name == other.name else None
        return Backbone(named, "", "", same or plain_info(name, 0, stem))
    network = named.encoder or None
    if source.startswith(TIMM):
        network = source.removeprefix(TIMM)
        source = str(_of_timm(network, folder))
    path = Path(source)
    with _called(named):
        if not path.exists():
            raise UserError(f"{source} does not exist; give its file")
        weights = read_weights(path, named.which or None)
        if weights.info is None and network is None:
            network = _fitting(named, weights, others)
            named = replace(named, encoder=network)
        _, info, _ = rebuild(weights, network)
    return Backbone(named, source, sha256_of_weights(path), info)


def _fitting(named: Named, weights: Weights, others: Sequence[EncoderInfo]) -> str:
    """The first network of other backbones into which all of ``weights`` fits; that is said."""
    for name in dict.fromkeys(info.name for info in others):
        try:
            rebuild(weights, name)
        except UserError:
            continue
        to_stderr(
            f"note: backbone '{named.name}' does not say its network and is taken for {name}, which fits"
        )
        return name
    raise UserError(
        f"{weights.source} does not say which encoder it holds; name it: --encoder {named.name}=NETWORK, "
        f"e.g. {named.name}=resnet50, or any timm model name"
    )


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
