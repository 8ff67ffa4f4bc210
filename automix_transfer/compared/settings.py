"""What a command is given, to tell two of them apart."""

from __future__ import annotations

from collections.abc import Sequence


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """``words`` without ``options`` and their values."""
    return [
        word
        for number, word in enumerate(words)
        if word not in options and (number == 0 or words[number - 1] not in options)
    ]


def settings_in(words: Sequence[str]) -> list[str]:
    """The words of a command; those of ``--option`` and of Detectron2's ``KEY`` have their values in one."""
    found: list[str] = []
    for word in words:
        named = bool(found) and (found[-1].startswith("-") or found[-1].isupper())
        if named and not (word.startswith("-") or word.isupper() or "=" in word):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
