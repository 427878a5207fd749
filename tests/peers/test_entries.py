"""The contests themselves: names, and that each can be raced."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch_fidelity.defaults import DEFAULTS

from bench.peers import commands, contest, evaluation, metrics, race

ENTRIES = tuple(contest.entries())
LIGHT = (
    partial(metrics.score, 500),
    partial(metrics.precision, 300),
    partial(metrics.four, 300),
)


def raced(made: contest.Contest) -> None:
    found = race.run(replace(made, rounds=1, warm=False))
    assert found.rows, "somebody else takes part"
    for row in found.rows:
        assert row.error is None, f"{row.peer}: {row.error}"
        assert row.version is not None
        assert row.ratio is not None
        if row.agreement is not None:
            assert row.agreement.holds or row.agreement.expected, f"{row.peer}: {row.agreement}"


def test_every_work_has_a_name_of_its_own() -> None:
    counts = Counter(entry.name for entry in ENTRIES)
    assert len(counts) == len(ENTRIES) > 10
    assert {entry.group for entry in ENTRIES} >= {metrics.GROUP, evaluation.GROUP, commands.GROUP}


@pytest.mark.parametrize("make", LIGHT, ids=lambda make: make.func.__name__)
def test_light_contests_can_be_raced_and_their_answers_agree(
    make: Callable[[Path], contest.Contest], tmp_path: Path
) -> None:
    pytest.importorskip("prdc")
    raced(make(tmp_path))


def test_kid_is_timed_whole_since_a_part_of_it_is_done_once_whatever_the_subsets(tmp_path: Path) -> None:
    """Seconds of 5 of 100 subsets, times 20, took torchmetrics' copies of the features for 20: 1.2 times the truth."""
    kernel_distance = pytest.importorskip("cleanfid.fid").kernel_distance
    made = metrics.kernel(1000, tmp_path)
    assert {contender.share for contender in (made.ours, *made.peers)} == {1}
    assert inspect.signature(kernel_distance).parameters["num_subsets"].default == metrics.SUBSETS
    assert DEFAULTS["kid_subsets"] == metrics.SUBSETS


@pytest.mark.parametrize("n", [1000, 1200])
def test_kid_agrees_with_kid_and_not_with_whatever_is_small(
    tmp_path: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SUBSETS", 5)
    made = metrics.kernel(n, tmp_path)
    ours = made.ours.work()
    for peer in made.peers:
        assert made.agree[peer.name](ours, peer.work()).holds, peer.name
        assert not made.agree[peer.name](ours, 0.0).holds


def test_a_score_that_is_no_number_agrees_with_nothing_wherever_it_stands() -> None:
    whole = {"fid": 3.0, "kid": 0.01, "is": 2.0}
    for name in whole:
        assert evaluation.compare(0.1)(whole, whole).holds
        assert not evaluation.compare(0.1)(whole, {**whole, name: math.nan}).holds, name


def test_a_density_or_coverage_that_is_no_number_agrees_with_nothing(tmp_path: Path) -> None:
    pytest.importorskip("prdc")
    agree = metrics.four(10, tmp_path).agree["prdc"]
    assert agree((1, 1, 1, 1), (0, 0, 1, 1)).holds, "premise: precision and recall are of another k"
    assert not agree((1, 1, 1, 1), (1, 1, math.nan, 1)).holds
    assert not agree((1, 1, 1, 1), (1, 1, 1, math.nan)).holds


def test_a_file_of_contests_that_is_gone_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "_MODULES", (*contest._MODULES, "no_such_file"))
    with pytest.raises(ModuleNotFoundError, match="no_such_file"):
        list(contest.entries())


@pytest.mark.slow
@pytest.mark.parametrize("entry", [e for e in ENTRIES if not e.long], ids=lambda entry: entry.name)
def test_every_contest_can_be_raced_and_its_answers_agree(entry: contest.Entry, tmp_path: Path) -> None:
    if entry.missing():
        pytest.skip(f"{', '.join(entry.missing())} is not installed")
    made = entry.make(tmp_path)
    assert (made.name, made.group) == (entry.name, entry.group)
    raced(made)


def test_a_program_tells_its_own_memory_and_not_its_parents(tmp_path: Path) -> None:
    """Linux counts what a process was before it became a program as that program's peak."""
    held = bytearray(300 << 20)  # of this process
    programs = commands.Programs(tmp_path)
    small = programs.python("-S", "-c", "print('here')")
    large = programs.python("-S", "-c", "x = bytearray(100 << 20); print('there')")
    assert len(held) == 300 << 20
    assert (small.text.strip(), large.text.strip()) == ("here", "there")
    assert small.peak_bytes < 50 << 20
    assert large.peak_bytes - small.peak_bytes == pytest.approx(100 << 20, rel=0.1)


def test_a_program_that_fails_says_how(tmp_path: Path) -> None:
    programs = commands.Programs(tmp_path)
    with pytest.raises(RuntimeError, match=re.compile("exit status 3: .*why", re.S)):
        programs.python("-S", "-c", "import sys; print('why'); sys.exit(3)")
    assert programs.python("-S", "-c", "print('again')").text == "again\n"
