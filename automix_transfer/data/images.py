"""Read any image file as 8-bit RGB, upright, or say in one sentence what is wrong with it.

An ordinary 8-bit RGB file decodes bit-equal to torchvision's default loader, so figures stay comparable.
Where that loader is wrong (rotation flags, 16-bit gray, CMYK without Adobe's marker), this one is right.
Transparency is dropped as it is there.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from automix_transfer.errors import UserError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif")
# Decoders of pixels only: Pillow would also open EPS, which runs Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG2000")
MAX_PIXELS = 178_956_970  # where Pillow itself calls an image a decompression bomb
_ORIENTATION_TAG, _TURNED = 0x0112, range(2, 9)


def is_image_name(name: str) -> bool:
    """Whether a name is that of an image; hidden files (``._x.jpg`` of macOS archives) are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


@dataclass(frozen=True)
class ImageFacts:
    """What a check reports of an image.

    Attributes:
        width, height: pixels once upright.
        mode: as stored: RGB, L, CMYK, ...
        turned: whether its rotation flag turned it.
        digest: of the file's bytes.
    """

    width: int
    height: int
    mode: str
    turned: bool
    digest: bytes


def read_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """The image in ``path`` as an upright PIL image of mode RGB; of an animation, the first frame.

    Args:
        content: its bytes, where they do not lie in a file of their own; ``path`` is then what messages call
            it.

    Raises:
        UserError: the file is missing, empty, truncated, damaged, no image, too large to be one, or of 32
            bits a channel.
    """
    return _decode(path, path if content is None else BytesIO(content))[0]


def decode_image(path: str | Path, content: bytes | None = None) -> tuple[Image.Image, ImageFacts]:
    """`read_image` and what there is to say about the file."""
    try:
        content = Path(path).read_bytes() if content is None else content
    except OSError as error:
        raise UserError(
            f"image {path} could not be read ({error.strerror}); restore it or remove it from the lists"
        ) from error
    image, mode, turned = _decode(path, BytesIO(content))
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return image, ImageFacts(image.width, image.height, mode, turned, digest)


def cut_bottom(image: Image.Image, rows: int, path: Path) -> Image.Image:
    """``image`` without its lowest ``rows`` rows.

    Raises:
        UserError: the image is not higher than that.
    """
    if rows == 0:
        return image
    if image.height <= rows:
        raise UserError(
            f"image {path} is only {image.height} pixels high, so its {rows}-pixel banner cannot be cut off; "
            "set data.crop_banner=false"
        )
    return image.crop((0, 0, image.width, image.height - rows))


def _decode(path: str | Path, source: str | Path | BytesIO) -> tuple[Image.Image, str, bool]:
    """The upright RGB image, its mode as stored, and whether it was turned."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            turned = _turn_upright(image)
            return _to_rgb(image, path), image.mode, turned
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"image {path} does not exist; restore it or remove it from the lists") from error
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"image {path} could not be read ({error.strerror}); check the path and its permissions"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"image {path} would decode to more than {MAX_PIXELS:,} pixels (a decompression bomb?); "
            "shrink or remove it"
        ) from error
    except MemoryError as error:
        raise UserError(f"image {path} does not fit into memory; shrink or remove it") from error
    # decoders raise nearly anything on damaged bytes: OSError, SyntaxError, struct.error, ValueError, ...
    except Exception as error:
        raise UserError(
            f"image {path} {_complaint(path, source, error)}; restore it from its source, remove it, "
            "or set data.on_bad_image=skip"
        ) from error


def _complaint(path: str | Path, source: str | Path | BytesIO, error: Exception) -> str:
    try:
        if (source.getbuffer().nbytes if isinstance(source, BytesIO) else os.path.getsize(path)) == 0:
            return "is empty (0 bytes)"
    except OSError:
        pass
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not an image, or is damaged at its start"
    if "truncated" in str(error).lower():
        return "is truncated"
    return f"is damaged ({first_line(error)[:120]})"


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    mode = image.mode
    if mode == "RGB":
        return image.copy()  # outlives the file it was read from
    if mode.startswith("I"):
        return _from_16_bit(image, path)
    if mode == "F":
        raise UserError(
            f"image {path} has 32-bit float pixels, whose range is not defined; convert it to 8 or 16 bits a "
            "channel"
        )
    if mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow inverts every CMYK JPEG, as Adobe's programs store them; without Adobe's marker 0 means no
        # ink.
        image = image.point(lambda value: 255 - value)
    if mode in ("P", "PA", "RGBa", "La"):
        # straight to RGB, Pillow warns about a palette's transparency or refuses
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, path: str | Path) -> Image.Image:
    """Gray of 16 bits to 8, v / 257 rounded.

    Pillow's own conversion clips at 255, which turns most of the image white.
    """
    gray = np.asarray(image)
    if gray.size and (gray.min() < 0 or gray.max() > 65535):
        raise UserError(
            f"image {path} has 32-bit pixels beyond 0 to 65535, whose range is not defined; "
            "convert it to 8 or 16 bits a channel"
        )
    return Image.fromarray(((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _turn_upright(image: Image.Image) -> bool:
    """Undo the camera's rotation flag in place; whether there was one.

    Called after decoding: a TIFF is turned by Pillow itself, which then removes the flag.
    """
    turned = False
    try:
        turned = image.getexif().get(_ORIENTATION_TAG) in _TURNED
        if turned:
            ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged metadata is no reason to reject good pixels
        pass
    return turned
