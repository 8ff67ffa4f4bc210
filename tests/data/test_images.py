"""Every kind of file in a folder of images is read right or refused in one sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import default_loader

from automix_transfer.data import images
from automix_transfer.data.images import decode_image, is_image_name, read_header, read_image
from automix_transfer.errors import UserError
from tests.data import trees

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # Pillow warns about the damage that is made here
SMOOTH = np.stack(
    [*np.meshgrid(np.linspace(0, 255, 24), np.linspace(0, 255, 16)), np.full((16, 24), 90.0)], -1
).astype(np.uint8)


def refused(path: Path) -> str:
    for read in (read_image, decode_image):
        with pytest.raises(UserError) as info:
            read(path)
        assert str(path) in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 60}),
        ("b.jpg", {"progressive": True}),
        ("c.png", {}),
        ("d.webp", {}),
        ("e.bmp", {}),
        ("f.tiff", {}),
        ("g.ppm", {}),
        ("h.jpg", {"subsampling": 0}),
    ],
)
def test_ordinary_files_equal_torchvisions_bit_for_bit(name, options, tmp_path):
    path = trees.save_image(tmp_path / name, (37, 23), **options)
    ours, theirs = read_image(path), default_loader(str(path))
    assert ours.mode == "RGB" and np.array_equal(np.asarray(ours), np.asarray(theirs))
    again, facts = decode_image(path)
    assert np.array_equal(np.asarray(again), np.asarray(ours))
    assert (facts.width, facts.height, facts.mode, facts.turned) == (37, 23, "RGB", False)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_other_8_bit_modes_equal_torchvisions(mode, tmp_path):
    source = Image.fromarray(SMOOTH).convert("RGB")
    image = source.convert("L").convert(mode) if mode in ("1", "LA") else source.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(SMOOTH[..., 0]))
    image.save(tmp_path / "x.png")
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "x.png")), np.asarray(default_loader(str(tmp_path / "x.png")))
    )


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(SMOOTH).quantize(8)
    image.save(tmp_path / "x.png", transparency=bytes([0, 128] + [255] * 6))
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), np.asarray(image.convert("RGB")))


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["x.png", "x.tiff", "x.pgm"])
def test_16_bit_gray_is_scaled_not_clipped(name, tmp_path):
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    values[-1, -1] = 65535
    Image.fromarray(values).save(tmp_path / name)
    pixels = np.asarray(read_image(tmp_path / name))
    assert np.array_equal(pixels[..., 0], np.round(values / 257).astype(np.uint8)) and pixels.max() == 255
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_16_bit_colour_png(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">12H", *([65535, 32768, 0] * 4)) for _ in range(4))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
        )
    )
    assert read_image(tmp_path / "x.png").getpixel((1, 1)) == (255, 128, 0)


def without_adobe_marker(content: bytes) -> bytes:
    start = content.index(b"\xff\xee")
    return content[:start] + content[start + 2 + struct.unpack(">H", content[start + 2 : start + 4])[0] :]


def test_cmyk_jpegs_with_and_without_adobes_inversion(tmp_path):
    red = (200, 40, 40)
    ink = Image.new("CMYK", (16, 16), (55, 215, 215, 0))
    buffer = io.BytesIO()
    ink.save(buffer, "JPEG", quality=95)  # as Adobe's programs: inverted, with their marker
    assert b"Adobe" in buffer.getvalue()
    (tmp_path / "adobe.jpg").write_bytes(buffer.getvalue())
    buffer = io.BytesIO()
    ink.point(lambda v: 255 - v).save(buffer, "JPEG", quality=95)
    # stored as it is: 0 is no ink
    (tmp_path / "plain.jpg").write_bytes(without_adobe_marker(buffer.getvalue()))
    for name in ("adobe.jpg", "plain.jpg"):
        assert np.abs(np.asarray(read_image(tmp_path / name)).astype(int) - red).max() <= 4, name
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "adobe.jpg")),
        np.asarray(default_loader(str(tmp_path / "adobe.jpg"))),
    )
    ink.save(tmp_path / "x.tiff")
    assert np.abs(np.asarray(read_image(tmp_path / "x.tiff")).astype(int) - red).max() <= 1


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tiff"])
@pytest.mark.parametrize("orientation", [*TURNS, 0, 9])
def test_rotation_flags_are_left_alone_or_applied_as_asked(name, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "x.png": {},
        "x.tiff": {},
        "x.jpg": {"quality": 100, "subsampling": 0},
        "x.webp": {"lossless": True},
    }[name]
    Image.fromarray(SMOOTH).save(tmp_path / name, exif=exif, **options)
    expected, turned = TURNS.get(orientation, TURNS[1])(SMOOTH), orientation in range(2, 9)
    image = np.asarray(read_image(tmp_path / name, upright=True))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= (4 if name == "x.jpg" else 0)
    stored, facts = decode_image(tmp_path / name)
    assert np.array_equal(np.asarray(stored), np.asarray(default_loader(str(tmp_path / name))))
    # a TIFF is turned by Pillow, whoever opens it
    assert facts.turned == (turned and name != "x.tiff")
    for upright, pixels in ((False, np.asarray(stored)), (True, image)):
        size, flag = read_header(tmp_path / name, upright)
        assert (size, flag) == (pixels.shape[1::-1], facts.turned)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/etc/passwd"])
def test_a_link_or_pipe_that_is_no_image_is_refused_by_name(target, tmp_path):
    path = tmp_path / "x.jpg"
    os.mkfifo(path) if target == "pipe" else path.symlink_to(target)
    refused(path)
    with pytest.raises(OSError):
        read_header(path)


def test_a_link_to_an_image_is_that_image(tmp_path):
    trees.save_image(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "b.png")), np.asarray(read_image(tmp_path / "a.png"))
    )


def test_damaged_metadata_does_not_spoil_good_pixels(tmp_path):
    Image.fromarray(SMOOTH).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12")
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "x.jpg")), np.asarray(default_loader(str(tmp_path / "x.jpg")))
    )


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.gif", "x.bmp", "x.tiff"])
def test_truncated_files_are_refused(name, tmp_path):
    content = trees.save_image(tmp_path / name, (64, 48)).read_bytes()
    for share in (0.2, 0.5, 0.9):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        assert "restore it" in refused(tmp_path / name)


def test_empty_missing_folders_and_other_files(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert "is empty (0 bytes)" in refused(tmp_path / "empty.jpg")
    assert "does not exist" in str(pytest.raises(UserError, read_image, tmp_path / "no.jpg").value)
    (tmp_path / "folder.jpg").mkdir()
    refused(tmp_path / "folder.jpg")
    for content in (
        b"<html>404 Not Found</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
    ):
        (tmp_path / "other.jpg").write_bytes(content)
        assert "not an image" in refused(tmp_path / "other.jpg") or "damaged" in refused(
            tmp_path / "other.jpg"
        )


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0" + bytes(200), "AVIF"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<!DOCTYPE html><html>403 Forbidden</html>", "web page"),
    ],
)
def test_what_is_no_image_of_ours_is_called_what_it_is(content, kind, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert kind in refused(tmp_path / "x.jpg")


def test_decompression_bombs_are_refused_before_they_explode(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100_000)), (b"IEND", b"")]
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
        )
    )
    assert "decompression bomb" in refused(tmp_path / "x.png")


def test_pixels_without_a_defined_range_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tiff")
    assert "32-bit float" in refused(tmp_path / "f.tiff")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "i.tiff")
    assert "32-bit" in refused(tmp_path / "i.tiff")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_files(tmp_path):
    path = trees.save_image(tmp_path / "x.png")
    path.chmod(0)
    assert "permissions" in refused(path)


HEADS = [
    b"",
    b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"GIF89a",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"BM",
    b"P6\n3 3\n",
    b"RIFF\x20\0\0\0WEBPVP8 ",
    b"\0\0\0\x0cjP  \r\n\x87\n",
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=120))
def test_any_bytes_are_an_image_or_a_user_error(head, tail, tmp_path):
    (tmp_path / "x.jpg").write_bytes(head + tail)
    try:
        assert read_image(tmp_path / "x.jpg").mode == "RGB"
    except UserError as error:
        assert "x.jpg" in str(error)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]), data=st.data())
def test_any_damage_to_an_image_is_survived(kind, data, tmp_path):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SMOOTH).save(
        buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {})
    )
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.jpg").write_bytes(content)
    try:
        assert read_image(tmp_path / "x.jpg").mode == "RGB"
    except UserError as error:
        assert "x.jpg" in str(error)


def test_names():
    assert (
        is_image_name("a.JPEG")
        and is_image_name("b.webp")
        and not is_image_name("._a.jpg")
        and not is_image_name("Thumbs.db")
    )


def test_real_images(shared_data):
    for path in sorted((shared_data("tiny-imagenet-40") / "val" / "images").iterdir())[:200]:
        assert np.array_equal(np.asarray(read_image(path)), np.asarray(default_loader(str(path))))


@pytest.mark.parametrize(
    ("name", "options"),
    [("p.jpg", {"progressive": True}), ("a.webp", {}), ("a.jp2", {}), ("a.png", {"mode": "RGBA"})],
)
def test_what_takes_more_memory_to_decode_may_have_fewer_pixels(name, options, tmp_path, monkeypatch):
    Image.new(options.pop("mode", "RGB"), (40, 30)).save(tmp_path / name, **options)
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.png")
    monkeypatch.setattr(images, "MAX_MEMORY", 4 * 40 * 30)
    assert read_image(tmp_path / "plain.png").size == (40, 30)
    assert "40 x 30 pixels" in refused(tmp_path / name)


def test_the_array_of_a_large_image_is_that_of_a_small_one(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    monkeypatch.setattr(images, "_LARGE", 1)
    monkeypatch.setattr(images, "_BAND", 100)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0])):
        assert np.array_equal(images.pixels_of(image), np.asarray(image))
