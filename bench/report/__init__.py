"""Records to tables, figures and one self-contained HTML page; reads records and artifacts only, never torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from bench.report.parts import Changes

__all__ = ["render_terminal_table", "report_and_table", "write_report"]


def write_report(results: Path, out: Path, changes: Changes | None = None, pdf: bool = False) -> Path:
    """Write index.html, report.md, table.csv, tables.tex and figures/ for a results folder.

    The same records give the same bytes. A missing or damaged artifact is told in the report, not fatal.

    Args:
        results: a run's folder, with records/*.jsonl and perhaps run.json.
        out: the folder to write; made if missing, files of the same names replaced.
        changes: since another run, as `bench.compare.telling.since` tells them; shown behind the data sets.
        pdf: write the figures as PDF too; those that lie in `out` already are made again in any case.

    Returns:
        The path of index.html.

    Raises:
        UserError: if there are no records, they are of a newer schema, or `out` cannot be written.
    """
    return report_and_table(results, out, changes, pdf)[0]


def report_and_table(results: Path, out: Path, changes: Changes | None = None, pdf: bool = False) -> tuple[Path, Group]:
    """`write_report`, and the trilemma table of the same records: the rows that the page's figures have room for."""
    from bench.report.source import open_results
    from bench.report.terminal import render
    from bench.report.write import write  # matplotlib takes most of a second: only who writes pays
    from bench.store import no_collection

    with no_collection():
        source = open_results(Path(results))
        page, sheets = write(source, Path(out), changes, pdf)
        table = render(sheets, all_rows=False)
        del source, sheets  # before the collector looks for garbage again, through millions of objects
    return page, table


def render_terminal_table(results: Path) -> Group:
    """The trilemma table of a results folder as a rich renderable, a table a data set.

    Raises:
        UserError: if there are no records, or they are of a newer schema.
    """
    from bench.report.grouping import make_sheet
    from bench.report.source import open_results
    from bench.report.terminal import render

    source = open_results(Path(results))
    return render(make_sheet(source, dataset) for dataset in source.datasets)
