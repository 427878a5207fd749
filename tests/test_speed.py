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
    table="trainer",
    ours="mine",
    ratio={"theirs": 2.5},
    seconds={"mine": 0.1, "theirs": 0.25},
    peak_bytes={"mine": 2**20, "theirs": None},
)


def test_the_record_keeps_ratios_and_no_machines_name() -> None:
    made = speed.record_of({"machine_info": {"node": "my-host"}, "benchmarks": [MADE, benchmark()]}, "trainer")
    assert [row["ratio"] for row in made["rows"]] == [{"theirs": 2.5}]
    assert "my-host" not in json.dumps(made)
    assert "| Sorting | theirs | **2.5×** (100 ms against 250 ms) | – |" in speed.table(made)


def test_each_table_takes_its_own_benchmarks_and_shows_their_spread_and_notes() -> None:
    drawn = benchmark(
        table="diffusion",
        ours="mine",
        ratio={"theirs": 1.0134},
        seconds={"mine": 0.1, "theirs": 0.1013},
        peak_bytes={},
        spread={"theirs": [1.004, 1.02]},
        notes={"theirs": "one level"},
    )
    plain = {"benchmarks": [MADE, drawn]}
    made = speed.record_of(plain, "diffusion")
    assert [row["ratio"] for row in made["rows"]] == [{"theirs": 1.0134}]
    assert [row["ratio"] for row in speed.record_of(plain, "trainer")["rows"]] == [{"theirs": 2.5}]
    shown = speed.table(made)
    assert "| Sorting | theirs | **1.01×** [1, 1.02] (100 ms against 101 ms) | – | one level |" in shown
    assert "and their quartiles." in shown
    assert "quartiles" not in speed.table(speed.record_of(plain, "trainer"))


def test_tables_stand_beside_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = "".join(f"# {name}\n{place.begin}\nold\n{speed.END}\n" for name, place in speed.TABLES.items())
    (tmp_path / "README.md").write_text(places, encoding="utf-8")
    (tmp_path / "perf.json").write_text(json.dumps({"benchmarks": [MADE]}), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["speed", str(tmp_path / "perf.json"), "--root", str(tmp_path)])
    speed.main()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.count("old") == len(speed.TABLES) - 1, "a table that was not measured stays"
    assert text.index("# trainer") < text.index("2.5×") < text.index("# likelihood")


def test_without_contenders_there_is_no_record() -> None:
    with pytest.raises(UserError, match="got none"):
        speed.record_of({"benchmarks": [benchmark()]}, "trainer")


def test_a_readme_without_a_place_is_told() -> None:
    with pytest.raises(UserError, match="expected the lines"):
        speed.with_speed("no place", {"rows": [], "provenance": {}}, "trainer")


@pytest.mark.parametrize("name", speed.TABLES)
def test_readme_shows_the_committed_record(name: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / speed.TABLES[name].record).read_text(encoding="utf-8"))
    assert record["rows"], "the premise: there are ratios"
    assert speed.with_speed(text, record, name) == text
