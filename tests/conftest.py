"""Fixtures for every test: real data beside the checkout, where there is any."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from automix_transfer.console import show_log

# Bits depend on the order of sums, so on the threads: one in every process, also those that tests start,
# whoever starts the tests. Before anything imports torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The same examples in every run, so that a change is what makes a test fail; raise max_examples by hand to
# search further.
settings.register_profile("same examples", derandomize=True, deadline=None)
settings.load_profile("same examples")


@pytest.fixture(scope="session", autouse=True)
def log_on_stderr() -> None:
    """As on the command line: notes and progress are what commands print."""
    show_log()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared (real data, weights, the paper); tests that use it are skipped where it is
    missing."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: real data and weights are not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Callable[[str], Path]:
    """``shared_data("cub50")``: the folder of an archive of ../shared/data, not to be written to. Unpacked
    when first asked for, and kept for the next session, because 22,000 small files take a while."""
    place = Path(tempfile.gettempdir()) / f"automix_transfer_shared_{os.getuid()}"

    def unpack(name: str) -> Path:
        archive = shared / "data" / f"{name}.tar.gz"
        if not archive.is_file():
            pytest.skip(f"{archive} is not here")
        folder = place / f"{name}-{archive.stat().st_size}"
        if not folder.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as unpacked, tarfile.open(archive) as file:
                file.extractall(unpacked)
                try:
                    os.rename(unpacked, folder)
                    os.mkdir(unpacked)  # for TemporaryDirectory to remove
                except OSError:  # another test process was faster
                    pass
        return folder / name

    return unpack
