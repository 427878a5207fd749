"""pytest-benchmark files in two trees: the head's benchmarks against both, judged by the raw rounds of their JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench.gate.outcome import PAIRS, Row
from bench.gate.pairs import Name, Told, abba
from bench.gate.process import end_group, environment
from bench.gate.rule import LEAST_ROUNDS, Pair, Tally, counter_rows, failed_row
from bench.gate.trees import Trees

ROUNDS = 10
"""Rounds of each benchmark in one process; benchmarks may make more, and tests/perf/conftest.py reads this number."""

PLUGIN = "trilemma_gate_failures"
SIDES: tuple[Name, Name] = ("base", "head")

Benchmarks = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Ran:
    """What one process of pytest measured, and which tests (or files, or all of it) failed: name -> why."""

    found: Benchmarks
    failed: Mapping[str, str]


Runs = dict[Name, list[Ran]]
"""Of each side, pair by pair."""


def read(text: str, where: str) -> Benchmarks:
    """Name -> what pytest-benchmark tells of it.

    Raises:
        UserError: if it is not pytest-benchmark's JSON with raw data.
    """
    try:
        plain = json.loads(text)
        found = {str(b["fullname"]): dict(b) for b in plain["benchmarks"]}
        for name, benchmark in found.items():
            rounds = benchmark["stats"]["data"]
            if not all(isinstance(x, int | float) and math.isfinite(x) and x > 0 for x in rounds):
                raise UserError(f"{where}: {name}: expected times above 0 in stats.data")
            counters = dict(dict(benchmark.get("extra_info") or {}).get("counters") or {})
            if not all(isinstance(x, int | float) for x in counters.values()):
                raise UserError(f"{where}: {name}: expected numbers in extra_info.counters, got {counters}")
            benchmark["extra_info"] = {"counters": counters}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{where}: expected what `pytest --benchmark-json FILE --benchmark-save-data` writes, "
            f"got something else ({type(error).__name__}: {error})"
        ) from None
    return found


def run(tree: Path, files: str, select: str | None, place: Path, timeout_s: float) -> Ran:
    """One process of pytest over the benchmarks of a tree.

    Args:
        tree: where; its packages are imported first.
        files: a folder or file of tests, relative to the tree.
        select: passed to pytest as -k.
        place: a folder for what pytest and its plugin write.
        timeout_s: for the process.
    """
    out, failures, plugins = place / "benchmarks.json", place / "failures.jsonl", place / "plugins"
    plugins.mkdir(exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("pytest_failures.py"), plugins / f"{PLUGIN}.py")
    command = [
        *(sys.executable, "-P", "-m", "pytest", files, "--benchmark-only", "-p", "no:xdist", "-q", "--no-header"),
        *(f"--benchmark-json={out}", "--benchmark-save-data", "--continue-on-collection-errors", "-m", ""),
        *("-p", PLUGIN, *(("-k", select) if select else ())),
    ]
    variables = environment(tree)
    variables |= {"TRILEMMA_GATE_ROUNDS": str(ROUNDS), "TRILEMMA_GATE_FAILURES": str(failures)}
    variables["PYTHONPATH"] += os.pathsep + str(plugins)
    for path in (out, failures):
        path.unlink(missing_ok=True)
    code, told = _process(command, tree, variables, timeout_s)
    lines = failures.read_text(encoding="utf-8").splitlines() if failures.is_file() else []
    failed: dict[str, str] = {}
    for name, why in map(json.loads, lines):
        failed.setdefault(name, why)
    if code != 0 and not failed:
        failed[files] = told
    if not out.is_file() or not out.stat().st_size:
        return Ran({}, failed or {files: "pytest wrote no benchmarks"})
    return Ran(read(out.read_text(encoding="utf-8"), str(out)), failed)


def _process(command: Sequence[str], tree: Path, variables: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """Its exit status and its last line; whatever it started has ended too."""
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            command, cwd=tree, env=variables, stdin=subprocess.DEVNULL, stdout=told, stderr=told, process_group=0
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -1, f"no end within {timeout_s:g} s"
        finally:
            end_group(process.pid)
            process.wait()
        told.seek(0)
        lines = told.read().decode(errors="replace").strip().splitlines()
        return code, f"{lines[-1] if lines else 'no word'} (exit status {code})"


def overlay(trees: Trees) -> None:
    """Give the base the head's tests and the records that they read: a changed benchmark is no changed code."""
    for folder in ("tests", "results/reference"):
        if (trees.head / folder).is_dir():
            shutil.rmtree(trees.base / folder, ignore_errors=True)
            shutil.copytree(trees.head / folder, trees.base / folder, symlinks=True)
    for name in ("pyproject.toml", "conftest.py"):
        if (trees.head / name).is_file():
            shutil.copy2(trees.head / name, trees.base / name)


