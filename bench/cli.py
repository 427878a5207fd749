"""The command line: trilemma run | evaluate | report | gate | list | show."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from baselines.errors import UserError
from baselines.types import Budget
from bench import __version__, cli_evaluate, cli_gate
from bench.record import Record
from bench.variants import told_apart

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

    trilemma run my_matrix.toml --dry-run           # what would be done
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
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
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
        _overrides(set_ or [], named),
        results,
        data_dir,
        weights,
        extractor,
        jobs,
    )
    if dry_run:
        _print_plan(api.dry_run(options), console)
        return
    out = report or Path("reports") / api.results_folder(options).name
    check_writable(out)
    with _stoppable():
        summary = api.execute(options, console)
    try:
        _finish(summary.results, out, console)
    finally:
        api.tell_missing(summary.missing, console)
        _tell_failed(summary.failed, console)
    if summary.failed:
        raise typer.Exit(1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C ends the run and says how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


def _tell_failed(failed: Sequence[Record], console: Console) -> None:
    if not failed:
        return
    console.print(f"\n{len(failed)} cells failed:", style="bold red")
    for record, variant in zip(failed, told_apart([record.cell for record in failed]), strict=True):
        first = record.error.splitlines()[0] if record.error else record.status
        console.print(f"  {record.cell.label(variant)}: {first}", markup=False, soft_wrap=True)
    again = shlex.join(["trilemma", "run", *sys.argv[2:]])
    console.print(f"Run it again to retry only these: {again}", markup=False, soft_wrap=True)


def _finish(results: Path, out: Path, console: Console) -> None:
    """Write the report, print the trilemma table and where the report lies."""
    from bench.report import render_terminal_table, write_report

    page = write_report(results, out)
    console.print(render_terminal_table(results))
    console.print(f"report: {page}", markup=False, soft_wrap=True)


app.command(name="evaluate", help=cli_evaluate.HELP)(cli_evaluate.evaluate)
app.command(name="gate", help=cli_gate.HELP)(cli_gate.gate)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A results folder, such as results/quick.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to; reports/NAME by default.")] = None,
) -> None:
    """Write the report of a results folder; it reads records and their artifacts only.

    Example:

        trilemma report results/quick -o reports/quick
    """
    _finish(results, out or Path("reports") / results.resolve().name, Console())


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


@app.command()
def show(
    results: Annotated[Path, typer.Argument(help="A results folder, such as results/quick.")],
    as_json: Annotated[bool, typer.Option("--json", help="One record a line, as stored.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One measurement a line.")] = False,
) -> None:
    """Show the records of a results folder.

    Examples:

        trilemma show results/quick

        trilemma show results/quick --csv > measurements.csv
    """
    from bench import store
    from bench.report import render_terminal_table

    if as_json and as_csv:
        raise UserError("show: expected --json or --csv, got both")
    loaded = store.load(results)
    for problem in loaded.problems:
        print(f"note: {problem}", file=sys.stderr)
    if as_json:
        for record in loaded.records:
            print(json.dumps(record.as_json()))
    elif as_csv:
        print(store.frame(loaded.records).to_csv(index=False), end="")
    else:
        Console().print(render_terminal_table(results))


def _overrides(settings: list[str], models: list[str]) -> dict[str, dict[str, Any]]:
    """`model.key=value` to {model: {key: value}}, the value read as TOML, or as a bare word.

    models: those named by --model, some of whose names hold dots themselves (my.module, file.py).
    """
    import tomllib

    out: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        named = max((name for name in models if target.startswith(f"{name}.")), key=len, default=None)
        model, dot, key = (named, ".", target[len(named) + 1 :]) if named else target.partition(".")
        if not (equals and dot and model and key):
            raise UserError(f"--set: expected model.key=value, got {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        out.setdefault(model, {})[key] = value
    return out


def _print_plan(plan: list[dict[str, str]], console: Console) -> None:
    table = Table("cell", "budget", "state")
    for row in plan:
        table.add_row(row["cell"], row["budget"], row["state"])
    console.print(table)
    cells = [row for row in plan if not row["state"].startswith("left out")]
    waiting = sum(row["state"] != "done" for row in cells)
    console.print(f"{len(cells)} cells, {len(cells) - waiting} done, {waiting} to do; nothing was run")


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
        if not _is_a_rank():
            app(standalone_mode=True)
            return
        from bench.metrics.ranks import Ranks

        with Ranks() as ranks:
            if ranks.rank:
                sys.exit(ranks.help_out())
            app(standalone_mode=True, obj=ranks)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"error:{where}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
