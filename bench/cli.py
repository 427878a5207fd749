"""The command line: trilemma run | train | evaluate | report | compare | leaderboard | gate | list | show."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baselines.errors import UserError
from baselines.types import Budget
from bench import __version__, cli_compare, cli_evaluate, cli_gate, cli_show, cli_train
from bench.cli_common import exit_status, overrides, stoppable
from bench.plain_text import printable
from bench.progress import duration
from bench.record import Record
from bench.variants import told_apart

if TYPE_CHECKING:
    from bench.api import DryRun
    from bench.report.parts import Changes

LEFT = 3
"""Exit status of a run whose time budget ended before its cells; 1: some failed, 2: bad input, 130: Ctrl-C."""

app = typer.Typer(
    name="trilemma",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Train every family of generative image model the same way, measure them the same way, "
    "and put them on one page: quality, coverage, speed.",
)

_RUN_HELP = """Train and measure the cells of a matrix; cells already done are skipped.

Examples:

    trilemma run                                    # the matrix `quick`

    trilemma run quick --model vae --model ddpm     # two of its models

    trilemma run --model my.module                  # your own model, beside the references

    trilemma run --dataset folder:photos --budget 60s

    trilemma run quick --set ddpm.blocks=2 --set vae.training.batch_size=128

    trilemma run my_matrix.toml --dry-run           # what would be done, and how long it may take

    trilemma run digits --within 2h                 # what is worth most, in two hours; again goes on
"""


def _version(value: bool) -> None:
    if value:
        print(f"trilemma {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """The generative trilemma, measured."""


@app.command(help=_RUN_HELP)
def run(
    matrix: Annotated[
        str, typer.Argument(help="A shipped matrix (`trilemma list matrices`) or a TOML file.")
    ] = "quick",
    model: Annotated[list[str] | None, typer.Option(help="Only this model: name, dotted module or .py file.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Instead of the matrix's data sets.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Instead of the matrix's seeds.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Training images (400000, 400k) or seconds (60s: not reproducible).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="model.key=value, the value as in TOML.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the records; results/MATRIX by default.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder of the report; reports/MATRIX by default.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; TRILEMMA_DATA by default.")] = None,
    extractor: Annotated[
        str | None, typer.Option(help="Instead of the data set's own; see `trilemma evaluate`.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the extractor's network, such as Inception's.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings at a time; one a core by default.")] = None,
    executor: Annotated[str, typer.Option(help="local, or ray: the nodes of a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the cluster's head, host:port; auto by default.")] = None,
    within: Annotated[
        str | None,
        typer.Option(
            help="Time for the whole run (90s, 30m, 2h): the most valuable cells first; exit status 3 if left."
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write event files to this folder while training (extra tensorboard).")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Tell curves to this tracking store while training (extra mlflow).")
    ] = None,
    memory_limit: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Main memory of a cell; one that takes more fails.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done, and how long it may take.")] = False,
) -> None:
    """Train and measure the cells of a matrix."""
    from bench import api
    from bench.report.folder import check_writable

    sys.path.insert(0, str(Path.cwd()))  # `--model my.module` means the module in the user's folder
    console = Console()
    named = model or []
    options = api.Options(
        matrix,
        model or (),
        dataset or (),
        seed or (),
        None if budget is None else Budget.parse(budget),
        device,
        overrides(set_ or [], named),
        results,
        data_dir,
        weights,
        extractor,
        jobs,
        executor,
        address,
        None if within is None else api.seconds(within),
        tensorboard,
        mlflow,
        memory_limit,
    )
    if dry_run:
        _print_plan(api.forecast(options), console)
        return
    out = report or Path("reports") / api.results_folder(options).name
    check_writable(out)
    with stoppable():
        summary = api.execute(options, console)
    try:
        if summary.done or summary.cached or not summary.left:
            _finish(summary.results, out, console)
    finally:
        api.tell_missing(summary.missing, console)
        _tell_failed(summary.failed, console)
        _tell_left(summary.left, within, console)
    if summary.failed or summary.left:
        raise typer.Exit(1 if summary.failed else LEFT)


def _tell_failed(failed: Sequence[Record], console: Console) -> None:
    if not failed:
        return
    console.print(f"\n{len(failed)} cells failed:", style="bold red")
    for record, variant in zip(failed, told_apart([record.cell for record in failed]), strict=True):
        first = record.error.splitlines()[0] if record.error else record.status
        console.print(f"  {printable(f'{record.cell.label(variant)}: {first}')}", markup=False, soft_wrap=True)
    again = shlex.join(["trilemma", "run", *sys.argv[2:]])
    console.print(f"Run it again to retry only these: {again}", markup=False, soft_wrap=True)


def _tell_left(left: Sequence[str], within: str | None, console: Console) -> None:
    if not left:
        return
    console.print(f"\n{len(left)} cells are left, for which {within} did not suffice:", style="bold yellow")
    for label in left:
        console.print(f"  {printable(label)}", markup=False, soft_wrap=True)
    again = shlex.join(["trilemma", "run", *sys.argv[2:]])
    console.print(f"Run it again to go on: {again}", markup=False, soft_wrap=True)


def _finish(results: Path, out: Path, console: Console, changes: Changes | None = None, pdf: bool = False) -> None:
    """Write the report, print the trilemma table and where the report lies."""
    from bench.report import report_and_table

    page, table = report_and_table(results, out, changes, pdf)
    console.print(table)
    console.print(f"report: {page}", markup=False, soft_wrap=True)


app.command(name="train", help=cli_train.HELP)(cli_train.train)
app.command(name="evaluate", help=cli_evaluate.HELP)(cli_evaluate.evaluate)
app.command(name="compare", help=cli_compare.COMPARE_HELP)(cli_compare.compare)
app.command(name="leaderboard", help=cli_compare.BOARD_HELP)(cli_compare.leaderboard)
app.command(name="gate", help=cli_gate.HELP)(cli_gate.gate)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A results folder, such as results/quick.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to; reports/NAME by default.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another results folder: the page tells what changed since, beyond noise.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write the figures as PDF too, for papers.")] = False,
) -> None:
    """Write the report of a results folder; it reads records and their artifacts only.

    Examples:

        trilemma report results/quick -o reports/quick

        trilemma report results/new --against results/old

        trilemma report results/quick --pdf                      # figures for a paper, beside tables.tex
    """
    changes = None
    if against is not None:
        from bench.compare.telling import since

        changes = since(against, results)
    _finish(results, out or Path("reports") / results.resolve().name, Console(), changes, pdf)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, datasets, metrics or matrices.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List what there is to run.

    Example:

        trilemma list models --json
    """
    from bench import listing

    rows = listing.rows(what)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(*(rows[0] if rows else ("nothing",)))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


