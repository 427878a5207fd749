"""How long a report of the committed records takes; run by `tox -e perf` and by `trilemma gate --suite perf`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.report import render_terminal_table, write_report

pytestmark = pytest.mark.slow

RECORDS = Path(__file__).parents[2] / "results" / "reference"


def test_the_table_that_a_run_ends_with(benchmark: Any) -> None:
    console = Console(width=200, quiet=True)
    benchmark.pedantic(lambda: console.print(render_terminal_table(RECORDS)), rounds=20, warmup_rounds=1)


def test_a_page_with_its_figures(benchmark: Any, tmp_path: Path) -> None:
    page = benchmark.pedantic(lambda: write_report(RECORDS, tmp_path), rounds=6, warmup_rounds=1)
    assert page.stat().st_size > 100_000
