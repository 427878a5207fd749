"""A tiny repository, its working tree against its own past: real git, real processes, a clock that the work winds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from baselines.errors import UserError
from bench.gate.against import against
from bench.gate.outcome import Outcome, Row
from bench.gate.process import Job, Side, SideError
from bench.gate.trees import find_base, side_by_side
from tests.command import trilemma_here

SUITE = """
import os, random, time

_now = 0.0
time.perf_counter = time.process_time = lambda: _now  # seconds that the work says it takes: no machine is as steady


def _costs(seconds, noise):
    global _now
    _now += seconds * noise.uniform(1.0, 1.02)


def _work(name):
    def make(device):
        import toy

        noise = random.Random(0)
        seconds = toy.COSTS[name]
        return (lambda: _costs(seconds, noise)), {"nfe": toy.STEPS}

    return make


def _fresh(device):
    import toy.fresh

    return (lambda: _costs(0.001, random.Random(0))), {}


def _package(device):
    import beside

    return (lambda: _costs(0.001, random.Random(0))), {}


def _raises(device):
    import toy

    return (lambda: toy.answer()), {}


def _dies(device):
    import toy

    return (lambda: os._exit(3) if toy.DIES else _costs(0.001, random.Random(0))), {}


def _counted(device):
    import toy

    print("the work may print", toy.STEPS)
    return None, {"modules": 100}


