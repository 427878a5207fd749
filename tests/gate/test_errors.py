"""No error of either side ends as a pass, and whatever ends the gate, nothing of it is left behind."""

from __future__ import annotations

import os
import shutil
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
from bench.gate.trees import find_base, side_by_side, undisturbed
from tests.command import trilemma_here
from tests.gate.test_against import assert_clean, git

SUITE = """
import time
from pathlib import Path

_now = 0.0
time.perf_counter = time.process_time = lambda: _now  # seconds that the work says it takes


def _costs():
    global _now
    _now += 1e-3


def _again(device):
    import toy

    with open(Path(__file__).with_name(f"ran-{toy.NAME}"), "a+") as ran:
        ran.write("x")
        ran.seek(0)
        if len(ran.read()) > 1 and toy.NAME in toy.FAILS_AGAIN:
            raise OSError("not twice")
    return _costs, {"nfe": toy.STEPS}


def _timed(device):
    import toy

    if toy.NAME in toy.FAILS_TIMED:
        _costs.calls = 0
        def work():
            _costs.calls += 1
            if _costs.calls > 2:
                raise OSError("not when timed")
        return work, {"nfe": toy.STEPS}
    return _costs, {"nfe": toy.STEPS}


def _never(device):
    raise RuntimeError(f"no {device} here")


def _idle(device):
    import toy

    return (None if toy.NAME == "head" else _costs), {"modules": 1}


WORKLOADS = {
    "steady": lambda device: (_costs, {}),
    "again": _again,
    "timed": _timed,
    "never": _never,
    "idle": _idle,
    "words": lambda device: (_costs, {"nfe": "many"}),
    "nan": lambda device: (_costs, {"nfe": float("nan")}),
    "empty": lambda device: (None, {}),
}
"""
TOY = 'NAME = "{name}"\nSTEPS = {steps}\nFAILS_AGAIN = {again!r}\nFAILS_TIMED = {timed!r}\n'


def toy(name: str, steps: int = 5, again: str = "", timed: str = "") -> str:
    return TOY.format(name=name, steps=steps, again=again, timed=timed)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "toy").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (tmp_path / "suite.py").write_text(SUITE)
    return folder


def commit(repo: Path, base: str, head: str) -> None:
    """The base is committed, the head lies in the checkout."""
    (repo / "toy" / "__init__.py").write_text(base)
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "one")
    (repo / "toy" / "__init__.py").write_text(head)


def run(repo: Path, select: str | None = None) -> tuple[Outcome, dict[str, Row]]:
    outcome = against(repo, "HEAD", str(repo.parent / "suite.py"), select=select)
    return outcome, {row.name: row for row in outcome.rows}


@pytest.mark.parametrize("when", ["again", "timed"])
def test_a_base_that_fails_after_it_ran_is_an_error_and_keeps_its_counters(repo: Path, when: str) -> None:
    commit(repo, toy("base", **{when: "base"}), toy("head", **{when: "base"}))
    outcome, rows = run(repo, when)
    assert rows[when].verdict == "error", "it is not new: the base ran it once"
    assert "not " in rows[when].note
    assert outcome.exit_code == 2
    (repo / "toy" / "__init__.py").write_text(toy("head", 6, **{when: "base"}))
    (repo.parent / "ran-base").unlink(missing_ok=True)
    outcome, rows = run(repo, when)
    assert rows[f"{when}: nfe"].verdict == "regression", "known all the same"
    assert outcome.exit_code == 1


@pytest.mark.parametrize("when", ["again", "timed"])
def test_a_head_that_fails_later_is_broken(repo: Path, when: str) -> None:
    commit(repo, toy("base", **{when: "head"}), toy("head", **{when: "head"}))
    outcome, rows = run(repo, when)
    assert rows[when].verdict == "broken"
    assert outcome.exit_code == 1


