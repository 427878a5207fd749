"""How often the printed intervals hold a known truth: the table of the study that ships with the package."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import Any

from bench.report.numbers import number
from bench.report.tables import NAMES, Column, Datum, Line, Table

AIM = 0.9  # least coverage of a nominal 95 % interval before the table says that it falls short
FILE = "data/interval_coverage.json"


def shipped_study() -> dict[str, Any]:
    """The study's file; `bench.metrics.coverage_study` documents it."""
    text = resources.files("bench.report").joinpath(*FILE.split("/")).read_text(encoding="utf-8")
    study: dict[str, Any] = json.loads(text)
    return study


def coverage_table(study: dict[str, Any]) -> Table:
    """A line an interval and distribution, a column a sample size (smallest, middle, largest)."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in study["rows"]:
        d, comma, size = row["size"].rpartition(", ")
        groups.setdefault((row["interval"], row["case"], d + comma), []).append({**row, "size": size})
    width = max(map(len, groups.values()), default=0)
    lines = []
    for (interval, case, d), rows in groups.items():
        name = NAMES.get(interval, interval.replace("_", " "))
        data = [Datum(name, name.lower()), Datum(d + case, case), *map(_square, rows)]
        lines.append(Line((*data, *[Datum("–")] * (width - len(rows)))))
    heads = ("smaller sample", "medium", "larger")[:width]
    columns = (Column("Interval", numeric=False), Column("truth", numeric=False), *(Column(h) for h in heads))
    return Table("coverage", "How often the intervals hold the truth", _intro(study), columns, tuple(lines))


def _intro(study: dict[str, Any]) -> str:
    least = min((row["repetitions"] for row in study["rows"]), default=0)
    nominal = 100 * study["nominal"]
    error = 196 * math.sqrt(0.05 * 0.95 / least) if least else 0.0
    short = [row for row in study["rows"] if (share := covered(row)) is not None and share < AIM]
    verdict = (
        f"{len(short)} of {len(study['rows'])} cases cover less than {100 * AIM:.0f} %; they are marked ⚠."
        if short
        else f"No case covers less than {100 * AIM:.0f} %."
    )
    return (
        f"Simulated features, logits and values whose truth is known; the suite's own metrics made the intervals, "
        f"nominally {nominal:.0f} %, in {least} or more repetitions a case (so that a share is "
        f"known to about {error:.0f} points). {verdict} Shares are of the intervals that were given; where a metric "
        "refuses one, that is told. Between equal distributions the truth is 0, and intervals that cover more than "
        "they need are accepted. Features: Gaussian, variances 1, 1/2, ..., 1/d. Counted on "
        f"{study['date']} by {study['command']}"
    )


def covered(row: dict[str, Any]) -> float | None:
    """Share of the given intervals that hold the truth; None if none was given."""
    given = row["repetitions"] - row["refused"]
    return row["covered"] / given if given else None


def _square(row: dict[str, Any]) -> Datum:
    share, refused = covered(row), row["refused"] / row["repetitions"]
    if share is None:
        return Datum("no interval", None, row["size"])
    parts = [row["size"], f"width {number(row['width'], significant=2)}"]
    parts += [f"refused {100 * refused:.0f} %"] if refused else []
    mark = " ⚠" if share < AIM else ""
    return Datum(f"{100 * share:.1f} %{mark}", share, ", ".join(parts), hint=f"truth {number(row['truth'])}")
