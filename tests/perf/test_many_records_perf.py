"""How long a report of many records takes, and how large its page is; run by `tox -e perf`."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.peers.many_records import write_many

pytestmark = pytest.mark.slow

CODE = "import sys, pathlib; from bench.report import write_report; write_report(*map(pathlib.Path, sys.argv[1:]))"


@pytest.mark.parametrize(
    ("records", "samples", "draws"),
    [(1000, True, 1), (100_000, False, 9)],
    ids=["1,000 records with samples", "100,000 records"],
)
def test_report_of_many_records(benchmark: Any, tmp_path: Path, records: int, samples: bool, draws: int) -> None:
    """From a fresh process to the written page, imports included. What is wanted: 5 s and 5 MB; 30 s."""
    folder = write_many(tmp_path / "results", records, samples, draws)
    out = tmp_path / "out"

    def report() -> None:
        subprocess.run([sys.executable, "-c", CODE, str(folder), str(out)], check=True)

    begin = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    benchmark.group = f"report of {records:,} records"
    benchmark.pedantic(report, rounds=1)
    benchmark.extra_info["wall_s"] = time.perf_counter() - begin
    benchmark.extra_info["cpu_s"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    benchmark.extra_info["page_bytes"] = (out / "index.html").stat().st_size
    assert (out / "index.html").stat().st_size < 5e6