def test_work_that_fails_on_both_sides_is_no_pass(repo: Path) -> None:
    commit(repo, toy("base"), toy("head"))
    outcome, rows = run(repo)
    assert rows["steady"].verdict == "same"
    assert rows["never"].verdict == "error"
    assert "no cpu here" in rows["never"].note
    assert rows["words"].verdict == "error"
    assert "expected numbers by name, got {'nfe': 'many'}" in rows["words"].note
    assert rows["nan: nfe"].verdict == "error"
    assert rows["idle"].verdict == "broken", "the head has nothing to time"
    assert outcome.exit_code == 1
    assert outcome.accepting(["idle"]).exit_code == 2
    assert outcome.accepting(["idle", "never", "words", "nan"]).exit_code == 0
    assert rows["empty"].verdict == "unclear"
    for name in ("never", "words", "empty"):
        with pytest.raises(UserError, match=f"got none to compare; {name}"):
            run(repo, name)


def test_new_work_alone_is_no_comparison(repo: Path) -> None:
    commit(repo, "", toy("head"))
    with pytest.raises(UserError, match="got none to compare; again: base: AttributeError"):
        run(repo, "again")


def test_what_could_time_nothing_of_the_checkout_is_refused(repo: Path) -> None:
    commit(repo, toy("base"), toy("head"))
    with pytest.raises(UserError, match=r"times this program's own code.*--suite FILE\.py"):
        against(repo, "HEAD", "short")
    told = trilemma_here(repo, "gate", "--base", "HEAD", "--device", "gpu")
    assert (told.returncode, told.stderr) == (2, "error: gate --device: expected cpu or cuda, got 'gpu'\n")


def test_packages_in_src_are_the_trees_own(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repo / "src"))  # as an editable install has it, on both sides
    (repo / "src" / "inner").mkdir(parents=True)
    suite = tmp_path / "suite.py"
    suite.write_text("def make(d):\n    import inner\n    return None, {'nfe': inner.STEPS}\nWORKLOADS = {'w': make}\n")
    (repo / "src" / "inner" / "__init__.py").write_text("STEPS = 5\n")
    commit(repo, "", "")
    (repo / "src" / "inner" / "__init__.py").write_text("STEPS = 6\n")
    _, rows = run(repo)
    assert (rows["w: nfe"].base, rows["w: nfe"].head) == ("5.00", "6.00")


