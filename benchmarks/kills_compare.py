"""What a command has left in its folder, file by file, without what is about time and place."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automix_transfer.io import load_torch

#: the spare checkpoint, of whatever step a start saved first; logs for people; a line for each start; and
#: curves whose values log.jsonl and metrics.json hold too
PASSING = ("previous.pt", "log.txt", "*.log", "run.json", "events.out.*")
#: keys that are about time, place or the number of starts
TIMES = frozenset(
    (
        *("seconds", "time", "data_time", "rank_data_time", "eta_seconds", "images_per_s", "data_share"),
        *(
            "command",
            "commit",
            "changed",
            "date",
            "created",
            "saved",
            "mtime",
            "ctime",
            "mtime_ns",
            "ctime_ns",
        ),
    )
)


def digest(folder: Path) -> dict[str, str]:
    """A hash of each file below ``folder``, locks and half-written ones included."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(file.match(pattern) for pattern in PASSING):
            continue
        text = "".join(_content(file)).replace(str(folder), "{out}")
        found[file.relative_to(folder).as_posix()] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _content(file: Path) -> Iterator[str]:
    if file.suffix in (".pt", ".pth"):
        yield from flat(load_torch(file))
    elif file.name.endswith(".packed.json"):  # marks of sizes and times
        yield from flat(sorted(json.loads(file.read_text(encoding="utf-8"))))
    elif file.suffix in (".json", ".jsonl"):
        text = file.read_text(encoding="utf-8")
        try:
            yield from flat(json.loads(text))
        except json.JSONDecodeError:  # an object a line
            yield from flat([json.loads(line) for line in text.splitlines()])
    elif file.suffix == ".csv":
        yield from flat(list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())))
    elif file.suffix == ".yaml":
        yield file.read_text(encoding="utf-8")
    elif file.suffix == ".html":  # a page says when it was written
        yield re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", file.read_text(encoding="utf-8"))
    else:
        yield hashlib.sha256(file.read_bytes()).hexdigest()


def flat(value: Any, key: str = "") -> Iterator[str]:
    """Every value of nested ones, as text: tensors and arrays by their bits, numbers by all their digits."""
    if isinstance(value, torch.Tensor):
        yield from flat(
            value.detach().contiguous().flatten().view(torch.uint8).numpy(), f"{key}:{value.dtype}"
        )
    elif isinstance(value, np.ndarray):
        bits = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        yield f"{key}:{value.dtype}{value.shape}={bits};"
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if name not in TIMES:
                yield from flat(one, f"{key}/{name}")
    elif isinstance(value, list | tuple):
        yield f"{key}#{len(value)};"
        for number, one in enumerate(value):
            yield from flat(one, f"{key}/{number}")
    else:
        yield f"{key}={value!r};"
