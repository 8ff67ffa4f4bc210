from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real weights and images beside the checkout."""
    folder = Path(__file__).resolve().parents[3] / "shared"
    if not (folder / "weights").is_dir():
        pytest.skip("needs the real weights of ../shared, which is not here")
    return folder
