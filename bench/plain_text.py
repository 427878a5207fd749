"""Texts of records and models on their way to people: nothing in them is obeyed by a terminal or a spreadsheet."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"  # ECMA-48: CSI, strings, others
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # but tab and newline
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """The text without what a terminal obeys: escape sequences are left out, other control characters become `?`.

    Tabs and line ends stay. Signs that turn the direction of writing count as control characters.
    """
    return _CONTROL.sub("?", _SEQUENCE.sub("", text))


def cell(value: Any) -> Any:
    """A value as a cell of a CSV file that no spreadsheet takes for a formula; numbers stay as they are.

    A text that begins as a formula does gets an apostrophe before it (OWASP, CSV injection).
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame to be written as CSV: names and texts as `cell` gives them."""
    safe = frame.rename(columns=cell)
    for place, kind in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(place, safe.iloc[:, place].map(cell).array)
    return safe