app.command(name="show", help=cli_show.HELP)(cli_show.show)


def _print_plan(plan: DryRun, console: Console) -> None:
    table = Table("cell", "budget", "state", "time")
    for row in plan.rows:
        table.add_row(*(Text(printable(row[name])) for name in ("cell", "budget", "state", "time")))
    console.print(table)
    cells = [row for row in plan.rows if not row["state"].startswith("left out")]
    waiting = sum(row["state"] != "done" for row in cells)
    console.print(f"{len(cells)} cells, {len(cells) - waiting} done, {waiting} to do; nothing was run")
    beyond = sum(row["state"].endswith("beyond the time") for row in cells)
    if beyond:
        console.print(f"{beyond} of them would be left for want of time", style="yellow", highlight=False)
    total = plan.total
    if total.known:
        told = f"about {duration(total.seconds)} by past records, {plan.slots} trainings at a time"
        told += f"; {total.unknown} cells without a record are not counted" if total.unknown else ""
        told += f"; * {total.elsewhere} cells by records of other machines" if total.elsewhere else ""
        console.print(told, highlight=False)
    elif waiting:
        console.print("no past record tells how long they take", highlight=False)


def _is_a_rank() -> bool:
    """Whether torchrun, or what sets its variables, started this process as one of several."""
    needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in needed) and os.environ["WORLD_SIZE"] != "1"


def main() -> None:
    """Entry point of the `trilemma` script: errors of the user's are a line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a sign shows it as \\u2193, and nothing is lost
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if not _is_a_rank() or sys.argv[1:2] == ["train"]:  # whose ranks all read the command line
            app(standalone_mode=True, obj=_is_a_rank() or None)
            return
        from bench.metrics.ranks import Ranks

        with Ranks() as ranks:
            if ranks.rank:
                sys.exit(ranks.help_out())
            app(standalone_mode=True, obj=ranks)
    except KeyboardInterrupt as stop:
        sys.exit(exit_status(stop))
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"error:{where}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
