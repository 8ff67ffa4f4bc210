"""Pictures as data URIs, within a budget: a report is one file that people send by mail."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from automix_transfer.data.images import MOST_SHOWN, lies_in, open_image, require_file

BUDGET = 11_000_000  #: bytes of pictures before base64, which adds a third: below 15 MB a page
LARGE = 120_000  #: PNGs above this are photographs, which WebP stores in a fifth


@dataclass(frozen=True)
class Picture:
    """A picture inside the page, with its size in pixels so that nothing moves while it loads."""

    uri: str
    width: int
    height: int
    file: str


class Embedder:
    """Turns image files into `Picture`; what cannot be shown becomes a sentence in ``problems``."""

    def __init__(self, problems: list[str], budget: int = BUDGET) -> None:
        self.problems, self.left = problems, budget

    def embed(self, path: Path, folder: Path | None = None) -> Picture | None:
        """The picture in ``path``, or None if it cannot be read or the page is full.

        ``folder`` (default: that of ``path``) is where it may lie: a page that people send must not hold what
        a file of a run names or links to elsewhere.
        """
        if not lies_in(folder or path.parent, path):
            self.problems.append(f"{path} is left out, because it lies outside of its folder")
            return None
        try:
            require_file(path)
            data = path.read_bytes()
            with open_image(io.BytesIO(data), MOST_SHOWN) as image:
                image.load()
                size, kind = image.size, (image.format or "png").lower()
                if len(data) > LARGE:
                    buffer = io.BytesIO()
                    image.convert("RGB").save(buffer, format="WEBP", quality=88, method=3)
                    if buffer.tell() < 0.7 * len(data):
                        data, kind = buffer.getvalue(), "webp"
        # PIL raises SyntaxError for broken PNGs
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            self.problems.append(
                f"{path} is not a picture that can be shown "
                f"({str(error).splitlines()[0] if str(error) else 'damaged'})"
            )
            return None
        if len(data) > self.left:
            self.problems.append(f"{path} is left out, because the page would grow beyond 15 MB")
            return None
        self.left -= len(data)
        return Picture(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", *size, path.name)
