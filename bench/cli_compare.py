"""The commands `trilemma compare` and `trilemma leaderboard`: several results folders side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from baselines.errors import UserError
from bench.cli_common import STDOUT, check_file, write_text

if TYPE_CHECKING:
    from bench.report.document import Document

COMPARE_HELP = """Compare results folders with the first of them: what changed, and is it beyond noise?

Cells meet where model, config, budget, data set, draw, N and seed are equal; scores are compared by paired seeds under
equal protocols alone, with Holm's correction for all comparisons. What was measured under other protocols is refused,
what only one folder has is listed. Speeds are told as trends. To fail on a regression: `trilemma gate A B`.

Examples:

    trilemma compare results/reference results/new

    trilemma compare before after --markdown - >> pull_request.md

    trilemma compare a b c --html compared.html --all-metrics

    trilemma compare a b --across new-settings           # the later program has settings that the earlier had not

    trilemma compare a b --select ddpm --across config --across budget    # what another setting bought
"""

BOARD_HELP = """Rank what people and machines measured, as far as it is comparable.

A board is one data set and one metric under one protocol (split, N, extractor and all); speeds have a board for each
device, likelihoods one for each kind. Folders of one clean commit, one device and the same protocols are
pooled, others stand beside each other. A place is told with the ranks that the seeds leave possible; what they do not
tell apart is a tie.

Examples:

    trilemma leaderboard results/digits results/reference

    trilemma leaderboard results/* --by fd --by bits -o leaderboard

    trilemma leaderboard mine theirs --by images_per_s --all-draws
"""


def compare(
    results: Annotated[list[Path], typer.Argument(help="Results folders; the others are compared with the first.")],
    select: Annotated[str, typer.Option(help="Only scores whose name, `cell: metric`, holds this.")] = "",
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Every metric with a better side.")] = False,
    across: Annotated[
        list[str] | None,
        typer.Option(help="new-settings (that only one side knows), config, budget: pair cells that differ in them."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file; - for stdout.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page to this file.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show what did not move too.")] = False,
) -> None:
    """Compare results folders."""
    from bench.compare import changes, telling
    from bench.compare.meeting import ACROSS

    for name in across or ():
        if name not in ACROSS:
            raise UserError(f"compare --across: expected one of {', '.join(ACROSS)}, got {name!r}")
    check_file("--markdown", markdown)
    check_file("--html", html)
    if html == STDOUT:
        raise UserError("--html -: expected a file to write the page to")
    document = telling.document(changes.compare(results, select, all_metrics, tuple(dict.fromkeys(across or ()))))
    _show(document, every, to_stdout=markdown == STDOUT)
    if markdown not in (None, STDOUT):
        _write_markdown(markdown, document, every, "--markdown")
    if html is not None:
        _write_html(html, document, "--html")


def leaderboard(
    results: Annotated[list[Path], typer.Argument(help="Results folders, of one person or of many.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write leaderboard.html and leaderboard.md to this folder.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="fd, coverage, images_per_s, bits, or another metric family; the first four by default."),
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this data set.")] = None,
    all_draws: Annotated[
        bool, typer.Option("--all-draws", help="Every draw of a model, not one for each sampler.")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file; - for stdout.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every place, not the first ones.")] = False,
) -> None:
    """Rank what is comparable."""
    from bench.compare import standings

    if out is not None:
        _check_folder(out)
    check_file("--markdown", markdown)
    document = standings.document(standings.rank(results, by or (), dataset or (), all_draws))
    _show(document, every, to_stdout=markdown == STDOUT)
    if markdown not in (None, STDOUT):
        _write_markdown(markdown, document, True, "--markdown")
    if out is not None:
        _write_html(out / "leaderboard.html", document, "--out")
        _write_markdown(out / "leaderboard.md", document, True, "--out")
        Console(stderr=True).print(f"leaderboard: {out / 'leaderboard.html'}", markup=False, soft_wrap=True)


def _show(document: Document, every: bool, to_stdout: bool) -> None:
    """In the terminal, or on stdout as Markdown and nothing else."""
    from bench.report.document import as_markdown, terminal

    if to_stdout:
        print(as_markdown(document, every), end="")
    else:
        console = Console()
        console.print(terminal(document, every, console.width))


def _check_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: expected a folder that can be made: {error.strerror or error}") from error


def _write_markdown(path: Path, document: Document, every: bool, option: str) -> None:
    from bench.report.document import as_markdown

    write_text(option, path, as_markdown(document, every))


def _write_html(path: Path, document: Document, option: str) -> None:
    from bench.report.document import html

    write_text(option, path, html(document))
