"""One exception for everything a user can put right, and the one place that turns it into exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2


class UserError(Exception):
    """A mistake in a file, a field or an argument.

    The message is one sentence a user can act on: which file, which field, what was expected, what to do.
    Scripts print it without a traceback and exit with code 2.
    """


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with its code; a `UserError` is printed as one line and exits with 2."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    sys.exit(code or 0)