def test_pytest_that_fails_is_told_test_by_test(repo: Path) -> None:
    tests = repo / "tests" / "perf"
    tests.mkdir(parents=True)
    (tests / "test_toy.py").write_text(
        "import toy\n"
        "def work(): return sum(range(10000))\n"
        "def test_right(benchmark):\n"
        "    benchmark.pedantic(work, rounds=6)\n"
        "def test_wrong(benchmark):\n"
        "    benchmark.pedantic(work, rounds=6)\n"
        "    assert toy.STEPS == 5\n"
        "def test_never(benchmark):\n"
        "    raise RuntimeError('no GPU')\n"
        "def test_within(benchmark):\n"
        "    benchmark.pedantic(lambda: 1 / (6 - toy.STEPS), rounds=6)\n"
    )
    (tests / "test_no_file.py").write_text("import nothing_of_that_name\n")
    commit(repo, toy("base"), toy("head", steps=6))
    outcome = against(repo, "HEAD", "perf", most=1)
    rows = {row.name: row for row in outcome.rows}
    assert rows["test_toy.py::test_right"].verdict in ("same", "regression", "improvement")
    assert rows["test_toy.py::test_wrong"].verdict == "broken"
    assert "assert 6 == 5" in rows["test_toy.py::test_wrong"].note
    assert rows["test_toy.py::test_within"].verdict == "broken"
    assert "ZeroDivisionError" in rows["test_toy.py::test_within"].note
    assert rows["test_toy.py::test_never"].verdict == "error"
    assert "no GPU" in rows["test_toy.py::test_never"].note
    assert rows["test_no_file.py"].verdict == "error"
    assert outcome.exit_code == 1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("moment", ["made", "working"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_twice_leave_no_worktree_and_no_process(repo: Path, number: signal.Signals, moment: str) -> None:
    """To the whole group, as a terminal sends them, and again while the first one is being obeyed."""
    suite = repo.parent / "suite.py"
    suite.write_text(
        "import subprocess\nfrom pathlib import Path\n"
        "def make(d):\n"
        "    process = subprocess.Popen(['sleep', '60'])\n"
        "    with Path(__file__).with_name('pids').open('a') as pids:\n"
        "        pids.write(f'{process.pid}\\n')\n"
        "    process.wait()\n"
        "WORKLOADS = {'w': make}\n"
    )
    (repo / "toy" / "large.bin").write_bytes(os.urandom(2**23))  # git is still at it when the signal comes, or not
    commit(repo, toy("base"), toy("head"))
    temporary = repo.parent / "tmp"
    temporary.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-m", "bench", "gate", "--base", "HEAD", "--suite", str(suite)],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whatever the tests' own shell ignores
    )
    pids = repo.parent / "pids"
    for _ in range(6000):
        if (
            any(temporary.glob("trilemma-gate-*"))
            if moment == "made"
            else pids.is_file() and pids.read_text().endswith("\n")
        ):
            break
        assert running.poll() is None
        time.sleep(0.005)
    for _ in range(2):
        os.killpg(running.pid, number)
        time.sleep(0.01)
    assert running.wait(timeout=60) == 128 + number
    assert_clean(repo)
    assert list(temporary.iterdir()) == []
    assert not any(alive(int(pid)) for pid in (pids.read_text().split() if pids.is_file() else ()))


def test_a_signal_waits_for_the_end_of_what_must_be_whole() -> None:
    done = []

    def interrupted() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own shell ignores
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert done == ["the rest"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_worktrees_of_others_are_left_alone(repo: Path, tmp_path: Path) -> None:
    commit(repo, toy("base"), toy("head"))
    git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "elsewhere"))
    shutil.move(tmp_path / "elsewhere", tmp_path / "not mounted now")
    with side_by_side(find_base(repo, "HEAD")) as trees:
        assert len(git(repo, "worktree", "list").splitlines()) == 3
    assert "elsewhere" in git(repo, "worktree", "list")
    assert str(trees.base) not in git(repo, "worktree", "list")


def test_what_a_killed_gate_left_goes_with_the_next_and_a_living_one_is_left_alone(repo: Path, tmp_path: Path) -> None:
    commit(repo, toy("base"), toy("head"))
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom bench.gate.trees import find_base, side_by_side\n"
        "with side_by_side(find_base(Path.cwd(), 'HEAD')) as trees:\n"
        "    print(trees.base, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", code], cwd=repo, env=here, capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert killed.returncode == -signal.SIGKILL
    assert left.is_dir(), "the premise"
    assert str(left) in git(repo, "worktree", "list")
    with side_by_side(find_base(repo, "HEAD")) as first:
        assert not left.parent.exists()
        assert str(left) not in git(repo, "worktree", "list")
        with side_by_side(find_base(repo, "HEAD")) as second:
            assert first.base.is_dir()
            assert second.base.is_dir()
        assert first.base.is_dir()
        assert len(git(repo, "worktree", "list").splitlines()) == 2
    assert_clean(repo)


def test_the_end_of_a_side_is_the_end_of_what_it_started(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "import subprocess\nfrom pathlib import Path\n"
        "def make(d):\n"
        "    pid = subprocess.Popen(['sleep', '60']).pid\n"
        "    Path(__file__).with_name('pid').write_text(str(pid))\n"
        "    raise OSError('and no end')\n"
        "WORKLOADS = {'w': make}\n"
    )
    side = Side(tmp_path, Job(tmp_path / "s.py", ""))
    with pytest.raises(SideError, match="and no end"):
        side.prepare("w")
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid), "the premise"
    side.close()
    for _ in range(500):
        if not alive(pid):
            break
        time.sleep(0.01)
    assert not alive(pid)
