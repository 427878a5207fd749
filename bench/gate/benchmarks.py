"""pytest-benchmark files in two trees: the head's benchmarks against both, judged by the raw rounds of their JSON."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench.gate.outcome import PAIRS, Row
from bench.gate.pairs import Name, Told, abba
from bench.gate.process import environment
from bench.gate.rule import LEAST_ROUNDS, Pair, Tally, counter_rows, failed_row
from bench.gate.trees import Trees

ROUNDS = 10
"""Rounds of each benchmark in one process; benchmarks may make more, and tests/perf/conftest.py reads this number."""

Benchmarks = dict[str, dict[str, Any]]
Collected = dict[Name, list[Benchmarks]]


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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{where}: expected what `pytest --benchmark-json FILE --benchmark-save-data` writes, "
            f"got something else ({type(error).__name__}: {error})"
        ) from None
    return found


def run(tree: Path, files: str, select: str | None, out: Path, timeout_s: float) -> tuple[Benchmarks, str]:
    """One process of pytest over the benchmarks of a tree; what it measured, and its last words where it failed."""
    command = [
        *(sys.executable, "-P", "-m", "pytest", files, "--benchmark-only", "-p", "no:xdist", "-q", "--no-header"),
        *(f"--benchmark-json={out}", "--benchmark-save-data", "--continue-on-collection-errors", "-m", ""),
        *(("-k", select) if select else ()),
    ]
    variables = {**environment(tree), "TRILEMMA_GATE_ROUNDS": str(ROUNDS)}
    out.unlink(missing_ok=True)
    try:
        done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {}, f"no end within {timeout_s:g} s"
    told = "" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-2000:]
    if not out.is_file() or not out.stat().st_size:
        return {}, told or "pytest wrote no benchmarks"
    return read(out.read_text(encoding="utf-8"), str(out)), told


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
    collected: Collected = {"base": [], "head": []}
    words: dict[Name, str] = {}
    for i in range(pairs):
        for name in abba("base" if i % 2 == 0 else "head", 1):
            if told is not None:
                told(f"pair {i + 1} of {pairs}: {files} on the {name}")
            tree = trees.base if name == "base" else trees.head
            found, said = run(tree, files, select, trees.base.parent / f"{name}.json", timeout_s)
            collected[name].append(found)
            words[name] = said or words.get(name, "")
        if not collected["head"][0] and not collected["base"][0]:
            raise UserError(f"{files}: expected benchmarks, got none: {_last(words)}")
        if all(tally.decided for tally in tallies(collected, pairs).values()):
            break
    notes = [f"pytest failed on the {name}: {text.strip().splitlines()[-1]}" for name, text in words.items() if text]
    return rows(collected, words, pairs), notes


def tallies(collected: Collected, pairs: int = PAIRS) -> dict[str, Tally]:
    """The votes on each benchmark that both sides measured in every pair with enough rounds."""
    found = {}
    for name in _names(collected):
        rounds = [[side[name]["stats"]["data"] for side in collected[s] if name in side] for s in ("base", "head")]
        if len(rounds[0]) == len(rounds[1]) == len(collected["base"]) and _fewest(rounds) >= LEAST_ROUNDS:
            found[name] = Tally(pairs, [Pair(tuple(b), tuple(h)) for b, h in zip(*rounds, strict=True)])
    return found


def rows(collected: Collected, words: Mapping[Name, str], pairs: int = PAIRS) -> list[Row]:
    """One row a benchmark, and one a counter that it put into extra_info["counters"]."""
    judged, out = tallies(collected, pairs), []
    for name in _names(collected):
        label = name.removeprefix("tests/perf/")
        there = {s: [side[name] for side in collected[s] if name in side] for s in ("base", "head")}
        if name in judged:
            out.append(judged[name].row(label))
        elif not there["base"] or not there["head"]:
            missing = _last(words) or "not measured"
            out.append(failed_row(label, None if there["base"] else missing, None if there["head"] else missing))
            continue
        else:
            fewest = _fewest([[b["stats"]["data"] for b in there[s]] for s in ("base", "head")])
            note = f"{fewest} rounds; the test needs {LEAST_ROUNDS}, and every pair both sides"
            out.append(Row("time", label, "unclear", note=note))
        counters = [dict(there[s][0].get("extra_info", {}).get("counters", {})) for s in ("base", "head")]
        out.extend(counter_rows(label, counters[0], counters[1]))
    return out


def _names(collected: Collected) -> list[str]:
    return list(dict.fromkeys(name for side in ("head", "base") for held in collected[side] for name in held))


def _fewest(rounds: list[list[list[float]]]) -> int:
    return min((len(values) for side in rounds for values in side), default=0)


def _last(words: Mapping[Name, str]) -> str:
    return next((text.strip().splitlines()[-1] for text in words.values() if text.strip()), "")
