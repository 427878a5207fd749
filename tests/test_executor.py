"""The local executor: processes of their own, time limits, every end an outcome, no orphans."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.executors.local import Outcome, run_jobs
from bench.plain_text import printable
from tests.jobs_for_tests import work

ROOT = Path(__file__).parents[1]


def run(
    names: list[str], folder: Path, slots: int = 2, limit: float = 60.0, memory_mb: int | None = None
) -> dict[str, Outcome[tuple[str, str]]]:
    progress: list[tuple[str, int, int]] = []
    jobs = [(name, str(folder)) for name in names]
    outcomes = run_jobs(jobs, work, slots, limit, lambda job, told: progress.append(told), memory_mb)
    found = {outcome.job[0]: outcome for outcome in outcomes}
    if any(name.startswith(("good", "alone")) for name in names):
        assert ("counting", 3, 3) in progress
    return found


def test_a_failing_dying_or_hanging_job_is_an_outcome_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = run(["raise", "die", "exit", "good1", "hang", "good2"], tmp_path, limit=4.0)
    assert {name: outcome.status for name, outcome in found.items()} == {
        "raise": "failed",
        "die": "failed",
        "exit": "failed",
        "hang": "timeout",
        "good1": "ok",
        "good2": "ok",
    }
    assert found["raise"].error.startswith("ValueError: as told")
    assert "SIGKILL" in found["die"].error
    assert "exit status 3" in found["exit"].error
    assert "4 s" in found["hang"].error


def test_every_job_has_a_process_of_its_own(tmp_path: Path) -> None:
    found = run(["good1", "good2", "good3"], tmp_path)
    pids = {outcome.result.split()[-1] for outcome in found.values()}
    assert len(pids) == 3
    assert str(os.getpid()) not in pids


def test_one_slot_means_nothing_else_is_running(tmp_path: Path) -> None:
    found = run([f"alone{i}" for i in range(4)], tmp_path, slots=1)
    assert {outcome.status for outcome in found.values()} == {"ok"}


def test_jobs_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from tests.jobs_for_tests import work\n"
        "from bench.executors.local import _WARM, run_jobs\n"
        "_WARM.clear()\n"  # which only makes later starts faster
        f"list(run_jobs([('orphan', {str(tmp_path)!r})], work, 1, 60, lambda j, p: None))\n"
    )
    script = tmp_path / "script.py"  # without a __main__ guard: jobs must not import it again
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code)
    parent = subprocess.Popen([sys.executable, str(script)], cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < until
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_a_hang_and_a_segmentation_fault_say_where(tmp_path: Path) -> None:
    found = run(["hang", "segfault"], tmp_path, limit=2.0)
    assert found["hang"].status == "timeout"
    assert "SIGSEGV (a segmentation fault)" in found["segfault"].error
    for outcome in found.values():
        assert "jobs_for_tests.py" in outcome.error
        assert "in work" in outcome.error


def test_a_job_that_takes_too_much_memory_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    before = int(run(["memory"], tmp_path)["memory"].result) >> 20
    assert 5 < before < 2000, "the premise: this system tells what is taken"
    limit = before + 200
    found = run(["eat", "good1"], tmp_path, memory_mb=limit)
    assert found["good1"].status == "ok"
    assert found["eat"].status == "failed"
    taken = re.search(r"it took ([\d,]+) MiB of main memory, more than its limit of ([\d,]+) MiB", found["eat"].error)
    assert taken
    assert int(taken[2].replace(",", "")) == limit
    assert limit < int(taken[1].replace(",", "")) < limit + 1000, "long before it had all it wanted"
    assert run(["eat"], tmp_path)["eat"].status == "ok", "without a limit it does what it will"


def test_what_a_job_starts_counts_and_ends_with_it(tmp_path: Path) -> None:
    started = int(run(["start another"], tmp_path)["start another"].result)
    assert gone(started)
    limit = 200 + (int(run(["memory"], tmp_path)["memory"].result) >> 20)
    found = run(["start one that eats"], tmp_path, memory_mb=limit)["start one that eats"]
    assert found.status == "failed"
    assert "of main memory, more than its limit" in found.error


def gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while (status := Path(f"/proc/{pid}/status")).exists() and time.monotonic() < until:
        if "Z (zombie)" in status.read_text():
            return True
        time.sleep(0.05)
    return not status.exists()


def test_garbage_on_the_standard_streams_is_cleaned_cut_and_does_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["garbage"], tmp_path)["garbage"].status == "ok"
    out, told = capsys.readouterr()
    assert out == "", "which programs may read"
    assert "bell" in told
    assert "half a sign" in told
    assert "all further output of this cell is left out" in told
    assert 1_000 < len(told) < 11_000
    assert printable(told) == told
    assert "\x1b" not in told


def test_the_last_words_of_a_dying_job_are_in_its_error(tmp_path: Path) -> None:
    error = run(["print and die"], tmp_path)["print and die"].error
    assert "SIGKILL" in error
    assert error.endswith("The last that it printed:\nred last words")


def test_an_error_or_a_result_that_cannot_be_told_is_an_outcome(tmp_path: Path) -> None:
    found = run(["odd error", "odd class", "odd result", "good1"], tmp_path)
    assert found["odd error"].error.startswith("ValueError: red? \udcff")
    assert found["odd class"].error.startswith("Unreadable: unreadable 1 2")
    assert found["odd result"].status == "failed"
    assert "its result cannot be read" in found["odd result"].error
    assert found["good1"].status == "ok"


def test_a_signal_for_all_processes_is_the_parents_to_handle(tmp_path: Path) -> None:
    jobs = run_jobs([("orphan", str(tmp_path))], work, 1, 60, lambda job, told: None)
    ended = threading.Thread(target=lambda: [outcomes.append(outcome) for outcome in jobs])
    outcomes: list[Outcome[tuple[str, str]]] = []
    ended.start()
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.05)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(int(pid.read_text()), number)
    time.sleep(0.5)
    assert outcomes == [], "no cell fails since the run is stopped"
    assert os.getpgid(int(pid.read_text())) == int(pid.read_text())
    os.kill(int(pid.read_text()), signal.SIGKILL)
    ended.join(20)
    assert [outcome.status for outcome in outcomes] == ["failed"]
