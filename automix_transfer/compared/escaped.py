"""Text as LaTeX and Markdown print it."""

from __future__ import annotations

import re

LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "λ": r"$\lambda$",
    "ℓ": r"$\ell$",
    "α": r"$\alpha$",
    "ε": r"$\epsilon$",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "*": r"$\ast$",
    "–": "--",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
}


def latex_escaped(text: str) -> str:
    """Text that LaTeX prints as it is; letters that the standard fonts lack become ``?``."""
    found = "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return "".join(letter if ord(letter) < 0x250 else "?" for letter in found)


def markdown_escaped(text: str) -> str:
    """Text that Markdown shows as it is, also in a cell of a table."""
    return re.sub(r"[|<*`$]", r"\\\g<0>", text)
