"""Compiled loops work where nothing can be kept."""

from __future__ import annotations

import errno
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from numba.core import caching

from automix_transfer.host.compiled import compiled

SOURCE = """from automix_transfer.host.compiled import compiled
@compiled
def double(x):
    return 2 * x
"""


def imported(folder: Path) -> ModuleType:
    file = folder / "loops.py"
    if not file.exists():  # its time is part of what numba knows it by
        file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("loops", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_machine_code_is_kept_beside_the_file(tmp_path: Path) -> None:
    assert imported(tmp_path).double(3) == 6
    assert list(tmp_path.rglob("loops.double*.nbi")) and list(tmp_path.rglob("loops.double*.nbc"))
    again = imported(tmp_path).double
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 1


def test_without_a_place_it_is_compiled_in_memory() -> None:
    names: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x", names)  # it has no file, so numba refuses to keep it
    assert compiled(names["double"])(3) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["save", "load"])
def test_a_full_disk_and_a_damaged_cache_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device") if what == "save" else EOFError

    monkeypatch.setattr(caching.IndexDataCacheFile, what, broken)
    assert imported(tmp_path).double(3) == 6
