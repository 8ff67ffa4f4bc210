"""MATLAB files, read in a process of their own, because SciPy crashes on some damaged ones.

``python -m automix_transfer.data.layouts.matlab FILE VARIABLE`` prints the variable as JSON: a list of texts,
or of structs as objects.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from automix_transfer.command_line import PYTHON
from automix_transfer.errors import UserError

MOST_BYTES, MOST_SECONDS = 2**29, 15  # that the process may take: a small file can unpack to a large one
SECONDS = 300  # the largest file that is read here has 16,000 rows and takes one


def read_matlab(file: Path, variable: str, remedy: str) -> list[Any]:
    """A vector of texts or structs: a list of strings, numbers, or dicts of them.

    Costs the start of a process, half a second.

    Raises:
        UserError: the file is missing or damaged, or does not hold the variable.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing; {remedy}")
    command = [*PYTHON, "-m", "automix_transfer.data.layouts.matlab", str(file.absolute()), variable]
    try:
        result = subprocess.run(command, capture_output=True, timeout=SECONDS)
        content = json.loads(result.stdout) if result.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        content = None
    if content is None:
        raise UserError(f"{file} could not be read as a MATLAB file, or has no '{variable}'; {remedy}")
    return content


def plain(value: Any) -> Any:
    """A value of SciPy's as text, number, or list or dict of them."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype.names:
        return [{name: plain(row[name]) for name in array.dtype.names} for row in array.ravel()]
    if array.ndim:
        return [plain(item) for item in array.ravel()]
    item = array.item()
    return (
        item if isinstance(item, (int, float, str)) else plain(item) if isinstance(item, np.ndarray) else None
    )


def main(file: str, variable: str) -> None:
    from scipy.io import loadmat

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, most in ((resource.RLIMIT_AS, used + MOST_BYTES), (resource.RLIMIT_CPU, MOST_SECONDS)):
        hard = resource.getrlimit(kind)[1]  # of a user or a cluster, which cannot be raised
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    print(json.dumps(plain(loadmat(file, squeeze_me=True, variable_names=[variable])[variable])))


if __name__ == "__main__":
    main(*sys.argv[1:])
