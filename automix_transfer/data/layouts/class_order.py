"""Which class folder has which label: in the order of numbers, of text, or of a network that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from automix_transfer.errors import UserError, few
from automix_transfer.text_files import plain_name

ORDERS = ("auto", "number", "text")
_MOST_CLASSES = 1_000_000


def orders_differ(names: Sequence[str]) -> bool:
    """Whether the names are all numbers, and their order as numbers is not that as text."""
    return all(map(_NUMBER, names)) and sorted(names) != sorted(names, key=_by_number)


def require_known_order(weights: object, names: Sequence[str], told_by: str) -> None:
    """Raise a `UserError` where the classes of ``weights`` have no names, and their order can be meant twice.

    Args:
        names: of the class folders.
        told_by: the options that say it.
    """
    if orders_differ(names):
        numbers, text = few(sorted(names, key=_by_number)), few(sorted(names))
        raise UserError(
            f"{weights} does not name its classes, and the names of the classes are numbers, so their order "
            f"can be that of numbers ({numbers}) or of text ({text}, torchvision's ImageFolder); give "
            f"{told_by}"
        )


def in_order(names: Sequence[str], order: str = "auto", known: Sequence[str] = ()) -> list[str]:
    """Class names in label order.

    Args:
        order: ``text`` sorts as torchvision's ImageFolder does. ``number`` and ``auto`` sort names that are
            all numbers as numbers, and others as text.
        known: the classes of a network in its order, which wins where they are the same classes.
    """
    place = {plain_name(name): label for label, name in enumerate(known)}
    if place.keys() == {plain_name(name) for name in names}:
        return sorted(names, key=lambda name: place[plain_name(name)])
    return sorted(names, key=_by_number) if order != "text" and all(map(_NUMBER, names)) else sorted(names)


def numbered(largest: int, where: object) -> list[str]:
    """Names of classes that are known by their numbers alone, 0 to the ``largest``.

    Raises:
        UserError: so many classes that the numbers will be something else, such as ids or times.
    """
    if largest >= _MOST_CLASSES:
        raise UserError(
            f"the largest label of {where} is {largest:,}, which would be {largest + 1:,} classes; labels "
            f"are class numbers from 0, of at most {_MOST_CLASSES:,} classes: give those, or text"
        )
    return [str(number) for number in range(largest + 1)]


def order_note(names: Sequence[str]) -> tuple[str, ...]:
    """What is to be said of classes that are numbers, given in label order."""
    if not orders_differ(names):
        return ()
    numbers, text = sorted(names, key=_by_number), sorted(names)
    how = "numbers" if list(names) == numbers else "text" if list(names) == text else "the network's classes"
    return (
        f"the names of the classes are numbers and are in the order of {how} ({few(names)}): "
        f"data.class_order=number is {few(numbers)}, data.class_order=text is {few(text)}, as torchvision's "
        "ImageFolder",
    )


def by_plain_name(names: Iterable[str], where: object) -> dict[str, str]:
    """{plain name: name}.

    Raises:
        UserError: two names are the same to the eye.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(plain_name(name), name)
        if other != name:
            raise UserError(
                f"{where} has two class folders of one name, {other!a} and {name!a}, which differ only in "
                "blanks or in how letters are composed; merge or rename them"
            )
    return found


_NUMBER = re.compile(r"-?[0-9]+").fullmatch


def _by_number(name: str) -> tuple[int, str]:
    return int(name[:4000]), name
