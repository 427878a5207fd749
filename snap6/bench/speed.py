"""Puts the ratios of the performance benchmarks into a record and into README: `python -m bench.speed FILE`.

FILE is what pytest-benchmark wrote. Of it the record keeps ratios, times, memory and what they were taken with; no
host name, no path. README's table is made from the record alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench import provenance
from bench.report.numbers import factor_text, number

BEGIN = "<!-- speed: tox run -e perf -->"
END = "<!-- end of speed -->"
RECORD = Path("results/perf/metrics.json")


def record_of(plain: dict[str, Any]) -> dict[str, Any]:
    """The record of a run of pytest-benchmark; benchmarks without contenders are left out.

    Raises:
        UserError: if none has any.
    """
    rows = [
        {"name": b["group"], **{key: b["extra_info"][key] for key in ("ours", "ratio", "seconds", "peak_bytes")}}
        for b in plain.get("benchmarks", [])
        if "ratio" in b.get("extra_info", {})
    ]
    if not rows:
        raise UserError("speed: expected benchmarks with contenders, got none; run tox -e perf")
    return {"schema": 1, "rows": sorted(rows, key=lambda row: str(row["name"])), "provenance": provenance.collect()}


def table(record: dict[str, Any]) -> str:
    """Markdown: one line a contender."""
    lines = ["| | beside | speed | peak memory |", "| --- | --- | ---: | ---: |"]
    for row in record["rows"]:
        ours = row["ours"]
        own_time, own_peak = number(row["seconds"][ours], "s"), row["peak_bytes"].get(ours)
        for other, ratio in row["ratio"].items():
            peak = row["peak_bytes"].get(other)
            memory = "–" if own_peak is None or peak is None else f"{number(own_peak, 'B')} against {number(peak, 'B')}"
            time = f"{own_time} against {number(row['seconds'][other], 's')}"
            lines.append(f"| {row['name']} | {other} | **{factor_text(ratio)}** ({time}) | {memory} |")
    cpu = record["provenance"].get("cpu") or "unknown CPU"
    lines += ["", f"One thread of {cpu}; contenders in turns, the median of the rounds' ratios."]
    return "\n".join(lines)


def with_speed(text: str, record: dict[str, Any]) -> str:
    """README's text with this record's table.

    Raises:
        UserError: if the text has no place for it.
    """
    if BEGIN not in text or END not in text:
        raise UserError(f"README: expected the lines {BEGIN!r} and {END!r} around the table of speeds")
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{table(record)}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Write the record, then README's table from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", type=Path, nargs="?", help="pytest-benchmark's JSON; without it: README alone")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    if arguments.benchmark is not None:
        made = record_of(json.loads(arguments.benchmark.read_text(encoding="utf-8")))
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    text = arguments.readme.read_text(encoding="utf-8")
    record = json.loads(arguments.record.read_text(encoding="utf-8"))
    arguments.readme.write_text(with_speed(text, record), encoding="utf-8")


if __name__ == "__main__":
    main()
