"""The house: who may import whom, and how full a room may be, read from the source."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "automix_transfer"
FILES = sorted(LIBRARY.rglob("*.py"))

#: Rooms from the ground up. A file imports rooms of lower floors, its own room, and nothing else.
FLOORS: tuple[tuple[str, ...], ...] = (
    # The ground floor: single modules that anybody may import, the recipes, which are files, and pickles.
    (
        "__init__",
        "command_line",
        "compared",
        "config",
        "console",
        "device",
        "errors",
        "host",
        "imagenet",
        "io",
        "jobs",
        "owner",
        "pickles",
        "progress",
        "rng",
        "shown",
        "signals",
        "recipes",
        "text_files",
    ),
    ("synthetic", "data", "models"),
    ("mixing",),
    ("training",),
    ("export", "localization", "evaluation", "detection"),
    ("runs", "transfer", "paper", "figures"),
    ("report",),
    # What people start.
    ("commands", "cli", "__main__"),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
#: Arrows between rooms of one floor. None runs in a circle: `test_no_circles` checks every file.
BESIDE = {
    ("detection", "export"),  # an exporter for Detectron2
    ("localization", "evaluation"),
    ("transfer", "runs"),
    ("paper", "runs"),
    ("paper", "transfer"),
    ("figures", "runs"),
    ("figures", "transfer"),
    ("figures", "paper"),
}
#: The table of methods names its classes as strings, so that it can be read without torch.
STRINGS_ALLOWED = {"mixing/table.py"}
PACKAGE_NAME = re.compile(r"automix_transfer(\.\w+)+")

#: How full a room may be; subfolders, ``__init__.py`` and the methods' folder do not count.
MOST_FILES, MOST_LINES, LONGEST_FUNCTION, WIDEST_LINE = 15, 2200, 60, 110
#: File names that stand in several rooms, because they are the same idea in each.
SHARED_NAMES = {"cli.py", "config.py", "settings.py", "loader.py", "results.py", "proof.py"}


def test_imports_go_one_way() -> None:
    wrong = []
    for file, name in every_import():
        room, other = room_of(file), name.split(".")[1]
        assert room in FLOOR, f"{room} is a new room: say in FLOORS where it stands"
        assert other in FLOOR, f"{file}: {name} is no room"
        same = room == other or FLOOR[room] == FLOOR[other] in (0, len(FLOORS) - 1)
        if FLOOR[other] >= FLOOR[room] and not same and (room, other) not in BESIDE:
            wrong.append(f"{file}: {room} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    """Between files, lazy imports included."""
    graph = defaultdict(set)
    for file, name in every_import():
        graph[module_of(file)].add(module_named(name))
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, "a circle: " + " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in sorted(graph[module] - {module}):
                visit(other)
            path.pop()
            done.add(module)

    for module in sorted(graph):
        visit(module)


def test_modules_are_not_imported_by_their_names_in_strings() -> None:
    """Such an import is an arrow that nobody sees. What is started as a process may be named."""
    wrong = []
    for file in FILES:
        relative = str(file.relative_to(LIBRARY))
        if room_of(relative) in FLOORS[-1] or relative in STRINGS_ALLOWED:
            continue
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
                "import_module",
                "__import__",
            ):
                wrong += [f"{relative}:{node.lineno}" for text in strings(node) if PACKAGE_NAME.match(text)]
    assert not wrong, "\n".join(wrong)


def test_only_detection_knows_detectron2() -> None:
    for file in FILES:
        if room_of(str(file.relative_to(LIBRARY))) not in ("detection", "commands"):
            assert not any(name.split(".")[0] == "detectron2" for name in imports(file)), file


def test_the_library_works_without_detectron2() -> None:
    """What is imported with the library imports nothing of detection/, which imports Detectron2."""
    for file, name in every_import():
        if FLOOR[room_of(file)] < FLOOR["report"] and room_of(file) != "detection":
            assert not name.startswith("automix_transfer.detection"), f"{file}: {name}"


def test_mixing_knows_no_data_set_no_optimizer_and_no_file() -> None:
    forbidden = ("torch.optim", "torchvision.datasets", "automix_transfer.io", "automix_transfer.data")
    for file in (LIBRARY / "mixing").rglob("*.py"):
        assert not any(name.startswith(forbidden) for name in imports(file)), file


def test_training_knows_no_method_by_name() -> None:
    for file in (LIBRARY / "training").rglob("*.py"):
        assert not any(name.startswith("automix_transfer.mixing.methods") for name in imports(file)), file


def test_rooms_are_not_too_full() -> None:
    files: Counter[Path] = Counter()
    lines: Counter[Path] = Counter()
    for file in FILES:
        if file.name not in ("__init__.py", "__main__.py") and file.parent.name != "methods":
            files[file.parent] += 1
            lines[file.parent] += len(file.read_text(encoding="utf-8").splitlines())
    full = [
        f"{folder.relative_to(LIBRARY.parent)}: {files[folder]} files (at most {MOST_FILES}), "
        f"{lines[folder]} lines (at most {MOST_LINES})"
        for folder in files
        if files[folder] > MOST_FILES or lines[folder] > MOST_LINES
    ]
    assert not full, "\n".join(full)


def test_functions_are_not_too_long() -> None:
    long = []
    for file in FILES:
        for node in ast.walk(tree(file)):
            if (
                isinstance(node, ast.FunctionDef)
                and (length := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION
            ):
                long.append(
                    f"{file.relative_to(LIBRARY.parent)}:{node.lineno} {node.name} has {length} lines"
                )
    assert not long, "\n".join(long)


def test_lines_are_not_too_wide() -> None:
    wide = [
        f"{file.relative_to(LIBRARY.parent)}:{number} has {len(line)} columns"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > WIDEST_LINE
    ]
    assert not wide, "\n".join(wide)


def test_a_file_name_stands_in_one_room() -> None:
    rooms = defaultdict(list)
    for file in FILES:
        if file.name not in {"__init__.py", "__main__.py"} | SHARED_NAMES:
            rooms[file.name].append(str(file.parent.relative_to(LIBRARY)))
    twice = [f"{name} stands in {', '.join(where)}" for name, where in rooms.items() if len(where) > 1]
    assert not twice, "\n".join(twice)


def every_import() -> Iterator[tuple[str, str]]:
    """(file, name) for every import of ours, anywhere in a file; files relative to the library."""
    for file in FILES:
        for name in sorted(imports(file)):
            if name.startswith("automix_transfer."):
                yield str(file.relative_to(LIBRARY)), name


@cache
def imports(file: Path) -> frozenset[str]:
    """Full names of every module that ``file`` imports, lazily or not; relative imports are resolved."""
    package = ["automix_transfer", *file.relative_to(LIBRARY).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            modules = {f"{base}.{alias.name}" for alias in node.names if is_module(f"{base}.{alias.name}")}
            found |= modules if len(modules) == len(node.names) else modules | {base}
    return frozenset(found)


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def strings(node: ast.AST) -> list[str]:
    return [
        found.value
        for found in ast.walk(node)
        if isinstance(found, ast.Constant) and isinstance(found.value, str)
    ]


def is_module(name: str) -> bool:
    path = LIBRARY.parent / name.replace(".", "/")
    return name.startswith("automix_transfer.") and (path.with_suffix(".py").is_file() or path.is_dir())


def room_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def module_of(file: str) -> str:
    return "automix_transfer." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def module_named(name: str) -> str:
    """The module that holds ``name``, which may be a package."""
    return name if is_module(name) else name.rpartition(".")[0]
