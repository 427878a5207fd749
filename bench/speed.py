"""Puts the ratios of the performance benchmarks into records and into README: `python -m bench.speed FILE`.

FILE is what pytest-benchmark wrote. Of it a record keeps ratios, times, memory and what they were taken with; no
host name, no path. README's tables are made from the records alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench import provenance
from bench.report.numbers import factor_text, number

END = "<!-- end of speed -->"
_ALWAYS = ("ours", "ratio", "seconds", "peak_bytes")
_SOMETIMES = ("spread", "notes")  # quartiles of the ratios, and a remark, by contender


@dataclass(frozen=True)
class Table:
    """Where one table of README begins, and the record that it is made from."""

    begin: str
    record: Path


TABLES = {
    "diffusion": Table("<!-- diffusion speed: tox run -e perf -->", Path("results/perf/diffusion.json")),
    "trainer": Table("<!-- trainer speed: tox run -e perf -->", Path("results/perf/trainer.json")),
    "likelihood": Table("<!-- training speed: tox run -e perf -->", Path("results/perf/likelihood.json")),
}


def record_of(plain: dict[str, Any], name: str) -> dict[str, Any]:
    """The record of the benchmarks for one table, of a run of pytest-benchmark; those without contenders are left out.

    Raises:
        UserError: if none has any.
    """
    rows = []
    for benchmark in plain.get("benchmarks", []):
        about = benchmark.get("extra_info", {})
        if "ratio" in about and about.get("table") == name:
            kept = {key: about[key] for key in _ALWAYS} | {key: about[key] for key in _SOMETIMES if about.get(key)}
            rows.append({"name": benchmark["group"], **kept})
    if not rows:
        raise UserError(f"speed: expected benchmarks of {name} with contenders, got none; run tox -e perf")
    return {"schema": 1, "rows": sorted(rows, key=lambda row: str(row["name"])), "provenance": provenance.collect()}


def table(record: dict[str, Any]) -> str:
    """Markdown: one line a contender."""
    noted = any("notes" in row for row in record["rows"])
    lines = ["| | beside | speed | peak memory |", "| --- | --- | ---: | ---: |"]
    if noted:
        lines = [f"{lines[0]} |", f"{lines[1]} --- |"]
    for row in record["rows"]:
        for other in row["ratio"]:
            note = f" {row.get('notes', {}).get(other, '')} |" if noted else ""
            lines.append(f"| {row['name']} | {other} | {_speed(row, other)} | {_memory(row, other)} |{note}")
    cpu = record["provenance"].get("cpu") or "unknown CPU"
    lines += ["", f"One thread of {cpu}; contenders in turns, the median of the rounds' ratios{_quartiles(record)}."]
    return "\n".join(lines)


def _speed(row: dict[str, Any], other: str) -> str:
    time = f"{number(row['seconds'][row['ours']], 's')} against {number(row['seconds'][other], 's')}"
    if "spread" not in row:
        return f"**{factor_text(row['ratio'][other])}** ({time})"
    low, high = row["spread"][other]
    return f"**{row['ratio'][other]:.3g}×** [{low:.3g}, {high:.3g}] ({time})"


def _memory(row: dict[str, Any], other: str) -> str:
    own, peak = row["peak_bytes"].get(row["ours"]), row["peak_bytes"].get(other)
    return "–" if own is None or peak is None else f"{number(own, 'B')} against {number(peak, 'B')}"


def _quartiles(record: dict[str, Any]) -> str:
    return " and their quartiles" if any("spread" in row for row in record["rows"]) else ""


def with_speed(text: str, record: dict[str, Any], name: str) -> str:
    """README's text with this record's table.

    Raises:
        UserError: if the text has no place for it.
    """
    begin = TABLES[name].begin
    head, found, rest = text.partition(begin)
    _, end, tail = rest.partition(END)
    if not found or not end:
        raise UserError(f"README: expected the lines {begin!r} and {END!r} around the table of speeds")
    return f"{head}{begin}\n{table(record)}\n{END}{tail}"


def main() -> None:
    """Write the records of the tables that were measured, then README's tables from all records that there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", type=Path, nargs="?", help="pytest-benchmark's JSON; without it: README alone")
    parser.add_argument("--root", type=Path, default=Path(), help="where README.md and results/ are")
    arguments = parser.parse_args()
    if arguments.benchmark is not None:
        plain = json.loads(arguments.benchmark.read_text(encoding="utf-8"))
        measured = {b.get("extra_info", {}).get("table") for b in plain.get("benchmarks", [])}
        for name in TABLES:
            if name in measured:
                path = arguments.root / TABLES[name].record
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record_of(plain, name), indent=1) + "\n", encoding="utf-8")
    readme = arguments.root / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, place in TABLES.items():
        if (arguments.root / place.record).is_file():
            record = json.loads((arguments.root / place.record).read_text(encoding="utf-8"))
            text = with_speed(text, record, name)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
