"""The contests themselves: names, and that each can be raced."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

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
