"""The record of the performance benchmarks and README's table of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from baselines.errors import UserError
from bench import speed

ROOT = Path(__file__).parents[1]


def benchmark(**extra: Any) -> dict[str, Any]:
    return {"group": "Sorting", "name": "x", "extra_info": extra}


MADE = benchmark(
    ours="mine",
    ratio={"theirs": 2.5},
    seconds={"mine": 0.1, "theirs": 0.25},
    peak_bytes={"mine": 2**20, "theirs": None},
)


def test_the_record_keeps_ratios_and_no_machines_name() -> None:
    made = speed.record_of({"machine_info": {"node": "my-host"}, "benchmarks": [MADE, benchmark()]})
    assert [row["ratio"] for row in made["rows"]] == [{"theirs": 2.5}]
    assert "my-host" not in json.dumps(made)
    assert "| Sorting | theirs | **2.5×** (100 ms against 250 ms) | – |" in speed.table(made)


def test_without_contenders_there_is_no_record() -> None:
    with pytest.raises(UserError, match="got none"):
        speed.record_of({"benchmarks": [benchmark()]})


def test_a_readme_without_a_place_is_told() -> None:
    with pytest.raises(UserError, match="expected the lines"):
        speed.with_speed("no place", {"rows": [], "provenance": {}})


def test_readme_shows_the_committed_record() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / speed.RECORD).read_text(encoding="utf-8"))
    assert record["rows"], "the premise: there are ratios"
    assert speed.with_speed(text, record) == text
