"""Read any image file as 8-bit RGB, or say in one sentence what is wrong with it.

An ordinary 8-bit RGB file decodes bit-equal to torchvision's default loader, so figures stay comparable.
Where that loader is wrong (16-bit gray, CMYK without Adobe's marker), this one is right. Transparency is
dropped and the camera's rotation flag is left alone, as they are there and in the WSOL reference; Detectron2
turns images upright, so ``upright=True`` is for its pictures.

`open_image` is the only door to Pillow: whatever opens an image of somebody else's goes through it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from automix_transfer.errors import MachineError, UserError, first_line
from automix_transfer.host.causes import cause_of, image_ends_early

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif")
# Decoders of pixels only: Pillow would also open EPS, which runs Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG2000")
MAX_PIXELS = 178_956_970  # where Pillow itself calls an image a decompression bomb
#: of a detector, which holds several copies: where Pillow itself warns of a decompression bomb
DETECTED_PIXELS = 89_478_485
MAX_BYTES = 1 << 29  # of a file; what is larger is no image of so many pixels
MAX_MEMORY = 1_000_000_000  # bytes that decoding may take
#: bytes a pixel of decoding and turning into RGB, by mode, and what decoders hold besides
_OF_MODE = {"RGB": 4, "L": 5, "1": 5}
_OF_OTHERS, _OF_FORMAT, _OF_PROGRESSIVE = 10, {"JPEG2000": 16, "WEBP": 8}, 6
#: what cameras, web sites and archives put under the name of an image, by a mark in the first bytes
_OTHER_KINDS = {
    **dict.fromkeys((b"ftyphei", b"ftypmif1", b"ftyphevc"), "HEIC (convert it to JPEG)"),
    **{
        b"ftypavi": "AVIF (convert it to JPEG)",
        b"<svg": "SVG",
        b"8bps": "PSD",
        b"%!ps": "PostScript",
        b"%pdf": "PDF",
    },
    **dict.fromkeys((b"<html", b"<!doctype html"), "a web page"),
    b"\x1f\x8b": "packed by gzip",
}
MOST_SHOWN = 1 << 25  # pixels of a picture on a page or in a figure, which were drawn for it
_LARGE, _BAND = 1 << 25, 1 << 22  # pixels above which one image is decoded at a time; of a copied part
FLAG_NOTE = "not applied, as torchvision's ImageFolder and the WSOL reference do not"
_ORIENTATION_TAG = 0x0112
_alone = threading.Lock()


def is_image_name(name: str) -> bool:
    """Whether a name is that of an image; hidden files (``._x.jpg`` of macOS archives) are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


@dataclass(frozen=True)
class ImageFacts:
    """What a check reports of an image.

    Attributes:
        width, height: pixels as stored.
        mode: as stored: RGB, L, CMYK, ...
        turned: whether it has a rotation flag, which is left alone.
        digest: of the file's bytes.
    """

    width: int
    height: int
    mode: str
    turned: bool
    digest: bytes


