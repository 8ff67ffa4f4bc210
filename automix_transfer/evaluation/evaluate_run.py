"""The evaluation that lies in a run's folder, measured now where there is none."""

from __future__ import annotations

from pathlib import Path

from automix_transfer.evaluation.cli import main
from automix_transfer.evaluation.output import EVALUATION


def evaluation_of(
    path: Path, data: Path | None = None, suite: str = "clean,calibration", name: str = EVALUATION
) -> Path:
    """The file ``name`` in a run's folder; where there is none, the run is evaluated by ``suite`` now.

    A JSON file is taken as it is.
    """
    if path.is_file() and path.suffix == ".json":
        return path
    folder = path if path.is_dir() else path.parent
    if not (folder / name).is_file():
        where = ["--run", str(path), "--output", str(folder / EVALUATION)]
        main([*where, "--suite", suite, *(["--data", str(data)] if data is not None else [])])
    return folder / name
