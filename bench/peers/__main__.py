"""Race us against other libraries: `python -m bench.peers`, or `tox run -e peers`.

Nothing else should run meanwhile. Each finished race is written at once, so that a run can be stopped at any moment;
--missing goes on with what is not in the file yet.

Examples:
  python -m bench.peers --list                         what there is, and what is not installed for it
  python -m bench.peers --select "MAF"                 some of it; the other lines of the file stay
  python -m bench.peers --missing                      what the file lacks
  python -m bench.peers --long --select evaluation     with what takes many minutes
  python -m bench.peers --out my.jsonl --rounds 6      quicker, elsewhere
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from baselines.errors import UserError
from bench import provenance
from bench.peers import book, contest
from bench.plain_text import printable


def main(arguments: list[str] | None = None) -> int:
    """Race what was asked for; 0, 1 if a contest of ours failed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/reference") / book.FILE, help="the file of records")
    parser.add_argument("--select", action="append", default=[], help="only works whose name or group holds this")
    parser.add_argument("--rounds", type=int, help="timed rounds of each race; 6 is the least for an interval")
    parser.add_argument("--missing", action="store_true", help="leave out what the file holds already")
    parser.add_argument("--long", action="store_true", help="also what takes many minutes")
    parser.add_argument("--list", action="store_true", help="name the works and end")
    given = parser.parse_args(arguments)
    try:
        if given.rounds is not None and given.rounds < 1:
            raise UserError(f"--rounds: expected 1 or more, got {given.rounds}")
        return _run(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was finished is in the file, --missing goes on", file=sys.stderr)
        return 130


def _run(given: argparse.Namespace) -> int:
    chosen = _chosen(given.select)
    console = Console(file=sys.stdout, soft_wrap=True)  # by itself: while contenders run, sys.stdout is another one
    if absent := contest.absent():
        console.print(f"not installed, and left out of every work: {', '.join(absent)}", highlight=False)
    if given.list:
        for entry in chosen:
            lacking = f"  [needs {', '.join(entry.missing())}]" if entry.missing() else ""
            later = "  [--long]" if entry.long else ""
            console.print(f"{entry.group}: {entry.name}{later}{lacking}", markup=False, highlight=False)
        return 0
    races = book.load(given.out)
    if given.missing:
        done = {race.work for race in races}
        chosen = [entry for entry in chosen if entry.name not in done]
    book.check_writable(given.out)
    failed = 0
    columns = TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    # drawn when a round begins and not ten times a second: the thread that draws would run beside what is timed
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("")
        for i, entry in enumerate(chosen, 1):
            place = f"{i}/{len(chosen)} {entry.name}"
            lacking = f"{', '.join(entry.missing())} is not installed" if entry.missing() else ""
            if lacking or (entry.long and not given.long):
                console.print(f"{place}: left out, {lacking or 'it takes long: --long'}", markup=False)
                continue

            def tell(text: str, place: str = place) -> None:
                progress.update(task, description=f"{place}: {text}", refresh=True)

            try:
                found = _raced(entry, given.rounds, tell)
            except UserError:
                raise
            except Exception as error:  # of ours: the other contests can still be raced
                failed += 1
                console.print(f"{place}: failed, {type(error).__name__}: {printable(str(error))}", markup=False)
                continue
            book.save(given.out, book.merged(book.load(given.out), [found]))
            console.print(place, markup=False, highlight=False)
            for row in found.rows:
                console.print(f"    {_line(row)}", markup=False, highlight=False)
    return 1 if failed else 0


def _raced(entry: contest.Entry, rounds: int | None, tell: Callable[[str], None]) -> book.Race:
    from bench.peers import race  # torch takes seconds to import

    tell("inputs")
    with tempfile.TemporaryDirectory() as folder:
        with race.quiet():
            made = entry.make(Path(folder))
        if (made.name, made.group) != (entry.name, entry.group):
            raise ValueError(f"the contest of {entry.group}: {entry.name} calls itself {made.group}: {made.name}")
        if rounds is not None:
            made = dataclasses.replace(made, rounds=rounds)
        found = race.run(made, tell)
    return found.model_copy(update={"provenance": provenance.collect()})


def _chosen(selected: list[str]) -> list[contest.Entry]:
    known = list(contest.entries())
    chosen = [e for e in known if not selected or any(s.lower() in f"{e.group}: {e.name}".lower() for s in selected)]
    if not chosen:
        groups = ", ".join(sorted({entry.group for entry in known}))
        raise UserError(f"--select: expected part of a work's name, got {selected}; groups are {groups}; see --list")
    return chosen


def _line(row: book.Row) -> str:
    if row.ratio is None:
        return f"{row.peer}: failed, {printable(row.error or '')}"
    interval = f" [{row.low:.3g}, {row.high:.3g}]" if row.low is not None and row.high is not None else ""
    if row.agreement is None:
        return f"{row.peer}: {row.ratio:.3g}x{interval}"
    found = "not a number" if row.agreement.found is None else f"{row.agreement.found:.2g}"
    word = "agrees" if row.agreement.holds else "differs"
    return f"{row.peer}: {row.ratio:.3g}x{interval}; {word}, {row.agreement.measure} {found}"


if __name__ == "__main__":
    sys.exit(main())
