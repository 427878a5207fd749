"""Work in forked processes gives what it gives here."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.report.forks import hands, later
from bench.report.style import draw, papers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks where that is known to be safe")


def test_works_of_more_than_there_are_hands_come_back_in_their_places():
    with hands(2):
        works = [later(lambda k=k: (k, os.getpid())) for k in range(7)]
    made = [work.result() for work in works]
    assert [k for k, _ in made] == list(range(7))
    assert len({pid for _, pid in made} - {os.getpid()}) == 7  # each had a process of its own


def test_results_larger_than_a_pipe_holds_keep_nobody_waiting():
    with hands(1):
        works = [later(lambda k=k: bytes([k]) * 3_000_000) for k in range(3)]
        assert works[1].result() == bytes([1]) * 3_000_000  # asked for while others are under way
        works.append(later(lambda: b"last"))
    assert [work.result()[:1] for work in works] == [b"\0", b"\1", b"\2", b"l"]


def test_without_hands_the_work_is_done_here_once_and_only_if_it_is_asked_for():
    with hands(0):
        assert later(os.getpid).result() == os.getpid()
    done = []
    work = later(lambda: done.append(1))
    assert done == []
    work.result()
    work.result()
    assert done == [1]


def test_an_error_of_the_work_is_raised_where_it_is_asked_for():
    def fails() -> None:
        raise ValueError("no such axis")

    with hands(1):
        work = later(fails)
    with pytest.raises(ValueError, match="no such axis"):
        work.result()


def test_a_process_that_the_system_ends_costs_its_work_only(tmp_path: Path):
    here = os.getpid()

    def ended_elsewhere() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return 7

    with hands(1):
        works = [later(ended_elsewhere) for _ in range(3)]
    assert [work.result() for work in works] == [7, 7, 7]


def test_a_process_that_is_ended_while_it_answers_costs_its_work_only(tmp_path: Path):
    here, done = os.getpid(), tmp_path / "done"

    def large() -> bytes:
        if os.getpid() != here:
            done.touch()
        return bytes(5_000_000)  # far more than a pipe holds, and nobody reads

    with hands(1):
        work = later(large)
    while not done.exists():
        time.sleep(0.01)
    time.sleep(0.3)
    (process,) = multiprocessing.active_children()
    process.kill()
    assert work.result() == bytes(5_000_000)


def test_a_figure_is_the_same_whoever_draws_it():
    def painted():
        def paint(figure):
            canvas = figure.subplots()
            canvas.plot([1, 2, 3], [2, 1, 4], label="a line")

        with papers(lambda name: name == "lines"):
            return draw("lines", "Lines", "What to see", (4, 3), paint)

    own = painted()
    with hands(2):
        others = painted()
    assert own.drawing.result() == others.drawing.result()
    assert own.pdf is not None
    assert own.pdf.startswith(b"%PDF")
    assert others.data is not None
    assert others.data.rows[0] == ("a line", "1", "2")


def test_a_report_from_a_shell_by_several_processes_is_the_report_made_here(
    results: Path, written: Path, tmp_path: Path
):
    code = f"""
from bench.report import forks, write, write_report
from pathlib import Path
started, write.hands = [], lambda: forks.hands(2)
begin = forks.Later.begin
forks.Later.begin = lambda work: started.append(1) or begin(work)
write_report(Path({str(results)!r}), Path({str(tmp_path / "there")!r}))
print(len(started))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 5, "the premise: figures, findings and the table"
    here, there = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (written, tmp_path / "there"))
    assert here == there
