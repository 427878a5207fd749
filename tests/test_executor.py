"""The local executor: processes of their own, time limits, every end an outcome, no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.executors.local import Outcome, run_jobs
from tests.jobs_for_tests import work

ROOT = Path(__file__).parents[1]


def run(names: list[str], folder: Path, slots: int = 2, limit: float = 60.0) -> dict[str, Outcome[tuple[str, str]]]:
    progress: list[tuple[str, int, int]] = []
    jobs = [(name, str(folder)) for name in names]
    outcomes = run_jobs(jobs, work, slots, limit, lambda job, told: progress.append(told))
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
        "from bench.executors.local import run_jobs\n"
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
