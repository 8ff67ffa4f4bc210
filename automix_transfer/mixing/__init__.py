"""Mixing methods by name: `METHODS` says what is known of each, `build_method` imports and builds one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automix_transfer.mixing.table import METHODS as METHODS

if TYPE_CHECKING:
    from automix_transfer.mixing.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    import automix_transfer.mixing.public as public

    return getattr(public, name)
