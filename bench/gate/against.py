"""The checkout against another commit: two trees, the head's workloads, one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from baselines.errors import UserError
from bench.gate import benchmarks, pairs
from bench.gate.outcome import PAIRS, Outcome, Row
from bench.gate.pairs import Planted, Told
from bench.gate.process import Job, SideError
from bench.gate.rule import LEAST_RATIO, MOST_P
from bench.gate.trees import Base, Trees, find_base, side_by_side

SUITES = ("short", "full")
PERF = "tests/perf"
SHORT_S = 1.2  # of a workload in one pair, so that the suite takes about two minutes


def own_workloads(tree: Path) -> Path:
    """The file of the gate's own workloads in a tree; that of this installation where the tree has none."""
    there = tree / "bench" / "gate" / "workloads.py"
    return there if there.is_file() else Path(__file__).with_name("workloads.py")


def against(
    place: Path,
    ref: str,
    suite: str = "short",
    most: int = PAIRS,
    select: str | None = None,
    device: str = "cpu",
    told: Told | None = None,
) -> Outcome:
    """Time the checkout around `place` against the merge base of `ref` and HEAD, and compare their counters.

    Args:
        place: anywhere in the checkout.
        ref: a commit, branch or tag.
        suite: "short", "full", "perf" (the pytest-benchmark files of tests/perf), a file of workloads, or a folder or
            file of pytest-benchmark tests.
        most: pairs of processes, an odd number.
        select: only workloads whose name holds this; of pytest-benchmark files what -k takes.
        device: "cpu" or "cuda".
        told: progress.

    Raises:
        UserError: if there is no such base or suite, or nothing could be timed.
    """
    base = find_base(place, ref)
    chosen = _chosen(base, place, suite)
    if not base.code_changed:
        what = f"{len(base.changed)} files, none of which is code" if base.changed else "no file at all"
        return Outcome(base.title, (), (f"{what} differ{'s' * (not base.changed)} from the base: nothing was timed",))
    with side_by_side(base) as trees:
        found, notes = _measure(base, trees, chosen, suite, most, select, device, told)
    if all(row.verdict in ("error", "new", "unclear") for row in found):
        why = "; ".join(f"{row.name}: {row.note or row.verdict}" for row in found[:1]) or "it is empty"
        raise UserError(f"gate: expected work of {suite} that runs on both sides, got none to compare; {why}")
    rule = (
        f"Slower: in most of {most} pairs of processes both the rounds' ratio > {LEAST_RATIO} and the rank-sum test's "
        f"p < {MOST_P}, by wall or CPU time. Counters must not grow. Ratios are judged; seconds of a call are a trend."
    )
    return Outcome(base.title, tuple(found), (*notes, rule)).accepting(base.accepted)


def _chosen(base: Base, place: Path, suite: str) -> Path | None:
    """The file or folder of a suite in the checkout; None: the gate's own workloads.

    Raises:
        UserError: if there is none, or it could time nothing of this checkout.
    """
    if suite in SUITES:
        if not (base.root / "bench" / "__init__.py").is_file():
            raise UserError(
                f"gate --suite {suite}: times this program's own code, expected in bench/ of the checkout, got "
                f"{base.root} without; to time other code: --suite FILE.py with its workloads"
            )
        return None
    files = PERF if suite == "perf" else suite
    chosen = (place / files) if (place / files).exists() else (base.root / files)
    if not chosen.exists():
        raise UserError(
            f"gate --suite {suite}: expected {', '.join(SUITES)}, perf, a .py file of workloads or pytest-benchmark "
            f"tests, got no such name or file"
        )
    if not _is_tests(chosen) and chosen.suffix != ".py":
        raise UserError(f"gate --suite {suite}: expected a .py file, got {chosen.name}")
    if _is_tests(chosen) and not chosen.resolve().is_relative_to(base.root.resolve()):
        raise UserError(f"gate --suite {suite}: expected tests inside the checkout {base.root}, got {chosen}")
    return chosen.resolve()


def _is_tests(chosen: Path) -> bool:
    return chosen.is_dir() or chosen.name.startswith("test_") or chosen.stem.endswith("_test")


def _measure(
    base: Base,
    trees: Trees,
    chosen: Path | None,
    suite: str,
    most: int,
    select: str | None,
    device: str,
    told: Told | None,
) -> tuple[list[Row], list[str]]:
    if chosen is None:
        return _workloads(trees, own_workloads(trees.head), suite, most, select, device, told), []
    if not _is_tests(chosen):
        return _workloads(trees, chosen, "", most, select, device, told), []
    return benchmarks.measure(trees, str(chosen.relative_to(base.root.resolve())), select, most, told)


def _workloads(
    trees: Trees, file: Path, suite: str, most: int, select: str | None, device: str, told: Told | None
) -> list[Row]:
    job = Job(file, suite, device, trees.packages(), work_s=SHORT_S if suite == "short" else Job.work_s)
    try:
        names: Sequence[str] = pairs.names(trees, job)
    except SideError as error:
        raise UserError(f"gate: the head cannot load {file.name}: {str(error).strip().splitlines()[-1]}") from error
    chosen = [name for name in names if select is None or select in name]
    if not chosen:
        raise UserError(
            f"gate --select {select}: expected part of a workload's name: {', '.join(names)}; got none of them"
        )
    timed = pairs.measure(trees, job, [Planted(name) for name in chosen], most, told)
    return [row for held in timed for row in held.rows()]