WORKLOADS = {
    "steady": _work("steady"),
    "slower": _work("slower"),
    "fresh": _fresh,
    "package": _package,
    "raises": _raises,
    "dies": _dies,
    "counted": _counted,
    "last": _work("steady"),
}
"""
OLD = 'COSTS = {"steady": 1e-3, "slower": 1e-3}\nSTEPS = 50\nDIES = False\ndef answer(): return 42\n'
NEW = 'COSTS = {"steady": 1e-3, "slower": 1.2e-3}\nSTEPS = 51\nDIES = True\n'
NEW += 'def answer(): raise ValueError("no [answer]")\n'


def git(folder: Path, *arguments: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    variables = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "toy").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "toy" / "__init__.py").write_text(OLD)
    (folder / "read.md").write_text("old\n")
    (folder / ".gitignore").write_text("ignored/\n__pycache__/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    (folder / "suite.py").write_text(SUITE)
    return folder


def change(folder: Path) -> None:
    """Uncommitted, and in part not even known to git."""
    (folder / "toy" / "__init__.py").write_text(NEW)
    (folder / "toy" / "fresh.py").write_text("")


def by_name(outcome: Outcome) -> dict[str, Row]:
    return {row.name: row for row in outcome.rows}


def assert_clean(folder: Path) -> None:
    assert len(git(folder, "worktree", "list").splitlines()) == 1


def test_the_working_tree_against_its_past(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoy = tmp_path / "installed"  # an installed copy of all packages, as an editable install would be
    for name in ("toy", "beside"):
        (decoy / name).mkdir(parents=True)
        (decoy / name / "__init__.py").write_text("COSTS = {'steady': 9.0, 'slower': 9.0}\nSTEPS = 9\nDIES = False\n")
    monkeypatch.setenv("PYTHONPATH", str(decoy))
    change(repo)
    (repo / "beside").mkdir()
    (repo / "beside" / "__init__.py").write_text("")

    outcome = against(repo, "HEAD", "suite.py")
    rows = by_name(outcome)

    assert rows["steady"].verdict == rows["last"].verdict == "same"
    assert rows["slower"].verdict == "regression"
    assert rows["slower"].change.startswith("1.200×")
    assert "3 of 3 pairs" in rows["slower"].sure, "the last two could not have changed it"
    assert rows["steady: nfe"].verdict == "regression"
    assert (rows["steady: nfe"].base, rows["steady: nfe"].head) == ("50.0", "51.0")
    assert rows["counted: modules"].verdict == "same"
    assert "counted" not in rows, "it has nothing to time"
    assert rows["fresh"].verdict == "new"
    assert rows["package"].verdict == "new", "the base did not take the installed copy of what it lacks"
    assert "has none of its own" in rows["package"].note
    assert rows["raises"].verdict == "broken"
    assert "no [answer]" in rows["raises"].note
    assert rows["dies"].verdict == "broken"
    assert "exit status 3" in rows["dies"].note
    assert outcome.exit_code == 1
    assert "working tree with uncommitted changes" in outcome.title
    assert_clean(repo)


def test_what_somebody_wanted_is_accepted_by_name_and_told(repo: Path) -> None:
    change(repo)
    (repo / "toy" / "fresh.py").unlink()
    git(repo, "commit", "-qam", "Slower\n\nGate-accept: slower; it is right now\nGate-accept: raises\nGate-accept: ;x")
    outcome = against(repo, "HEAD~1", "suite.py")
    rows = by_name(outcome)
    assert rows["slower"].verdict == rows["raises"].verdict == rows["slower: nfe"].verdict == "accepted"
    assert rows["slower"].note == "regression; it is right now"
    assert rows["steady: nfe"].verdict == "regression", "nobody wanted that"
    assert rows["steady"].verdict == "same"
    assert outcome.exit_code == 1
    known = outcome.accepting(["steady", "last", "dies"])
    assert known.exit_code == 2, "two can be run on neither side"
    assert known.accepting(["fresh", "package"]).exit_code == 0
    assert outcome.accepting([""]).exit_code == 1, "no name is not every name"


def test_documents_alone_time_nothing(repo: Path) -> None:
    assert (repo / "suite.py").is_file(), "an untracked file is code"
    suite = repo.parent / "suite.py"
    (repo / "suite.py").rename(suite)
    (repo / "read.md").write_text("new\n")
    outcome = against(repo, "HEAD", str(suite))
    assert outcome.rows == ()
    assert outcome.exit_code == 0
    assert "nothing was timed" in outcome.notes[0]
    git(repo, "checkout", "-q", ".")
    assert "no file at all differs" in against(repo, "HEAD", str(suite)).notes[0]
    with pytest.raises(UserError, match="expected short, full, perf"):
        against(repo, "HEAD", "shrot")
    (repo / "docs").mkdir()
    git(repo, "mv", "toy/__init__.py", "docs/toy.py")
    assert find_base(repo, "HEAD").code_changed == ("toy/__init__.py",), "code that was moved away has changed"


def test_the_base_is_the_merge_base_and_not_the_branch(repo: Path) -> None:
    first = git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-qb", "other")
    (repo / "toy" / "__init__.py").write_text(OLD.replace("50", "7"))
    git(repo, "commit", "-qam", "two")
    git(repo, "checkout", "-q", "main")
    assert find_base(repo / "toy", "other").commit == first
    (repo / "toy" / "__init__.py").unlink()
    (repo / "ignored").mkdir()
    (repo / "ignored" / "x.py").write_text("")
    base = find_base(repo, "other")
    assert set(base.changed) == {"toy/__init__.py", "suite.py"}
    with side_by_side(base) as trees:
        assert (trees.base / "toy" / "__init__.py").read_text() == OLD
        assert not (trees.head / "toy" / "__init__.py").exists(), "deleted in the checkout"
        assert (trees.head / "suite.py").is_file(), "untracked files belong to the head"
        assert not (trees.base / "suite.py").exists()
        assert not (trees.head / "ignored").exists()
        folder = trees.base.parent
    assert not folder.exists()
    assert_clean(repo)


def test_a_failure_leaves_no_worktree(repo: Path) -> None:
    seen = []

    def fail() -> None:
        with side_by_side(find_base(repo, "HEAD")) as trees:
            seen.append(trees.base.parent)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not seen[0].exists()
    assert_clean(repo)


def test_bad_input_is_told_with_what_to_do(repo: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="inside a git checkout"):
        find_base(tmp_path, "HEAD")
    with pytest.raises(UserError, match=r"unknown name.*git fetch"):
        find_base(repo, "origin/main")
    with pytest.raises(UserError, match="unknown name"):
        find_base(repo, "--output=x")
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    with pytest.raises(UserError, match="none yet"):
        find_base(empty, "HEAD")
    git(repo, "checkout", "-q", "--orphan", "elsewhere")
    git(repo, "commit", "-qam", "another beginning")
    with pytest.raises(UserError, match="got none in common"):
        find_base(repo, "main")
    change(repo)
    with pytest.raises(UserError, match=r"expected short, full, perf, a \.py file"):
        against(repo, "HEAD", "shrot")
    with pytest.raises(UserError, match=r"steady, slower.*got none of them"):
        against(repo, "HEAD", "suite.py", select="nobody")
    (repo / "suite.py").write_text("import nothing_of_that_name")
    with pytest.raises(UserError, match=r"cannot load suite\.py: ModuleNotFoundError"):
        against(repo, "HEAD", "suite.py")
    assert_clean(repo)


def test_without_git_that_is_said_and_hooks_do_not_run(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = repo / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repo}/ran\n")
    hook.chmod(0o755)
    git(repo, "checkout", "-q", "-b", "other")
    assert (repo / "ran").exists(), "the premise: it is a hook that runs"
    (repo / "ran").unlink()
    with side_by_side(find_base(repo, "HEAD")):
        assert not (repo / "ran").exists()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="expected git on this machine"):
        find_base(repo, "HEAD")


def test_cpu_time_holds_that_of_processes_which_the_work_waits_for(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "import subprocess, sys, time\n"
        "def busy(d):\n"
        "    code = 'import time\\nwhile time.process_time() < 0.2: pass'\n"
        "    return (lambda: subprocess.run([sys.executable, '-c', code])), {}\n"
        "def idle(d):\n"
        "    return (lambda: time.sleep(0.2)), {}\n"
        "WORKLOADS = {'busy': busy, 'idle': idle, 'computes': lambda d: (lambda: sum(range(1000)), {})}\n"
    )
    side = Side(tmp_path, Job(tmp_path / "s.py", ""))
    try:
        side.prepare("busy")
        _, cpu_s, waits = side.time(1)
        assert cpu_s >= 0.19, "the process ended only after so much CPU time"
        assert waits
        side.prepare("idle")
        wall_s, cpu_s, waits = side.time(3)
        assert wall_s >= 0.57 > cpu_s
        assert waits >= 3, "each sleep gives up the core"
        side.prepare("computes")
        assert min(side.time(5)[2] for _ in range(20)) == 0, "work that only computes never does"
    finally:
        side.close()


def test_a_shallow_clone_is_told_to_fetch(repo: Path, tmp_path: Path) -> None:
    git(repo, "commit", "-q", "--allow-empty", "-m", "two")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repo}", str(clone))
    with pytest.raises(UserError, match="shallow: git fetch --unshallow"):
        find_base(clone, "HEAD~1")


def test_a_process_that_says_nothing_is_ended(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import time\ndef make(d):\n    time.sleep(60)\nWORKLOADS = {'w': make}\n")
    side = Side(tmp_path, Job(tmp_path / "s.py", "", timeout_s=1.0))
    try:
        with pytest.raises(SideError, match="no answer within 1 s"):
            side.prepare("w")
    finally:
        side.close()


def test_exit_codes_and_files_of_the_command(repo: Path) -> None:
    change(repo)
    summary = repo.parent / "summary.md"
    summary.write_text("before\n")
    files = ("--junit", "../gate.xml", "--markdown", "../gate.md")
    told = trilemma_here(
        repo, "gate", "--base", "HEAD", "--suite", "suite.py", *files, GITHUB_STEP_SUMMARY=str(summary)
    )
    assert told.returncode == 1
    assert "FAIL" in told.stdout
    assert "**regression** | slower" in (repo.parent / "gate.md").read_text()
    assert "<failure" in (repo.parent / "gate.xml").read_text()
    assert summary.read_text() == "before\n" + (repo.parent / "gate.md").read_text()
    told = trilemma_here(
        repo, "gate", "--base", "HEAD", "--suite", "suite.py", "--select", "last", GITHUB_STEP_SUMMARY=""
    )
    assert told.returncode == 1, "the counter of network calls has grown"
    (repo / "toy" / "__init__.py").write_text(OLD + "# a remark\n")
    told = trilemma_here(
        repo, "gate", "--base", "HEAD", "--suite", "suite.py", "--select", "st", GITHUB_STEP_SUMMARY=""
    )
    assert told.returncode == 0
    assert "PASS" in told.stdout
    told = trilemma_here(repo, "gate", "--base", "HEAD", "--suite", "suite.py", "--select", "last", "--markdown", "-")
    assert told.stdout.startswith("### trilemma gate: PASS"), "Markdown and nothing else"
    assert not (repo / "-").exists()
    for wrong in (
        ("gate",),
        ("gate", "only-one"),
        ("gate", "--base", "HEAD", "--self-test"),
        ("gate", "--base", "nowhere"),
        ("gate", "--base", "HEAD", "--pairs", "2"),
        ("gate", "--base", "HEAD", "--junit", "no/such/folder.xml"),
        ("gate", "missing", "missing-too"),
        ("gate", "a", "b", "--suite", "short"),
        ("gate", "a", "b", "--json", "x.json"),
        ("gate", "--base", "HEAD", "--junit", "-"),
    ):
        told = trilemma_here(repo, *wrong)
        assert told.returncode == 2, wrong
        assert told.stderr.startswith("error: "), wrong
        assert "expected" in told.stderr or "goes with" in told.stderr, wrong


def test_sigterm_removes_the_worktree(repo: Path) -> None:
    change(repo)
    (repo / "suite.py").write_text("import time\ndef make(d):\n    time.sleep(60)\nWORKLOADS = {'w': make}\n")
    (repo / "toy" / "large.bin").write_bytes(os.urandom(2**24))  # git is still at it when the signal comes, or not
    git(repo, "add", "toy")
    git(repo, "commit", "-qm", "large")
    change(repo)
    (repo / "toy" / "more.py").write_text("")
    running = subprocess.Popen(
        [sys.executable, "-m", "bench", "gate", "--base", "HEAD", "--suite", "suite.py"],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        if len(git(repo, "worktree", "list").splitlines()) == 2:
            break
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 143
    assert_clean(repo)


def test_pytest_benchmarks_of_the_head_run_on_both_sides(repo: Path) -> None:
    tests = repo / "tests" / "perf"
    tests.mkdir(parents=True)
    (tests / "test_toy.py").write_text(
        "import toy\n"
        "def test_answer(benchmark):\n"
        "    benchmark.extra_info['counters'] = {'nfe': toy.STEPS}\n"
        "    benchmark.pedantic(lambda: sum(range(10000)), rounds=6)\n"
        "def test_few(benchmark):\n"
        "    benchmark.pedantic(lambda: 1, rounds=2)\n"
        "def test_fresh(benchmark):\n"
        "    import toy.fresh\n"
        "    benchmark.pedantic(lambda: sum(range(1000)), rounds=6)\n"
    )
    change(repo)
    told: list[str] = []
    outcome = against(repo, "HEAD", "perf", most=3, told=told.append)
    rows = by_name(outcome)
    orders = [text.rpartition(" ")[2] for text in told]
    assert orders[:4] == ["base", "head", "head", "base"], "who begins changes"
    assert rows["test_toy.py::test_answer"].sure.count("pairs") == 1
    assert rows["test_toy.py::test_answer"].verdict in ("same", "regression", "improvement")
    assert rows["test_toy.py::test_answer: nfe"].verdict == "regression"
    assert rows["test_toy.py::test_few"].verdict == "unclear"
    assert rows["test_toy.py::test_fresh"].verdict == "new"
    assert any("pytest failed on the base" in note for note in outcome.notes)
