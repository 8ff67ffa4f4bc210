"""Put the pages of the documentation together: docs/, the folders' READMEs, and what is generated.

python docs/pages.py docs/_build/source    # `make docs` goes on with Sphinx

Nothing is written twice: a README is a page; recipes, methods and the Python API are read from the library.
A link is written so that it works in the repository, and becomes one to the page, or to a copy of the file.
One that leads nowhere ends this with exit code 2.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import pkgutil
import re
import shutil
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from automix_transfer.data.registry import LAYOUTS
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import write_text
from automix_transfer.mixing.losses import LossOptions
from automix_transfer.mixing.table import METHODS, Entry
from automix_transfer.recipes.find import RECIPES
from automix_transfer.recipes.recipe import TABLES, Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[1]
#: page -> the file that it is; those of docs/ and of benchmarks/results/ come besides
ELSEWHERE = {
    "pretrain": "pretrain/README.md",
    "detect": "detection/README.md",
    "localize": "wsol/README.md",
    "finetune": "finegrained/README.md",
    "measured": "benchmarks/RESULTS.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
    "changelog": "CHANGELOG.md",
}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^( *)(```+)(\w*)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)


#: what stands in a page for the code of a function or a method
SOURCE = re.compile(r"(?<=```python\n)# (automix_transfer/[\w/]+)\.py: ([\w.]+)(?=\n```)")


def sources() -> dict[str, str]:
    """Every page that is a file of the repository: its name here -> the file, relative to the root."""
    pages = {file.stem: f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))}
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    return pages | ELSEWHERE | {f"results/{file.stem}": f"benchmarks/results/{file.name}" for file in results}


def assemble(target: Path) -> list[str]:
    """Write every page below ``target`` and return their names.

    Raises:
        UserError: links that lead nowhere, all of them.
    """
    pages, broken = sources(), []
    texts = {page: (file, (ROOT / file).read_text(encoding="utf-8")) for page, file in pages.items()}
    texts |= {page: (f"docs/{page}.md", make()) for page, make in GENERATED.items()}
    texts["index"] = ("docs/index.md", contents(texts["index"][1], texts))
    places = {f"docs/{page}.md": page for page in texts} | {file: page for page, (file, _) in texts.items()}
    places["README.md"] = "index"
    for page, (file, text) in texts.items():
        linked = Linked(page, file, places, target)
        text = SOURCE.sub(source, text)
        text = outside_of_code(text, lambda part, linked=linked: LINK.sub(linked, part))
        broken += linked.broken
        path = target / f"{page}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)  # Sphinx reads again what has changed
    for left in set(target.rglob("*.md")) - {target / f"{page}.md" for page in texts}:
        if "files" not in left.relative_to(target).parts:
            left.unlink()
    if broken:
        raise UserError("links lead nowhere; correct them or name the page in docs/pages.py", *broken)
    return list(texts)


def source(match: re.Match[str]) -> str:
    """The code of what ``match`` names, with its file."""
    code = inspect.getsource(pkgutil.resolve_name(f"{match[1].replace('/', '.')}:{match[2]}"))
    return f"{match[0]}\n{textwrap.dedent(code).rstrip()}"


def contents(index: str, pages: Iterable[str]) -> str:
    """The text of the first page, whose tables of contents name pages; the line ``...`` stands for all pages
    that they do not name."""
    trees = "".join(re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.MULTILINE | re.DOTALL))
    named = {"index", *re.findall(r"^(?:.* <)?([\w/]+)>?$", trees, re.MULTILINE)}
    others = [page for page in pages if page not in named and "/" not in page]
    return index.replace("\n...\n", "".join(f"\n{page}" for page in others) + "\n")


@dataclasses.dataclass
class Linked:
    """Links of one page, each as it has to be where the page stands now."""

    page: str
    file: str
    places: dict[str, str]
    target: Path
    broken: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, match: re.Match[str]) -> str:
        text, where, anchor = match[1], match[2], match[3] or ""
        if not where or "://" in where or where.startswith("mailto:"):
            return match[0]
        named = os.path.normpath(os.path.join(os.path.dirname(self.file), where))
        if named in self.places:
            return f"{text}({self.relative(self.places[named])}.md{anchor})"
        if not (ROOT / named).is_file() or named.startswith(".."):
            self.broken.append(f"{self.file}: {where}")
            return match[0]
        copy = self.target / "files" / named
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / named, copy)
        return f"{text}({self.relative(f'files/{named}')})"

    def relative(self, place: str) -> str:
        return os.path.relpath(place, os.path.dirname(self.page) or ".")


def outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """``change`` applied to all that stands between fences; commands in fences get colours."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        language = fence[3] or ("sh" if re.search(r"^(automix-transfer|make|pip) ", fence[4], re.M) else "")
        opening = f"{fence[1]}{fence[2]}{language}\n"
        parts += [change(text[end : fence.start()]), opening, fence[4], f"{fence[1]}{fence[2]}"]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


# What is generated


