"""A run folder explains itself: config, recipe, commit, versions, device, seed and command line."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import time
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from automix_transfer import __version__, recipes
from automix_transfer.command_line import this_command
from automix_transfer.config import to_yaml
from automix_transfer.device import device_name
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, sha256_of, write_json, write_text
from automix_transfer.owner import owned, refuse_foreign
from automix_transfer.progress import to_stderr
from automix_transfer.training.distributed import World
from automix_transfer.training.joining import by_first
from automix_transfer.training.record import checkpoint
from automix_transfer.training.settings import Experiment

RECIPES = Path(recipes.__file__).resolve().parent
#: by these git is pointed to another repository than that of the folder
GIT_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
)
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "fvcore", "omegaconf")


def owning(folder: Path, world: World) -> AbstractContextManager[None]:
    """`owner.owned` for all processes, see `by_first`."""
    return by_first(world, owned(folder, "give another output=FOLDER"))


def prepare(
    folder: Path,
    experiment: Experiment,
    world: World,
    resumed_step: int | None = None,
    recipe: dict[str, str] | None = None,
    weights: str = "",
) -> None:
    """Write ``config.yaml`` and ``run.json``; a resumed run adds itself to the list of starts.

    The recipe and the weights of a resumed run are those that it was begun with.

    Args:
        weights: which weights of which file the encoder starts from, in words.
    """
    file, before = folder / "run.json", dict[str, Any]()
    if resumed_step is not None and file.exists():
        before = _begun(file)
    start = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "from_step": resumed_step or 0,
        "command": command_line(),
        **git_commit(),
        "processes": world.size,
        "device": f"{world.device}: {device_name(world.device)}",
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"automix_transfer": __version__, **{name: version(name) for name in PACKAGES}},
    }
    about = {
        "recipe": before.get("recipe", recipe),
        "seed": experiment.seed,
        "weights": before.get("weights", weights),
        "starts": [*before.get("starts", []), start],
    }
    write_json(file, about)  # first: it tells that the folder is a run's
    write_text(folder / "config.yaml", to_yaml(experiment))


def _begun(file: Path) -> dict[str, Any]:
    """What ``run.json`` says of the starts before; a run goes on without it where it is damaged."""
    try:
        found = read_json(file)
    except UserError as error:
        to_stderr(f"note: {error}; it is written anew, without the recipe and the starts before")
        return {}
    return found if isinstance(found, dict) else {}


def recipe_of(file: Path) -> dict[str, str] | None:
    """What ``run.json`` says of a config file that is one of our recipes; None of any other file.

    ``{"name": "imagenet_r50_automix_100e", "sha256": ...}``, of the file without what it is based on.
    """
    if not file.resolve().is_relative_to(RECIPES):
        return None
    return {"name": file.stem, "sha256": sha256_of(file)}


def refuse_overwriting(folder: Path, resume: bool = False) -> None:
    """A fresh run must not write over another run's checkpoints, nor over files that are no run's.

    Args:
        resume: a run that goes on where there is a checkpoint, and is fresh where there is none.
    """
    held = [folder / checkpoint.LAST, folder / checkpoint.PREVIOUS, *checkpoint.others(folder)]
    held = [path for path in held if path.exists()]
    if held and resume:
        return
    if not (folder / "run.json").exists():
        for name in ("config.yaml", "log.csv", "log.jsonl", "metrics.json"):
            refuse_foreign(folder / name, lambda _: False, "file of a run, for it has no run.json")
    if held:
        raise UserError(
            f"{folder} already holds a checkpoint of a run ({held[0].name}); go on with --resume, or choose "
            "another folder with output=FOLDER"
        )
    if resume and (folder / "metrics.json").exists():
        raise UserError(
            f"{folder / 'metrics.json'} has the figures of a finished run, whose checkpoints are gone, so "
            "there is nothing to resume; leave --resume out to train anew, or choose another output=FOLDER"
        )


def command_line(resume: bool = False) -> str:
    """The command that started this process; with ``resume`` the one that goes on."""
    words = [word for word in this_command() if word != "--dry-run"]
    return shlex.join([*words, *(["--resume"] if resume and "--resume" not in words else [])])


def git_commit() -> dict[str, Any]:
    """Which code runs: our ``version``, the ``commit`` of our own checkout, and whether it was ``changed``.

    An installed copy has a version only: a repository that it lies in, as one whose environment holds it, or
    that git's variables point to, as in a hook, is somebody else's.
    """
    root, ours = Path(__file__).resolve().parents[3], "pyproject.toml"
    variables = {name: value for name, value in os.environ.items() if name not in GIT_VARIABLES}

    def git(*arguments: str) -> str | None:
        words = ["git", "-C", str(root), *arguments]
        try:
            done = subprocess.run(
                words, env=variables, capture_output=True, text=True, timeout=10, check=True
            )
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    # it lies at the top of the repository, is tracked there, and is of this project
    named = git("grep", "--no-color", "--full-name", "-lE", '^name = "automix_transfer"$', "--", ours)
    commit = git("rev-parse", "HEAD") if named == ours else None
    return {
        "version": __version__,
        "commit": commit,
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None,
    }


def version(name: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
