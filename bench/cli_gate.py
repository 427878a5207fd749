"""The command `trilemma gate`: what a change did to speed, work and quality; fails where something got worse."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from baselines.errors import UserError
from bench.cli_common import STDOUT, check_file, stoppable, write_text
from bench.gate.outcome import PAIRS

if TYPE_CHECKING:
    from bench.gate.outcome import Outcome

HELP = """Find regressions: of speed against another commit, or of quality between two results folders.

With --base, the head (the checkout as it lies there, uncommitted changes included) and the merge base of REF and HEAD
run the same workloads in pairs of fresh processes, in turns on one core. A workload is slower if in three of five pairs
BOTH the median ratio of neighbouring rounds is above 1.07 AND the p of a rank-sum test (Mann-Whitney's, aligned within
A B B A) is below .01, by wall or by CPU time. Of pytest-benchmark files, which run one process after the other, the
ratio is that of the fastest rounds, the test takes all rounds together and the time is wall time. FLOPs, network calls
(NFE), parameters and, on a GPU, peak memory must not grow.

With two results folders, scores of the same cells and seeds under the same protocol are compared, by intervals of
their paired differences; counters exactly; times are told as trends.

Exit status: 0 nothing got worse, 1 something did, 2 the comparison, or a part of it, could not be made.

A regression that is wanted is named with --accept, or for good in a commit's trailer: `Gate-accept: NAME; reason`.

Examples:

    trilemma gate --base origin/main               # before a pull request; about two minutes

    trilemma gate --base HEAD~1 --suite full --select draw

    trilemma gate --base main --suite tests/perf/test_report_perf.py   # pytest-benchmark

    trilemma gate --base main --suite mine.py      # WORKLOADS = {name: make(device)}

    trilemma gate results/reference results/new --markdown gate.md --junit gate.xml

    trilemma gate --self-test                      # how often does it err, here and today? half an hour
"""


_GOES_WITH = {
    "suite": ("base",),
    "pairs": ("base", "self_test"),
    "device": ("base", "self_test"),
    "trials": ("self_test",),
    "json_": ("self_test",),
    "select": ("base", "results"),
    "all_metrics": ("results",),
}
_MODES = {"base": "--base REF", "self_test": "--self-test", "results": "two results folders"}


def gate(
    context: typer.Context,
    results: Annotated[list[Path] | None, typer.Argument(help="Two results folders: base and head.")] = None,
    base: Annotated[str | None, typer.Option(help="A commit, branch or tag to compare the checkout with.")] = None,
    suite: Annotated[str, typer.Option(help="short, full, perf, a file of workloads, or pytest-benchmark files.")] = "",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of processes, an odd number; most must agree.")] = PAIRS,
    select: Annotated[str | None, typer.Option(help="Only workloads or scores whose name holds this.")] = None,
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Judge every metric of the results.")] = False,
    accept: Annotated[
        list[str] | None, typer.Option(help="A regression that is wanted: part of its name, `; reason` after it.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, where the workloads run.")] = "cpu",
    self_test: Annotated[bool, typer.Option("--self-test", help="Measure the gate itself.")] = False,
    trials: Annotated[int, typer.Option(min=1, help="Of the self-test.")] = 40,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file; - for stdout.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the self-test's record to this file.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show what did not move too.")] = False,
) -> None:
    """Find regressions."""
    from bench.gate import show

    chosen = [name for name, given in (("results", results), ("base", base), ("self_test", self_test)) if given]
    if len(chosen) != 1:
        told = _said(_MODES[name] for name in chosen)
        raise UserError(f"gate: expected one of two results folders, --base REF or --self-test, got {told}")
    for option, path in (("--junit", junit), ("--markdown", markdown), ("--json", json_)):
        check_file(option, path)
        if path == STDOUT and option != "--markdown":
            raise UserError(f"{option} -: expected a file")
    _check_given(context, chosen[0], results or [], pairs)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(f"gate --device: expected cpu or cuda, got {device!r}")
    begin = time.monotonic()
    record: dict[str, Any] | None = None
    with stoppable("stopped: nothing was compared", once=True):  # by signals too, so that the worktree goes
        if results:
            from bench.gate.records import compare

            outcome = compare(results[0], results[1], select, all_metrics)
        elif base is not None:
            outcome = _against(base, suite or "short", pairs, select, device)
        else:
            outcome, record = _self_test(trials, pairs, device)
    outcome = replace(outcome.accepting(accept or ()), seconds=time.monotonic() - begin)
    if markdown == STDOUT:
        print(show.markdown(outcome, every), end="")
    else:
        Console().print(show.terminal(outcome, every))
    if record is not None and json_ is not None:
        write_text("--json", json_, json.dumps(record, indent=1) + "\n")
    _write_files(outcome, junit, markdown, every)
    raise typer.Exit(outcome.exit_code)


def _check_given(context: typer.Context, mode: str, results: list[Path], pairs: int) -> None:
    if results and len(results) != 2:
        raise UserError(f"gate: expected two results folders, base and head, got {_said(map(str, results))}")
    for name, modes in _GOES_WITH.items():
        source = context.get_parameter_source(name)
        if mode not in modes and source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP"):
            option = f"--{name.rstrip('_').replace('_', '-')}"
            fitting = " or ".join(_MODES[known] for known in modes)
            raise UserError(f"gate {option}: goes with {fitting}, and means nothing with {_MODES[mode]}; leave it out")
    if pairs % 2 == 0:
        raise UserError(f"gate --pairs: expected an odd number, so that most can agree, got {pairs}")


def _against(ref: str, suite: str, pairs: int, select: str | None, device: str) -> Outcome:
    from bench.gate.against import against

    with _Progress() as told:
        return against(Path.cwd(), ref, suite, pairs, select, device, told)


def _self_test(trials: int, pairs: int, device: str) -> tuple[Outcome, dict[str, Any]]:
    import bench
    from bench.gate import selftest
    from bench.gate.against import SHORT_S, own_workloads
    from bench.gate.process import Job

    begin = time.monotonic()
    tree = Path(bench.__file__).parents[1]
    job = Job(own_workloads(tree), "self-test", device, ("bench", "baselines"), work_s=SHORT_S)
    with _Progress() as told:
        test = selftest.run(tree, job, trials, pairs, told=told)
    seconds = time.monotonic() - begin
    return test.outcome(seconds), test.as_json(seconds)


def _write_files(outcome: Outcome, junit: Path | None, markdown: Path | None, every: bool) -> None:
    from bench.gate import show

    if junit is not None:
        write_text("--junit", junit, show.junit(outcome))
    if markdown not in (None, STDOUT):
        write_text("--markdown", markdown, show.markdown(outcome, every))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):  # where GitHub Actions collects a job's Markdown
        try:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(show.markdown(outcome, every))
        except OSError as error:
            raise UserError(f"GITHUB_STEP_SUMMARY={summary}: cannot be written: {error.strerror or error}") from error


class _Progress:
    """What is being timed, on the error stream: a line that goes again, or in a log nothing."""

    def __init__(self) -> None:
        self._status = Console(stderr=True).status("starting")

    def __enter__(self) -> Callable[[str], None]:
        self._status.start()
        return lambda text: self._status.update(text.replace("[", "\\["))

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def _said(chosen: Iterable[str]) -> str:
    return " and ".join(chosen) or "none"
