"""One exception for everything a user can put right, and the one place that turns it into exit code 2."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterable

from automix_transfer import signals
from automix_transfer.command_line import leave_current_folder
from automix_transfer.console import open_outputs, show_log
from automix_transfer.host.causes import cause_of, chain
from automix_transfer.host.writable import settle
from automix_transfer.shown import clean

EXIT_USER_ERROR = 2


class UserError(Exception):
    """A mistake in a file, a field or an argument.

    The message is one sentence a user can act on: which file, which field, what was expected, what to do;
    further arguments are further lines. Names in them cannot steer a terminal. Scripts print it without a
    traceback and exit with code 2.
    """

    def __str__(self) -> str:
        return "\n".join(map(clean, self.args))


class MachineError(UserError):
    """A limit of the machine that no file is to blame for, and that leaving one out does not mend."""


def first_line(error: BaseException) -> str:
    """What an error says, as a part of one sentence: its first line, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]


def few(names: Iterable[str]) -> str:
    """The first three of ``names``, as a part of a sentence."""
    shown = [name[:80] for name in names]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


class RenamedWarning(FutureWarning):
    """An old name was used that still works; the message says the new one."""


def warn_renamed(old: str, new: str, until: str = "0.3") -> None:
    """Say once that ``old`` is now called ``new``, and works until version ``until``, as the rule in
    CONTRIBUTING.md has it."""
    warnings.warn(f"{old} is now called {new}; the old name works until version {until}", RenamedWarning, 3)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """One line for a `RenamedWarning`, which is about what was typed and not about a line of Python."""
    if issubclass(category, RenamedWarning):
        return f"warning: {message}\n"
    return _python_format(message, category, filename, lineno, line)


_python_format = warnings.formatwarning


def did_you_mean(
    name: str, known: Iterable[str], otherwise: str, most: int = 1, cutoff: float = 0.6, quote: str = ""
) -> str:
    """``did you mean NAME?`` with at most ``most`` of ``known``, the closest ones, or ``otherwise``."""
    close = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f"did you mean {', '.join(f'{quote}{other}{quote}' for other in close)}?" if close else otherwise


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with its code; a `UserError` is printed as one line and exits with 2.

    So is an `OSError` that names a file: a name that is too long or a folder that may not be entered shows at
    any first look at a path. One without a file says too little, and keeps its traceback, unless it is a
    limit of the machine, as memory is. A signal ends it with one line, see `signals`, also where somebody
    else's code raised another exception in its place.
    """
    leave_current_folder()
    open_outputs()
    show_log()
    warnings.formatwarning = _format_warning
    if "TORCHELASTIC_RUN_ID" in os.environ:
        signals.end_with_parent()  # torchrun that is killed takes its processes along, which save first
    try:
        settle(sys.argv[1:])
        with signals.listening():
            code = main()
    except (KeyboardInterrupt, Exception) as error:
        stopped = next((e for e in chain(error) if isinstance(e, KeyboardInterrupt)), None)
        if stopped and not isinstance(error, UserError):
            code = signals.say_last(stopped)
        elif sentence := sentence_of(error):
            print(f"error: {sentence}", file=sys.stderr)
            code = EXIT_USER_ERROR
        else:
            raise
    sys.exit(code or 0)


def run_old_module(command: str, main: Callable[[], int | None]) -> None:
    """`run_script` for ``python -m MODULE``, as ``automix-transfer COMMAND`` was called before."""

    def warned() -> int | None:
        module = str(getattr(sys.modules["__main__"].__spec__, "name", "")).removesuffix(".__main__")
        warn_renamed(f"python -m {module}", f"automix-transfer {command}")
        return main()

    run_script(warned)


def sentence_of(error: BaseException) -> str:
    """What an error means to a user, in one sentence; nothing where that is not known."""
    if known := str(error) if isinstance(error, UserError) else cause_of(error):
        return known
    files = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    names = [clean(os.fsdecode(name)) for name in files if isinstance(name, str | bytes | os.PathLike)]
    reason = getattr(error, "strerror", None)  # an HTTPError's file is its address, and it has none
    if not names or not reason:
        return ""
    remedy = "correct the path or its permissions, or choose another one"
    return f"{' -> '.join(names)} cannot be used ({reason}); {remedy}"
