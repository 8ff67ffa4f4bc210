"""Find a recipe by its bare name."""

from __future__ import annotations

from pathlib import Path

from automix_transfer.errors import UserError, did_you_mean, warn_renamed

#: the folder of all recipes, one folder a kind of training
RECIPES = Path(__file__).parent
#: what every fine-tuning begins with, a recipe or none
PROTOCOL = RECIPES / "finegrained" / "procedures" / "finetune.yaml"
FOLDERS = ("pretrain", "finegrained", "detection")


def find_recipe(name: str | Path, *folders: str, beside: Path = Path()) -> Path:
    """The file that a user means by ``name``.

    Args:
        name: a path, or the bare name of a recipe, with or without ``.yaml``. A file wins over a recipe.
        folders: where bare names are looked for, the first that has it; all of `FOLDERS` where none is given.
        beside: the folder that a relative path starts from.

    Raises:
        UserError: a bare name of no file and no recipe; the closest recipe is suggested.
    """
    path = beside / name
    if path.is_file():
        return path
    if len(Path(name).parts) != 1:
        return _moved(path) or path
    known: dict[str, Path] = {}
    for folder in folders or FOLDERS:
        for file in sorted((RECIPES / folder).glob("*.yaml")):
            known.setdefault(file.stem, file)
    stem = str(name).removesuffix(".yaml")
    if stem in known:
        return known[stem]
    hint = did_you_mean(stem, known, f"{len(known)} recipes lie in {RECIPES}")
    raise UserError(f"config file {path} does not exist, and no recipe has this name; {hint}")


def _moved(path: Path) -> Path | None:
    """The recipe that lay at ``path`` before 0.2 (``detection/configs/NAME.yaml``), with a warning."""
    folder, configs, name = ("", "", *path.parts)[-3:]
    recipe = RECIPES / folder / f"{name.removesuffix('.yaml')}.yaml"
    if configs != "configs" or folder not in FOLDERS or not recipe.is_file():
        return None
    warn_renamed(str(path), recipe.stem)
    return recipe