def measure(
    trees: Trees,
    files: str,
    select: str | None = None,
    pairs: int = PAIRS,
    told: Told | None = None,
    timeout_s: float = 7200.0,
) -> tuple[list[Row], list[str]]:
    """Rows of all benchmarks below `files`, from pairs of processes in the order A B, B A, A B; and pytest's failures.

    Args:
        trees: base and head; the base gets the head's tests.
        files: a folder or file of tests, relative to the trees.
        select: passed to pytest as -k.
        pairs: at most so many; fewer where the last could change nothing.
        told: progress.
        timeout_s: for one process.

    Raises:
        UserError: if neither side measured anything.
    """
    overlay(trees)
    ran: Runs = {"base": [], "head": []}
    for i in range(pairs):
        for name in abba("base" if i % 2 == 0 else "head", 1):
            if told is not None:
                told(f"pair {i + 1} of {pairs}: {files} on the {name}")
            tree = trees.base if name == "base" else trees.head
            ran[name].append(run(tree, files, select, trees.base.parent, timeout_s))
        if not any(runs[0].found for runs in ran.values()):
            raise UserError(f"{files}: expected benchmarks, got none: {_words(ran)}")
        if all(tally.decided for tally in tallies(ran, pairs).values()):
            break
    return rows(ran, pairs), notes(ran)


def tallies(ran: Runs, pairs: int = PAIRS) -> dict[str, Tally]:
    """The votes on each benchmark that both sides measured in every pair with enough rounds."""
    found = {}
    for name in _names(ran):
        base, head = ([r.found[name]["stats"]["data"] for r in ran[s] if name in r.found] for s in SIDES)
        if len(base) == len(head) == len(ran["base"]) and min(map(len, [*base, *head])) >= LEAST_ROUNDS:
            found[name] = Tally(pairs, [Pair(tuple(b), tuple(h)) for b, h in zip(base, head, strict=True)])
    return found


def rows(ran: Runs, pairs: int = PAIRS) -> list[Row]:
    """One row a benchmark, and one a counter that it put into extra_info["counters"]; one a test that only failed.

    A benchmark that one side did not measure in every pair was not run there. One that was measured and whose test
    then failed, in most pairs on the head alone, is broken too: what it computes is no longer right.
    """
    judged, out = tallies(ran, pairs), []
    for name in _names(ran):
        label = name.removeprefix("tests/perf/")
        there = {s: [r.found[name] for r in ran[s] if name in r.found] for s in SIDES}
        base, head = (None if len(there[s]) == len(ran[s]) else _why(ran[s], name) for s in SIDES)
        if base is not None or head is not None:
            out.append(failed_row(label, base, head, ran=bool(there["base"])))
        elif _mostly_fails(ran["head"], name) and not _mostly_fails(ran["base"], name):
            out.append(failed_row(label, None, _why(ran["head"], name)))
        elif name in judged:
            out.append(judged[name].row(label))
        else:
            fewest = min(len(b["stats"]["data"]) for s in SIDES for b in there[s])
            out.append(Row("time", label, "unclear", note=f"{fewest} rounds; the test needs {LEAST_ROUNDS}"))
        if there["base"] and there["head"]:
            out.extend(counter_rows(label, *(there[s][0]["extra_info"]["counters"] for s in SIDES)))
    return [*out, *_only_failed(ran)]


def _only_failed(ran: Runs) -> list[Row]:
    """Tests, files and whole runs that failed on the head with no benchmark that could tell it."""
    told, out = _names(ran), []
    lacking = [name for name in told if any(name not in r.found for r in ran["head"])]
    for name in dict.fromkeys(name for r in ran["head"] for name in r.failed):
        if name not in told and not any(_within(other, name) for other in lacking):
            base = _why(ran["base"], name) if any(name in r.failed for r in ran["base"]) else None
            out.append(failed_row(name.removeprefix("tests/perf/"), base, _why(ran["head"], name)))
    return out


def notes(ran: Runs) -> list[str]:
    """What pytest said of failures, so that none is passed over in silence."""
    said = []
    for side in SIDES:
        failed = {name: why for r in ran[side] for name, why in r.failed.items()}
        said += [f"pytest failed on the {side}: {name}: {why[:200]}" for name, why in failed.items()][:5]
    return said


def _names(ran: Runs) -> list[str]:
    return list(dict.fromkeys(name for side in ("head", "base") for r in ran[side] for name in r.found))


def _mostly_fails(runs: Sequence[Ran], name: str) -> bool:
    return 2 * sum(name in r.failed for r in runs) > len(runs)


def _why(runs: Sequence[Ran], name: str) -> str:
    """Why a test failed or was not measured: its own failure, or that of its file or of the whole run."""
    return next((why for r in runs for place, why in r.failed.items() if _within(name, place)), "not measured")


def _within(name: str, place: str) -> bool:
    """Whether a test is this one, or of this file or folder."""
    return name == place or name.startswith((f"{place}::", f"{place}/"))


def _words(ran: Runs) -> str:
    return next((why for runs in ran.values() for r in runs for why in r.failed.values()), "no word from pytest")