def require_file(path: str | Path) -> None:
    """Raise an `OSError` unless ``path`` is, or links to, a regular file of at most `MAX_BYTES`.

    A named pipe would never end to be opened, a device never to be read.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, no file", str(path))
    if found.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES:,} bytes", str(path))


def lies_in(folder: str | Path, path: str | Path) -> bool:
    """Whether ``path`` is in or below ``folder``, wherever links lead: pages and figures that people send
    hold no picture that a foreign file names elsewhere."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def open_image(source: str | Path | IO[bytes], most: int = MAX_PIXELS) -> Image.Image:
    """``PIL.Image.open`` for the formats of `FORMATS`, of regular files, of at most ``most`` pixels that take
    at most `MAX_MEMORY` to decode.

    Raises:
        OSError: no image of these formats, or no regular file.
        Image.DecompressionBombError: too many pixels.
    """
    if isinstance(source, str | Path):
        require_file(source)
    image = Image.open(source, formats=FORMATS)
    pixels, each = image.width * image.height, _OF_MODE.get(image.mode, _OF_OTHERS)
    each += _OF_FORMAT.get(image.format or "", 0) + _OF_PROGRESSIVE * bool(image.info.get("progressive"))
    if pixels > min(most, MAX_MEMORY // each):
        image.close()
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    return image


def rotation_flag(image: Image.Image) -> int:
    """The camera's rotation flag, 2 to 8; 0 where the pixels are upright.

    A TIFF has none: Pillow swaps its sides when it reads the header, and turns the pixels.
    """
    try:
        if image.format == "TIFF":
            return 0
        # a PNG's own method would decode its pixels in search of the flag
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        flag = exif.get(_ORIENTATION_TAG, 0)
        return int(flag) if flag in range(2, 9) else 0
    except Exception:  # damaged metadata is no reason to reject good pixels
        return 0


def read_header(path: str | Path, upright: bool = False) -> tuple[tuple[int, int], bool]:
    """((width, height) as `read_image` gives them, whether there is a rotation flag), from the header alone.

    Raises:
        Exception: nearly any, as Pillow's readers do on damaged files.
    """
    with open_image(path) as image:
        flag = rotation_flag(image)
        return (image.size[::-1] if upright and flag > 4 else image.size), flag > 0


def read_image(path: str | Path, content: bytes | None = None, *, upright: bool = False) -> Image.Image:
    """The image in ``path`` as a PIL image of mode RGB; of an animation, the first frame.

    Args:
        content: its bytes, where they do not lie in a file of their own; ``path`` is then what messages call
            it.
        upright: apply the camera's rotation flag, as Detectron2 does and torchvision does not.

    Raises:
        UserError: the file is missing, empty, truncated, damaged, no image, too large to be one, or of 32
            bits a channel.
    """
    return _decode(path, path if content is None else BytesIO(content), upright)[0]


def decode_image(path: str | Path, content: bytes | None = None) -> tuple[Image.Image, ImageFacts]:
    """`read_image` and what there is to say about the file."""
    try:
        if content is None:
            require_file(path)
            content = Path(path).read_bytes()
    except OSError as error:
        if cause := cause_of(error):
            raise MachineError(cause) from error
        raise UserError(
            f"image {path} could not be read ({error.strerror}); restore it or remove it from the lists"
        ) from error
    image, mode, turned = _decode(path, BytesIO(content))
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return image, ImageFacts(image.width, image.height, mode, turned, digest)


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """``np.asarray`` of an image, with one copy of a large one where that makes three."""
    if image.width * image.height <= _LARGE:
        return np.asarray(image)
    bands = range(0, image.height, rows := max(1, _BAND // image.width))
    found: NDArray[Any] | None = None
    for top in bands:
        band = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        found = np.empty((image.height, *band.shape[1:]), band.dtype) if found is None else found
        found[top : top + len(band)] = band
    assert found is not None
    return found


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


def _decode(
    path: str | Path, source: str | Path | BytesIO, upright: bool = False
) -> tuple[Image.Image, str, bool]:
    """The RGB image, its mode as stored, and whether it has a rotation flag."""
    try:
        with open_image(source) as image, _alone if image.width * image.height > _LARGE else nullcontext():
            image.load()
            flag = rotation_flag(image)
            if flag and upright:
                with suppress(Exception):  # of damaged metadata
                    ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, path), image.mode, flag > 0
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"image {path} does not exist; restore it or remove it from the lists") from error
    except OSError as error:
        if error.errno is None:  # of the decoder
            raise UserError(_damaged(path, source, error)) from error
        raise UserError(
            f"image {path} could not be read ({error.strerror}); check the path and its permissions"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"image {path} is too large to be decoded in {MAX_MEMORY // 10**9} GB (a decompression bomb? "
            f"{first_line(error)}); shrink or remove it"
        ) from error
    except MemoryError as error:
        raise UserError(f"image {path} does not fit into memory; shrink or remove it") from error
    # decoders raise nearly anything on damaged bytes: OSError, SyntaxError, struct.error, ValueError, ...
    except Exception as error:
        raise UserError(_damaged(path, source, error)) from error


def _damaged(path: str | Path, source: str | Path | BytesIO, error: Exception) -> str:
    remedy = "restore it from its source, remove it, or set data.on_bad_image=skip"
    return f"image {path} {_complaint(path, source, error)}; {remedy}"


def _complaint(path: str | Path, source: str | Path | BytesIO, error: Exception) -> str:
    try:
        if (source.getbuffer().nbytes if isinstance(source, BytesIO) else os.path.getsize(path)) == 0:
            return "is empty (0 bytes)"
    except OSError:
        pass
    if isinstance(error, Image.UnidentifiedImageError) and (kind := _other_kind(source)):
        return f"is not an image of the formats that are read, but {kind}"
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not an image, or is damaged at its start"
    if image_ends_early(error):
        return "is truncated"
    return f"is damaged ({first_line(error)[:120]})"


def _other_kind(source: str | Path | BytesIO) -> str:
    """What a file is that is no image of `FORMATS`, by its first bytes; empty if unknown."""
    if isinstance(source, BytesIO):
        start = source.getvalue()[:256].lower()
    else:
        with suppress(OSError), open(source, "rb") as file:
            start = file.read(256).lower()
    return next((kind for mark, kind in _OTHER_KINDS.items() if mark in start), "")


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and image.format in ("JPEG", "PNG") and not getattr(image, "is_animated", False):
        return image  # whole in memory by now
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
    gray = pixels_of(image)
    if gray.size and (gray.min() < 0 or gray.max() > 65535):
        raise UserError(
            f"image {path} has 32-bit pixels beyond 0 to 65535, whose range is not defined; "
            "convert it to 8 or 16 bits a channel"
        )
    eight = np.empty(gray.shape, dtype=np.uint8)
    for row, values in enumerate(gray):
        eight[row] = (values.astype(np.uint32) + 128) // 257
    return Image.fromarray(eight).convert("RGB")