def recipes_page() -> str:
    """Every recipe: the paper's table and cell, the number, and what its head says."""
    read = {
        folder: [read_recipe(file) for file in sorted((RECIPES / folder).glob("*.yaml"))]
        for folder in ("pretrain", "finegrained", "detection")
    }
    found = [recipe for folder in ("pretrain", "finegrained") for recipe in read[folder]]
    tables: dict[int, list[Recipe]] = defaultdict(list)
    for recipe in found:
        tables[recipe.table if recipe.table in TABLES else 0].append(recipe)
    lines = [RECIPES_HEAD % (len(found), len(read["detection"]))]
    for table, title in TABLES.items():
        if tables[table]:
            lines += [f"## Table {table}: {title}", "", *table_of(tables[table])]
    lines += ["## Without a number in the paper", "", *heads_of(tables[0])]
    detection = [recipe for recipe in read["detection"] if not recipe.file.stem.startswith("Base-")]
    return "\n".join([*lines, "## Detection", "", DETECTION_HEAD, "", *heads_of(detection)])


def table_of(recipes: list[Recipe]) -> Iterator[str]:
    """A row a recipe; recipes of one cell follow each other."""
    yield from ("| recipe | top-1, % | cell |", "| --- | --- | --- |")
    for recipe in sorted(recipes, key=lambda recipe: (recipe.cell, recipe.value or 0)):
        yield f"| `{recipe.file.stem}` | {recipe.value:.2f} | {', '.join(recipe.cell)} |"
    yield ""


def heads_of(recipes: list[Recipe]) -> Iterator[str]:
    """A row a recipe, with the first sentence of its head."""
    yield from ("| recipe | |", "| --- | --- |")
    for recipe in recipes:
        yield f"| `{recipe.file.stem}` | {cell_text(recipe.first)} |"
    yield ""


def datasets_page() -> str:
    """Every data set that is read as it was released: name, splits, files, and where they come from."""
    lines = [DATASETS_HEAD]
    for name, layout in LAYOUTS.items():
        parts = ", ".join(f"`{split}`" for split in layout.splits)
        files = re.sub(r"(ROOT/?[\w./<>*{},-]*)", r"`\1`", layout.files)
        files = re.sub(r"`([^`]*?)([,.]?)`", r"`\1`\2", files)
        lines += [f"## {name}", "", f"`data.dataset={name}`, splits {parts}.", "", f"{files}.", ""]
    return "\n".join([*lines, DETECTION_DATA])


def methods_page() -> str:
    """Every method: its idea, what it costs, and its options with their defaults."""
    return "\n".join(
        [METHODS_HEAD, *(part for name in METHODS for part in method_lines(name, METHODS[name]))]
    )


def method_lines(name: str, entry: Entry) -> Iterator[str]:
    made, options = entry.load(), entry.options_class()
    yield from (f"## {entry.title}", "", f"`method.name={name}`, {entry.paper or 'the baseline'}.", "")
    module = sys.modules[made.__module__ if inspect.isclass(made) else options.__module__]
    ideas = [module.__doc__, made.__doc__] if inspect.isclass(made) else [inspect.getdoc(made)]
    for idea in ideas:
        yield from (first_paragraph(idea or ""), "")
    file = Path(inspect.getfile(made)).relative_to(ROOT)
    needs = f" Needs: {entry.needs}." if entry.needs else ""
    yield from (f"Passes a step: {entry.passes}. Label: {entry.label}.{needs} File: [{file}](../{file}).", "")
    shared = {} if name == "vanilla" else vars(LossOptions())
    fields = [f.name for f in dataclasses.fields(options)]
    own = [field for field in fields if field not in shared or getattr(options(), field) != shared[field]]
    said = said_of(options)
    yield from ("| option | default | |", "| --- | --- | --- |") if own else ()
    for field in own:
        yield f"| `{field}` | `{getattr(options(), field)!r}` | {cell_text(said[field])} |"
    yield ""


def said_of(options: type) -> dict[str, str]:
    """What the source says of each option: in its class's docstring, or in comments at its line."""
    said: dict[str, str] = {}
    names = "|".join(field.name for field in dataclasses.fields(options))
    named = re.compile(rf"((?:(?:``)?\b(?:{names})\b(?:``)?,? ?)+)(?: \w)?: ?")
    for kind in reversed(options.__mro__[:-1]):
        lines = inspect.getsourcelines(kind)[0]
        for node in ast.parse(textwrap.dedent("".join(lines))).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign):
                text = comments(lines, node.lineno, node.end_lineno or 0)
                said[node.target.id] = text or said.get(node.target.id, "")  # type: ignore[union-attr]
        doc = kind.__dict__.get("__doc__") or ""
        for entry in re.split(r"\n {8}(?=\w)", doc.partition("Attributes:")[2] or doc):
            _, *parts = named.split(" ".join(entry.split()))
            for which, text in zip(parts[::2], parts[1::2], strict=True):
                said |= dict.fromkeys(re.findall(r"\w+", which), text.strip(" ;"))
    return said


