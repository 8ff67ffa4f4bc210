"""One object of a list of a COCO json, and its fields as people's tools write them."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from automix_transfer.data.detection.annotation_checks import as_number, as_whole, shown
from automix_transfer.data.detection.findings import Findings

Id = int | str
AS_TEXT = "numbers in {field} are text; they are read as numbers"
OTHER_FORM = "values of {field} are text where ids are numbers, or the other way round; they are matched"
FLAGS = {"0": False, "1": True, "false": False, "true": True}


class Item:
    """One object of a list of the file; ``sound`` until one of its fields is refused."""

    def __init__(self, fields: dict[str, Any], where: str, findings: Findings) -> None:
        self.fields, self.where, self.findings, self.sound = fields, where, findings, True

    def __getitem__(self, field: str) -> Any:
        return self.fields.get(field)

    def refuse(self, field: str, what: str, kind: str = "") -> None:
        """Note what is wrong with a field."""
        self.findings.refuse(f"{self.where}.{field}", what, f"{field} {kind}" if kind else "")
        self.sound = False

    def expect(self, field: str, wanted: str, holds: bool) -> bool:
        """Refuse a field, with what was expected, unless ``holds``."""
        if not holds:
            self.refuse(field, f"is {shown(self[field])}; expected {wanted}", wanted)
        return holds

    def note(self, what: str, field: str = "") -> None:
        """Note a habit of the exporter."""
        self.findings.note(self.where, what.format(field=field))

    def identifier(self, field: str = "id") -> Id | None:
        """A whole number or a text."""
        value = self[field]
        if isinstance(value, str):
            good = bool(value.strip()) and value.isprintable() and len(value) <= 1000
        else:
            value = as_whole(value)
            good = value is not None and abs(value) < 2**63
        return value if self.expect(field, "a whole number or a text", good) else None

    def reference(self, field: str, known: Container[Id]) -> Id | None:
        """The id of another item, as that is written, or this one's where there is none such."""
        value = self.identifier(field)
        if value is None or value in known:
            return value
        other: Id = str(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            other = int(value)
        if other not in known:
            return value
        self.note(OTHER_FORM, field)
        return other

    def side(self, field: str) -> int | None:
        """Pixels; None where they are not given or 0."""
        value = self._number(self[field])
        if value is None and self[field] is None or value == 0:
            return None
        good = value is not None and value.is_integer() and 0 < value < 2**31
        return int(value or 0) if self.expect(field, "a whole number of pixels", good) else None

    def area(self) -> float | None:
        """Square pixels; None where they are not given."""
        if self["area"] is None:
            return None
        value = self._number(self["area"], "area")
        return value if self.expect("area", "square pixels", value is not None and value >= 0) else None

    def crowd(self) -> bool:
        """``iscrowd``, false where it is not given."""
        value = self["iscrowd"]
        if value is None:
            self.note("objects have no iscrowd; they are taken as single objects (0)")
            return False
        number = int(value) if isinstance(value, bool) else as_whole(value)
        flag = FLAGS.get(value.lower() if isinstance(value, str) else str(number))
        self.expect("iscrowd", "0 or 1", flag is not None)
        return bool(flag)

    def box(self) -> tuple[float, float, float, float] | None:
        """``bbox``: x, y, width, height in pixels."""
        value = self["bbox"]
        numbers = [self._number(entry, "bbox") for entry in value] if isinstance(value, list) else []
        if not self.expect(
            "bbox", "[x, y, width, height] in pixels", len(numbers) == 4 and None not in numbers
        ):
            return None
        x, y, width, height = (entry for entry in numbers if entry is not None)
        if width < 0 or height < 0:
            self.refuse("bbox", f"{shown(value)} has a negative width or height", "negative")
            return None
        return x, y, width, height

    def _number(self, value: Any, field: str = "") -> float | None:
        if not isinstance(value, str):
            return as_number(value)
        try:
            number = as_number(float(value)) if value.isascii() and "_" not in value else None
        except ValueError:
            return None
        if number is not None and field:
            self.note(AS_TEXT, field)
        return number
