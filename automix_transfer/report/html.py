"""The pages: their templates, filters, and the text that comes of them."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from automix_transfer.figures.sheet import class_name
from automix_transfer.runs.folder import number
from automix_transfer.shown import CONTROL, clean_lines
from automix_transfer.transfer import chain


@cache
def environment() -> Environment:
    """Where the templates are; they are compiled once a process."""
    found = Environment(
        loader=PackageLoader("automix_transfer", "report/templates"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": chain.percent,
        "signed": partial(chain.percent, signed=True),
        "method": chain.method_name,
        "clock": clock,
        "anchor": anchor,
        "compact": compact,
        "script": script,
        "tiny": tiny,
        "class": class_name,
    }
    return found


def page(template: str, content: dict[str, Any]) -> str:
    """A page as HTML, in which no name of a folder, class or file holds a control character."""
    return clean_lines(environment().get_template(template).render(content))


def clock(seconds: Any) -> str:
    """Seconds for people."""
    value = number(seconds)
    if value is None:
        return "–"
    minutes, rest = divmod(round(value), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{value:.1f} s"
    )


def tiny(value: Any) -> str:
    """A small number in two digits."""
    found = number(value)
    return "–" if found is None else f"{found:.2g}"


def anchor(name: Any) -> str:
    """A name as an HTML id, another for another name."""
    return "run-" + "".join(
        c if c.isascii() and c.isalnum() else "-" if c in "/._- " else f"_{ord(c):x}_" for c in str(name)
    )


def compact(value: Any) -> str:
    """A value of a JSON file on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def script(value: Any) -> Markup:
    """JSON that can stand in a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = CONTROL.sub(lambda found: ascii(ascii(found[0])[1:-1])[1:-1], text)
    return Markup(text.replace("<", "\\u003c"))
