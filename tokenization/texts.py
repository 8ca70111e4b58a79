"""What ids and names may be: short texts without control characters, so that every file and picture can hold them.

Categories are short texts too. They may have control characters: Foursquare's published ones do ("Caf\\x1a\\x1a").
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import DataError

MAX_TEXT_LENGTH = 1_000
_SHOWN_CHARACTERS = 40
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_fault(text: str, *, category: bool = False) -> str:
    """What is wrong with a text, as in "longer than 1,000 characters"; empty where nothing is."""
    if len(text) > MAX_TEXT_LENGTH:
        return f"longer than {MAX_TEXT_LENGTH:,} characters"
    if text.isprintable():  # the quick answer for almost every text
        return ""
    if _SURROGATE.search(text):
        return "half of a character (a lone surrogate)"
    return "texts with control characters" if not category and _CONTROL.search(text) else ""


def unusable_texts(texts: Iterable[object], *, category: bool = False) -> dict[str, set[str]]:
    """Fault -> those of the distinct texts that have it; other values than text have none."""
    faults: dict[str, set[str]] = {}
    for text in texts:
        if isinstance(text, str) and (fault := text_fault(text, category=category)):
            faults.setdefault(fault, set()).add(text)
    return faults


def check_texts(texts: Iterable[str], what: str) -> None:
    """Raises a `DataError` with the number of unusable texts and the first of them.

    Args:
        what: they are, as in "location ids".
    """
    for fault, bad in unusable_texts(texts).items():
        first = min(bad)
        more = "..." if len(first) > _SHOWN_CHARACTERS else ""
        raise DataError(
            f"{len(bad)} {what} are {fault}, first {first[:_SHOWN_CHARACTERS]!r}{more}; give each a short text of "
            "printable characters."
        )
