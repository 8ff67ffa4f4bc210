from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from automix_transfer.training.settings import Experiment, load_experiment
from tests.training.tiny import FAST, write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 training and 13 validation images of 32 px in 3 classes."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def experiment(images: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """A fast experiment in ``tmp_path/run``, with overrides."""

    def make(*overrides: str) -> Experiment:
        return load_experiment(
            overrides=[*FAST, f"data.root={images}", f"output={tmp_path / 'run'}", *overrides]
        )

    return make
