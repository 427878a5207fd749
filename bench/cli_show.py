"""`trilemma show`: the records of results folders, all or those that meet conditions, as a table or a file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from baselines.config import nearest
from baselines.errors import UserError
from bench.plain_text import csv_frame, printable
from bench.record import Record

HELP = """Show the records of a results folder.

Without options: the table of the report. With --where or --format: draws, a line each, and what was measured.

Examples:

    trilemma show results/quick

    trilemma show results/quick --where model=ddpm,vae --where "fd[digits-cnn]<5" --columns model,draw,images_per_s

    trilemma show results/quick --where "draw~ddim" --where config.schedule=cosine

    trilemma show results/quick --csv > measurements.csv

    trilemma show results/quick --format parquet --out measurements.parquet
"""


def show(
    results: Annotated[Path, typer.Argument(help="A results folder, such as results/quick.")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=VALUE[,VALUE], or != < <= > >= ~ (contains); several must all be met."),
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Of the table, with commas between.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="table (a draw a line), csv or parquet (a measurement a line), json (records)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As --format json: one record a line, as stored.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As --format csv.")] = False,
) -> None:
    """Show the records of a results folder."""
    from bench import query, store
    from bench.report import render_terminal_table

    how = _format(format_, as_json, as_csv)
    if columns is not None and how not in (None, "table"):
        raise UserError(f"show: --columns is for the table, got --format {how}; leave one out")
    conditions = [query.parse(text) for text in where or ()]
    if how is None and not conditions and columns is None and out is None:
        loaded = store.load(results)
        _tell(loaded.problems)
        Console().print(render_terminal_table(results))
        return
    if how == "parquet" and out is None:
        raise UserError("show: expected --out FILE with --format parquet, got none; name the file to write")
    loaded = store.load(results)
    _tell(loaded.problems)
    answer = query.ask(loaded.records, conditions)
    if how in (None, "table"):
        names = [name.strip() for name in columns.split(",")] if columns else []
        if any(name.startswith("config.") for name in names):
            answer = query.Answer(query.with_config(answer.rows, answer.records), answer.records)
        table = query.rich_table(answer.rows, names, [c.column for c in conditions])
        _print_table(table, out)
        print(f"{len(answer.rows)} draws of {len(answer.records)} records", file=sys.stderr)
    elif how == "parquet":
        assert out is not None
        query.write_parquet(store.frame(answer.records), out)
    elif how == "csv":
        _write(csv_frame(store.frame(answer.records)).to_csv(index=False), out)
    else:
        _write(_lines(answer.records), out)


def _format(named: str | None, as_json: bool, as_csv: bool) -> str | None:
    from bench.query import FORMATS

    asked = [name for name, wanted in (("json", as_json), ("csv", as_csv)) if wanted] + ([named] if named else [])
    if len(set(asked)) > 1:
        raise UserError(f"show: expected one format, got both {' and '.join(dict.fromkeys(asked))}; leave one out")
    if asked and asked[0] not in FORMATS:
        raise UserError(
            f"show: --format: expected one of {', '.join(FORMATS)}, got {asked[0]!r}{nearest(asked[0], FORMATS)}"
        )
    return asked[0] if asked else None


def _tell(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"note: {printable(problem)}", file=sys.stderr)


def _lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record.as_json()) + "\n" for record in records)


def _print_table(table: Table, out: Path | None) -> None:
    if out is None:
        Console().print(table)
        return
    text = io.StringIO()
    Console(width=10_000, file=text).print(table)
    _write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()), out)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); name another with --out") from None
