"""Who may import whom, read from the source: data flows one way, and only one folder knows Detectron2."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "automix_transfer"
# single modules that anyone may import
BASE = {"errors", "rng", "config", "io", "jobs", "imagenet", "progress", "__init__"}
ALLOWED = {  # room -> rooms that it may import, besides itself and the base
    **{name: set() for name in BASE},
    "data": set(),
    "models": set(),
    "mixing": {"data", "models"},
    "training": {"data", "models", "mixing"},
    "evaluation": {"data", "models", "mixing", "training"},
    # asks detection for a proof, where it is installed
    "export": {"data", "models", "mixing", "training", "detection"},
    "localization": {"data", "models", "mixing", "training", "evaluation"},
    "detection": {"data", "models", "training", "export"},
    "report": {"data", "models", "mixing", "training", "export", "detection", "localization", "evaluation"},
    "cli": set(),  # starts scripts, and imports none
    "__main__": {"cli"},
    "doctor": {"training", "detection"},
    "demo": {
        "data",
        "models",
        "mixing",
        "training",
        "export",
        "detection",
        "localization",
        "evaluation",
        "report",
    },
}
FILES = sorted(LIBRARY.rglob("*.py"))


def room_of(file: Path) -> str:
    relative = file.relative_to(LIBRARY)
    return relative.parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Full names of every module that ``file`` imports, anywhere in it; relative imports are resolved."""
    package = ["automix_transfer", *file.relative_to(LIBRARY).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= (
                {base, *(f"{base}.{alias.name}" for alias in node.names)}
                if base == "automix_transfer"
                else {base}
            )
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_imports_go_one_way(file: Path) -> None:
    room = room_of(file)
    assert room in ALLOWED, f"{room} is a new room: say in ALLOWED what it may import"
    for name in imports(file):
        if name.startswith("automix_transfer."):
            other = name.split(".")[1]
            assert other in BASE | ALLOWED[room] | {room} or other.startswith("__"), (
                f"{file.relative_to(LIBRARY)} imports {name}"
            )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_only_detection_knows_detectron2(file: Path) -> None:
    if room_of(file) != "detection":
        assert not any(name.split(".")[0] == "detectron2" for name in imports(file))


def test_mixing_knows_no_data_set_no_optimizer_and_no_file() -> None:
    for file in (LIBRARY / "mixing").rglob("*.py"):
        names = imports(file)
        assert not any(
            name.startswith(("torch.optim", "torchvision.datasets", "automix_transfer.io")) for name in names
        ), file.name


def test_the_library_works_without_detectron2() -> None:
    """Nothing that is imported with the library imports Detectron2's glue, which imports Detectron2 where it
    is installed."""
    for file in FILES:
        if room_of(file) not in ("detection", "export", "report", "demo", "doctor"):
            assert not any(name.startswith("automix_transfer.detection") for name in imports(file)), file
