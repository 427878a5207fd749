"""Puts the tables of a results folder into README: `python -m bench.report.readme` after a reference run.

Each table stands between two comment lines and is replaced whole, so no number in README is typed by hand.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from baselines.errors import UserError
from bench.peers import book
from bench.report.beside import short_table
from bench.report.content import gather
from bench.report.markdown import table
from bench.report.source import open_results
from bench.report.tables import Table

BEGIN = "<!-- table: python -m bench.report.readme -->"
END = "<!-- end of table -->"
BESIDE = "<!-- other libraries: python -m bench.report.readme -->"
END_BESIDE = "<!-- end of other libraries -->"
COLUMNS = 7  # as many as a page of README holds: model, FD, coverage, recall, bits/dim, images/s, latency


def with_table(text: str, results: Path) -> str:
    """README's text with the table of the records in `results`.

    Raises:
        UserError: if the text has no place for it, or there are no records.
    """
    if BEGIN not in text or END not in text:
        raise UserError(f"README: expected the lines {BEGIN!r} and {END!r} around the table")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    sections = gather(open_results(results)).sections
    return "\n".join([f"{head}{BEGIN}", *(table(_first_columns(s.main)) for s in sections), f"{END}{tail}"])


def with_beside(text: str, results: Path) -> str:
    """README's text with the table of other libraries, of `peers.jsonl` in `results`.

    Raises:
        UserError: if the text has no place for it, or the records cannot be read.
    """
    if BESIDE not in text or END_BESIDE not in text:
        raise UserError(f"README: expected the lines {BESIDE!r} and {END_BESIDE!r} around the table of other libraries")
    head, rest = text.split(BESIDE, 1)
    tail = rest.split(END_BESIDE, 1)[1]
    return f"{head}{BESIDE}\n{short_table(book.load(results / book.FILE))}\n{END_BESIDE}{tail}"


def _first_columns(whole: Table) -> Table:
    lines = tuple(replace(line, data=line.data[:COLUMNS]) for line in whole.lines)
    return replace(whole, columns=whole.columns[:COLUMNS], lines=lines)


def main() -> None:
    """Rewrite README.md in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/reference"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    text = arguments.readme.read_text(encoding="utf-8")
    text = with_beside(with_table(text, arguments.results), arguments.results)
    arguments.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