def comments(lines: list[str], first: int, last: int) -> str:
    """The comment lines above the lines ``first`` to ``last`` of a class (from 1), and those behind them.

    A line behind a blank one that begins with a capital is the heading of a group.
    """
    above: list[str] = []
    for number in range(first - 2, 0, -1):
        text = lines[number].strip(" #\n")
        heading = not lines[number - 1].strip() and text[:1].isupper()
        if not lines[number].strip().startswith("#") or heading:
            break
        above.insert(0, text)
    behind = [match[1] for line in lines[first - 1 : last] if (match := re.search(r"  # (.*)", line))]
    return " ".join(above + behind)


def python_page() -> str:
    """Every name of docs/api.md with its docstring."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    lines, missing = [PYTHON_HEAD], []
    for heading, body in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| `(automix_transfer[\w.]+)` \| (.*) \|$", body, re.MULTILINE)
        lines += [f"## {heading}", ""] if rows else []
        for name, what in rows:
            found = pkgutil.resolve_name(name)
            lines += [f"### {name.rpartition('.')[2]}", ""]
            if not callable(found):  # a constant has no docstring
                lines += [f"`{name}`: {what}.", ""]
                continue
            missing += [] if inspect.getdoc(found) else [name]
            kind = "autoclass" if inspect.isclass(found) else "autofunction"
            lines += ["```{eval-rst}", f".. {kind}:: {name}", "```", ""]
    if missing:
        raise UserError(f"these public names have no docstring: {', '.join(missing)}")
    return "\n".join(lines)


def tour_page() -> str:
    """The notebook as a page, without its outputs."""
    cells = json.loads((ROOT / TOUR).read_text(encoding="utf-8"))["cells"]
    shape = {"markdown": "%s", "code": "```python\n%s\n```"}
    parts = [shape[cell["cell_type"]] % "".join(cell["source"]) for cell in cells]
    return "\n\n".join([*parts[:1], TOUR_HEAD, *parts[1:]]) + "\n"


def first_paragraph(doc: str) -> str:
    text = " ".join(inspect.cleandoc(doc).partition("\n\n")[0].split())
    return text.replace("``", "`")


def cell_text(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


RECIPES_HEAD = """# Recipes

%d recipes train encoders, %d files configure detectors. A recipe is named without its ending:

```
automix-transfer pretrain --config-file cifar100_r18_automix data.root=/data/cifar100 output=runs/cifar100
```

Its head says which cell of which table of the paper it belongs to and the number that stands there, the
hardware, the time and the command; `automix-transfer pretrain --list` and `automix-transfer finetune --list`
print the same. The numbers are the paper's, not measurements of ours. A recipe is made of parts, see
[pretraining](pretrain.md#recipes).
"""
DETECTION_HEAD = (
    "Files of Detectron2's form, for `automix-transfer detect --config-file NAME`; see "
    "[detection](detect.md#recipes)."
)
DATASETS_HEAD = """# Data sets

What is read as it was released; `data.root` is ROOT. `automix-transfer data check` says whether a copy is
complete:

```
automix-transfer data check --dataset cub --root /data/CUB_200_2011
```

Other places, names and halves of these layouts that are read too: [labelled images](data.md#data-sets).
"""
DETECTION_DATA = """## VOC and COCO

`DETECTRON2_DATASETS` names the folder that holds `VOC2007/`, `VOC2012/` and `coco/`, as Detectron2 expects
them; `--data-root` takes any other folder in one of the two layouts: [detection](detect.md#data).
"""
METHODS_HEAD = """# Methods, one by one

What each method does, in the words of its source, with every option that `method.*` sets in a recipe.
[Mixups](mixing.md) has all of them in one picture and one table, with what their authors' code does
otherwise, and how they are used in a loop of your own. AutoMix stands there [equation by
equation](equations.md), and its options are set together by [presets](automix.md).

The options of the loss, which stand at Vanilla, are those of every method; further down they stand only
where a default differs. i is an image and j its partner, another image of the batch; λ ~ Beta(α, α) is the
share of image i.
"""
PYTHON_HEAD = """# Python API

Every public name with its docstring. [What is public](api.md) says what is promised of them, and which
options, files and exit codes are public besides. Import from the path that is given here.
"""
TOUR = Path("examples/tour.ipynb")
TOUR_HEAD = (
    f"This page is a notebook: [{TOUR}](../{TOUR}). Its outputs are yours to make, in two minutes on a CPU."
)
GENERATED: dict[str, Callable[[], str]] = {
    "tour": tour_page,
    "datasets": datasets_page,
    "recipes": recipes_page,
    "methods": methods_page,
    "python": python_page,
}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    target: Any = (sys.argv[1:] if arguments is None else arguments) or ["docs/_build/source"]
    print(f"{len(assemble(Path(target[0])))} pages in {target[0]}")


if __name__ == "__main__":
    run_script(main)
