"""Caches and temporary files of the libraries that we use, on a machine where only the output can be written:
read-only images, users without a home folder or a name, no /tmp, file systems that cannot all."""

from __future__ import annotations

import atexit
import errno
import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path


def settle(arguments: Sequence[str] = ()) -> None:
    """Point libraries that have not been imported yet to a temporary folder, where they could not write to
    their usual one; whatever works is left as it is.

    The folder is removed when this process ends; what it starts inherits it. ``arguments``: of the command,
    whose output stands in for /tmp where even that cannot be written.

    Raises:
        FileNotFoundError: no place for temporary files, which the error's file, TMPDIR, would name.
        OSError: the current folder is gone, of which oneMKL would say that it cannot load torch.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "the current folder") from None
    _settle_temporary(arguments)
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = _own_folder()
    home = Path(os.path.expanduser("~"))
    usual = {"XDG_CACHE_HOME": home / ".cache", "MPLCONFIGDIR": home / ".config", "TRITON_HOME": home}
    for name, folder in usual.items():
        if not can_write(Path(os.environ.get(name) or folder)):
            os.environ[name] = _own_folder()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # torch's compiler names a folder by it
        os.environ["LOGNAME"] = str(os.getuid())


def can_write(folder: Path) -> bool:
    """Whether ``folder`` can be written, or made."""
    there = existing(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def existing(folder: Path) -> Path:
    """``folder``, or the closest folder above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.exists(place))


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the file system can; SMB cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


@cache
def _own_folder() -> str:
    folder = tempfile.mkdtemp(prefix="automix_transfer_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _settle_temporary(arguments: Sequence[str]) -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        for folder in map(existing, (Path("/dev/shm"), *_outputs(arguments))):
            if can_write(folder):
                os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
                return
        reason = "nowhere can a temporary file be written"
        raise FileNotFoundError(errno.ENOENT, reason, "TMPDIR") from None


def _outputs(arguments: Sequence[str]) -> Iterator[Path]:
    """The values of ``output=...``, ``--output ...`` and ``OUTPUT_DIR ...``."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        key, assigned, value = word.lstrip("-").partition("=")
        if key.lower() in ("output", "output_dir") and (value or following):
            yield Path(value if assigned else following)
