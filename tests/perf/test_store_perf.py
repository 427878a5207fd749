"""How long a large results folder takes to read, filter and tabulate; run by `tox -e perf`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import query, store

pytestmark = pytest.mark.slow

RECORDS = 100_000
MEASURED = 6  # of each record, the first ones of a real one
REAL = Path(__file__).parents[2] / "results" / "diffusion"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real records with keys and seeds of their own, in four shards."""
    place = tmp_path_factory.mktemp("large")
    (place / "records").mkdir()
    real = [record.as_json() for record in store.load(REAL).records]
    for first in range(0, RECORDS, RECORDS // 4):
        with open(place / "records" / f"{first // (RECORDS // 4) + 1:04d}.jsonl", "w") as file:
            for i in range(first, first + RECORDS // 4):
                plain = real[i % len(real)]
                plain |= {"key": f"{i:016x}", "train_key": f"{i // 8:016x}", "measured": plain["measured"][:MEASURED]}
                plain["cell"]["seed"] = i // len(real)
                file.write(json.dumps(plain) + "\n")
    return place


def test_a_hundred_thousand_records_load_filter_and_become_tables(folder: Path, benchmark: Any) -> None:
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        before = os.times()
        result = work()
        after = os.times()
        seconds[name] = after.user + after.system - before.user - before.system
        return result

    def everything() -> None:
        loaded = timed("load", lambda: store.load(folder))
        assert len(loaded.records) == RECORDS
        assert loaded.problems == ()
        frame = timed("frame", lambda: store.frame(loaded.records))
        assert len(frame) > 4 * RECORDS
        found = timed("filter", lambda: frame[(frame.model == "ddpm") & (frame.steps == 20) & (frame.metric == "nfe")])
        assert 0 < len(found) < len(frame) / 10
        wide = timed("table", lambda: store.table(loaded.records))
        timed("where", lambda: query.matching(wide, [query.parse("steps=20"), query.parse("seed<3")]))
        timed("medians", lambda: frame.groupby(["model", "draw", "metric"]).value.median())

    benchmark.group = f"store, {RECORDS:,} records"
    benchmark.pedantic(everything, rounds=1)
    benchmark.extra_info["bytes"] = sum(path.stat().st_size for path in (folder / "records").iterdir())
    benchmark.extra_info["cpu_seconds"] = seconds
    print(benchmark.extra_info)
