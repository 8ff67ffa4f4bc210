"""Every name that docs/api.md calls public is there, under the path that it gives."""

import pkgutil
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "api.md"


def test_every_public_name_resolves():
    names = re.findall(r"^\| `(automix_transfer[\w.]+)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 25 and len(set(names)) == len(names)
    for name in names:
        pkgutil.resolve_name(name)
