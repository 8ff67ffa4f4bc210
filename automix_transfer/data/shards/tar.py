"""What lies where in an uncompressed tar file, found by `tarfile` without unpacking."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}


class TarError(Exception):
    """The file is no sound tar file; the message says what is wrong, without the file's name."""


def members(path: Path, links: list[str] | None = None) -> Iterator[tuple[str, int, int]]:
    """(name, offset of its bytes, number of bytes) of each regular file in the tar file ``path``, in order.

    Args:
        links: gets the names of members whose bytes do not lie behind their header in one piece: hard links
            (GNU tar writes a file's second name as one), soft links and sparse files.

    Raises:
        TarError: no tar file, a damaged or a truncated one.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise TarError("it is a folder, a device or a pipe; give a regular file")
    with path.open("rb") as file:
        start, end, tar = file.read(8), file.seek(0, 2), None
        file.seek(0)
        try:
            tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")
            reached = 0
            for member in tar:
                # tarfile follows sizes that lead backwards or beyond the end
                if tar.offset <= reached or member.size < 0:
                    raise TarError(f"the header at byte {reached:,} is damaged")
                reached = tar.offset
                if member.islnk() or member.issym() or member.issparse():
                    if links is not None:
                        links.append(member.name)
                elif member.isfile():
                    if member.offset_data + member.size > end:
                        raise TarError(
                            f"'{member.name}' at byte {member.offset:,} reaches beyond the file's end, so it "
                            "is truncated or damaged"
                        )
                    yield member.name, member.offset_data, member.size
            file.seek(tar.offset)
            rest = file.read(BLOCK)
        except (TarError, OSError):
            raise
        # tarfile raises ReadError, and nearly anything else on damaged headers: ValueError, IndexError, ...
        except Exception as error:
            raise TarError(
                _not_tar(start) if tar is None else f"it is truncated or damaged ({error})"
            ) from error
        # tarfile takes whatever is no header for the end
        if len(rest) < BLOCK:
            raise TarError("it ends without the zero blocks that close a tar file, so it is truncated")
        if any(rest):
            raise TarError(f"the header at byte {tar.offset:,} is damaged")


def _not_tar(start: bytes) -> str:
    kind = next((name for magic, name in _PACKED.items() if start.startswith(magic)), "")
    if kind:
        return f"it is compressed ({kind}); unpack it to a plain .tar, for images do not shrink"
    return "it is no tar file" if start else "it is empty"
