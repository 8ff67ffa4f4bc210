"""What errors of other libraries mean: told by type and number where they have one.

Some have only a sentence. All those sentences stand here, each with a test against the installed library that
notices when it is put in other words.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN = (errno.EIO, errno.ESTALE, errno.EROFS)  #: of a disk, or a file system over a network
FILES = (errno.EMFILE, errno.ENFILE)

#: torch: memory of the CPU, allocated by itself or by oneDNN, is a RuntimeError without a type of its own
_MAIN_MEMORY = re.compile(r"DefaultCPUAllocator|bad_alloc|could not allocate memory", re.IGNORECASE)
#: torch: a BatchNorm that trains on one value a channel, a ValueError
_ONE_VALUE = "more than 1 value per channel"
#: torch: a loader's worker that died, a RuntimeError
_WORKER = re.compile("DataLoader worker.*(is killed|exited unexpectedly)", re.DOTALL)
#: torch: no room in /dev/shm for a batch of a loader's worker, a RuntimeError
_SHARED = re.compile(r"unable to (allocate shared memory|write to file </torch)")
#: Python: a thread that the system refuses, a RuntimeError
_NO_THREAD = "can't start new thread"
#: torch: gloo or NCCL, which lost another process, a RuntimeError
_PEER = re.compile(
    r"gloo.*(by peer|Broken pipe|Read error|Write error|Timed out waiting)|remote process exited", re.DOTALL
)
#: Python: a pipe that has no free number for the file that it is handed, a RuntimeError
_NO_NUMBER = re.compile(r"received \d+ items of ancdata")
#: Pillow: an image that ends before its last pixel, an OSError
_TRUNCATED = "truncated"


def main_memory_ran_out(error: BaseException) -> bool:
    """Whether the machine's memory, not a GPU's, did not suffice."""
    return any(
        isinstance(e, MemoryError) or (isinstance(e, RuntimeError) and _MAIN_MEMORY.search(str(e)))
        for e in chain(error)
        if not gpu_memory_ran_out(e)
    )


def gpu_memory_ran_out(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # whoever could raise it has imported it
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def too_many_files(error: BaseException) -> bool:
    """Whether this process, or one that it started, had no number left for an open file."""
    return any(
        (isinstance(e, OSError) and e.errno in FILES)
        or (isinstance(e, RuntimeError) and _NO_NUMBER.search(str(e)))
        for e in chain(error)
    )


def shared_memory_ran_out(error: BaseException) -> bool:
    """Whether /dev/shm had no room."""
    return any(isinstance(e, RuntimeError) and _SHARED.search(str(e)) for e in chain(error))


def disk_is_full(error: BaseException) -> bool:
    """Whether a disk had no room, or a quota, and the error does not say for which file."""
    return isinstance(error, OSError) and error.errno in FULL and error.filename is None


def file_system_is_gone(error: BaseException) -> bool:
    """Whether a disk or a file system failed, and the error does not say for which file."""
    return isinstance(error, OSError) and error.errno in BROKEN and error.filename is None


def too_many_processes(error: BaseException) -> bool:
    """Whether the system refused another process or thread."""
    return (isinstance(error, BlockingIOError) and error.filename is None) or any(
        isinstance(e, RuntimeError) and _NO_THREAD in str(e) for e in chain(error)
    )


def peer_is_gone(error: BaseException) -> bool:
    """Whether another process of a launcher ended, was killed, or no longer answers."""
    torch = sys.modules.get("torch")
    store = torch.distributed.DistNetworkError if torch and torch.distributed.is_available() else ()
    return any(
        isinstance(e, store) or (isinstance(e, RuntimeError) and _PEER.search(str(e))) for e in chain(error)
    )


def worker_died(error: BaseException) -> bool:
    """Whether a process that loads data ended without a word."""
    return isinstance(error, RuntimeError) and bool(_WORKER.search(str(error)))


def norm_of_one_value(error: BaseException) -> bool:
    """Whether BatchNorm was to be trained by one value a channel."""
    return isinstance(error, ValueError) and _ONE_VALUE in str(error)


def image_ends_early(error: BaseException) -> bool:
    return isinstance(error, OSError) and _TRUNCATED in str(error).lower()


def cause_of(error: BaseException) -> str:
    """One sentence for an error of the machine, with what may be lowered; "" for any other error."""
    why = getattr(error, "strerror", "")
    if gpu_memory_ran_out(error):
        return "the GPU has no memory for this; lower the batch size or the images' size"
    if too_many_files(error):
        return (
            "too many open files: each worker of a loader needs some; raise the limit (ulimit -n 4096), or "
            "lower data.workers or --workers"
        )
    if main_memory_ran_out(error):
        return "the machine's memory ran out; lower the batch size, the images' size or the number of workers"
    if peer_is_gone(error):
        return "another process of this run ended, was killed or no longer answers; what it said last is why"
    if disk_is_full(error):
        return f"a file could not be written ({why}); free space, or write elsewhere"
    if file_system_is_gone(error):
        return f"a disk or file system fails ({why}); mount it again, or use another"
    if too_many_processes(error):
        return (
            "the system starts no more processes or threads for this user; raise the limit (ulimit -u), or "
            "lower data.workers, --workers or --jobs"
        )
    if shared_memory_ran_out(error) or worker_died(error):
        return (
            "a data loader worker was killed, most often because memory or /dev/shm ran out; lower "
            "data.workers or the batch size"
        )
    return ""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
