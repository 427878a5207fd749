"""Pairs of real processes: where they work, in which order, and what of it is kept; the work winds the clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.gate import pairs
from bench.gate.pairs import Planted, Timed, abba
from bench.gate.process import Job
from bench.gate.trees import Trees

SUITE = """
import os, time
from pathlib import Path

_now, _sleep = 0.0, time.sleep
time.perf_counter = time.process_time = lambda: _now


def _tell(file, text):
    with Path(__file__).with_name(file).open("a") as told:
        told.write(text)


def _turns(device):
    side, calls = Path.cwd().name[0], 0
    _tell("cores", f"{side} {sorted(os.sched_getaffinity(0))}\\n")

    def work():
        global _now
        nonlocal calls
        calls += 1
        _now += 100 if calls == 3 else 1  # two calls prepare, the third is the first that is timed
        _tell("turns", side)

    return work, {}


def _second():
    global _now
    _now += 1


WORKLOADS = {
    "turns": _turns,
    "computes": lambda device: (_second, {}),
    "sleeps": lambda device: (lambda: (_second(), _sleep(0.002)), {}),
}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Timed]]:
    folder = tmp_path_factory.mktemp("pairs")
    trees = Trees(folder / "base", folder / "head")
    trees.base.mkdir()
    trees.head.mkdir()
    (folder / "suite.py").write_text(SUITE)
    job = Job(folder / "suite.py", "")
    found = pairs.measure(trees, job, [Planted(name) for name in ("turns", "computes", "sleeps")])
    return folder, {timed.work.name: timed for timed in found}


def test_both_sides_of_a_pair_work_on_one_core_and_the_next_pair_on_the_next(
    measured: tuple[Path, dict[str, Timed]],
) -> None:
    folder, _ = measured
    allowed = sorted(os.sched_getaffinity(0))
    assert pairs.cores("cpu") == allowed
    told = (folder / "cores").read_text().splitlines()
    places = [allowed[i % len(allowed)] for i in range(3)]
    orders = ("bh", "hb", "bh")  # who begins changes
    assert told == [f"{side} [{core}]" for core, order in zip(places, orders, strict=True) for side in order]


def test_rounds_alternate_and_the_first_of_each_side_warms_up(measured: tuple[Path, dict[str, Timed]]) -> None:
    folder, found = measured
    kept = found["turns"].tally.found
    assert len(kept) == 3, "votes of the same work agree: two more pairs could change nothing"
    rounds = len(kept[0].base)
    said = (folder / "turns").read_text()
    whole = "bbhh" + "".join(name[0] for name in abba("base", rounds + 1))
    assert said[: len(whole)] == whole
    for pair in kept:
        assert pair.base == pair.head == (1.0,) * rounds, "without the round of 100 seconds"
        assert pair.turns
        assert pair.cpu is not None
        assert pair.cpu.base == pair.base


def test_work_that_waits_is_known_from_work_that_computes(measured: tuple[Path, dict[str, Timed]]) -> None:
    _, found = measured
    assert not any(pair.waits for pair in found["computes"].tally.found)
    assert all(pair.waits for pair in found["sleeps"].tally.found)
