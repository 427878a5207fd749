"""Faults of every kind: killed at any moment, a full disk, a folder that cannot be written, models that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines import checkpoint
from baselines.errors import UserError
from bench import artifacts, durable, store
from bench.record import Record
from bench.report import write_report
from bench.runner import locked
from tests.command import trilemma_here
from tests.crashing import dies_at
from tests.report.conftest import write_results
from tests.test_run import MATRIX, ROOT, environment, trilemma
from tests.test_store import make

NAMESPACE = ["unshare", "-Urm", "sh", "-ec"]
"""A shell that may mount file systems which nobody else sees."""


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True)
    return tried.returncode == 0


mounts = pytest.mark.skipif(not can_mount(), reason="this system lets no user mount a file system of their own")


def in_namespace(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*NAMESPACE, script, "sh", sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


# Killed while writing


def every_death(work: Callable[[], object], check: Callable[[], None]) -> int:
    """Let the work die before each of its calls to the system by turns; how many there are."""
    call = 0
    while dies_at(call, work):
        check()
        call += 1
        assert call < 200
    return call


def test_a_checkpoint_is_the_old_or_the_new_one_whenever_its_writer_dies(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "a"
    checkpoint.save(folder, "state", {"x": torch.zeros(1000)}, {"version": 0})
    seen = set()

    def check() -> None:
        found = checkpoint.load(folder, "state")
        assert found is not None
        tensors, meta = found
        assert torch.equal(tensors["x"], torch.full((1000,), float(meta["version"])))
        seen.add(meta["version"])

    calls = every_death(lambda: checkpoint.save(folder, "state", {"x": torch.ones(1000)}, {"version": 1}), check)
    check()
    assert calls >= 6
    assert seen == {0, 1}
    assert len(list(folder.iterdir())) > 2, "the premise: killed writers left something behind"
    durable.sweep(tmp_path)
    assert len(list(folder.iterdir())) == 2


def test_a_record_is_there_or_not_whenever_its_writer_dies_and_the_others_stay(tmp_path: Path) -> None:
    store.append(tmp_path, make("old"))
    calls = every_death(
        lambda: store.append(tmp_path, make("new", 2.0)),
        lambda: assert_(store.load(tmp_path).records[0] == make("old")),
    )
    assert calls >= 4
    store.append(tmp_path, make("last", 3.0))
    loaded = store.load(tmp_path)
    assert {record.key for record in loaded.records} == {"old", "new", "last"}
    assert loaded.problems, "the premise: one died half-way through its line"


def assert_(true: bool) -> None:
    assert true


def test_an_artifact_and_run_json_are_whole_or_not_there_whenever_their_writer_dies(tmp_path: Path) -> None:
    store.write_run(tmp_path, {"matrix": "old"})

    def work() -> None:
        artifacts.save_json(tmp_path, "curve", {"rows": [1, 2, 3]})
        store.write_run(tmp_path, {"matrix": "new"})

    def check() -> None:
        for path in (tmp_path / "artifacts").glob("[!.]*") if (tmp_path / "artifacts").exists() else ():
            assert json.loads(path.read_text()) == {"rows": [1, 2, 3]}
        assert store.read_run(tmp_path)["matrix"] in ("old", "new")

    assert every_death(work, check) >= 4
    assert durable.sweep(tmp_path) > 0
    assert sorted(path.name[:5] for path in tmp_path.rglob("*") if path.is_file()) == ["curve", "run.j"]


def test_names_are_forced_to_the_disk_after_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    shard = store.append(tmp_path, make("a"))
    assert synced == ["records", shard.name]
    del synced[:]
    artifacts.save_json(tmp_path, "curve", [])
    assert [name.partition("-")[0].strip(".") for name in synced] == ["curve", "artifacts"]
    del synced[:]
    store.write_run(tmp_path, {})
    assert synced[-1] == tmp_path.name
    assert synced[0].startswith(".run.json")


def test_the_sweep_takes_leftovers_alone_and_follows_no_link(tmp_path: Path) -> None:
    results, outside = tmp_path / "results", tmp_path / "outside"
    done, going = results / "checkpoints" / "done", results / "checkpoints" / "going"
    for folder in (done, going):
        checkpoint.save(folder, "state", {"x": torch.ones(2)}, {})
    checkpoint.save(done, "model", {"x": torch.ones(2)}, {})
    outside.mkdir()
    (outside / ".model.json.7.tmp").touch()
    (results / "checkpoints" / "link").symlink_to(outside)
    for name in (".arriving-0a", ".run.json.12", "artifacts/.x.npz.1.tmp", "checkpoints/going/.state.json.3.tmp"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).touch()
    kept = [results / "keep.tmp", results / "artifacts" / "x.1.tmp"]
    for path in kept:
        path.touch()
    assert durable.sweep(results) == 4 + 2
    assert (outside / ".model.json.7.tmp").exists()
    assert all(path.exists() for path in kept)
    assert checkpoint.load(done, "model") is not None
    assert checkpoint.load(done, "state") is None, "its training is over"
    assert checkpoint.load(going, "state") is not None


def killed_runs(folder: Path, kills: int, seed: int, seeds: int = 2) -> dict[str, Any]:
    shutil.copy(Path(__file__).parent / "outside_model.py", folder / "outside_model.py")
    (folder / "mine.toml").write_text(MATRIX)
    command = [sys.executable, "-m", "tests.killed_runs", "mine.toml", *map(str, (kills, seed, seeds))]
    path = os.pathsep.join([str(ROOT), str(folder)])
    done = subprocess.run(
        command, cwd=folder, env={**environment(), "PYTHONPATH": path}, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def check_killed(told: dict[str, Any], kills: int) -> None:
    assert told["killed"] == kills
    assert told["lost"] == []
    assert any("SIGKILL" in error for error in told["failed"]), "the premise: cells were killed while they ran"
    assert set(told["last"].values()) == {"ok"}
    assert len(told["last"]) == 2 + 4 * told["seeds"], "all of the matrix"
    assert told["problems"] == []


@pytest.mark.slow
def test_cells_killed_at_random_lose_no_finished_record_and_never_block_the_rerun(tmp_path: Path) -> None:
    check_killed(killed_runs(tmp_path, 4, 0, seeds=1), 4)


@pytest.mark.slow
def test_fifty_cells_killed_at_random_leave_the_numbers_of_a_run_in_peace(tmp_path: Path) -> None:
    for name in ("killed", "peace"):
        (tmp_path / name).mkdir()
    killed = killed_runs(tmp_path / "killed", 50, 1)
    check_killed(killed, 50)
    assert killed["values"] == killed_runs(tmp_path / "peace", 0, 0, killed["seeds"])["values"]


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_goes_on_each_time(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "outside_model.py")
    (tmp_path / "mine.toml").write_text(MATRIX.replace("slow_s = 0.0", "slow_s = 0.01"))
    finished: dict[str, Record] = {}
    for i in range(10):
        run = subprocess.Popen(
            [sys.executable, "-m", "bench", "run", "mine.toml"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            run.wait(4 + 1.2 * i)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
        results = tmp_path / "results" / "mine"
        found = {r.key: r for r in store.load(results).records} if results.exists() else {}
        assert all(found[key] == record for key, record in finished.items())
        finished |= {key: record for key, record in found.items() if record.status == "ok"}
    assert trilemma(tmp_path, "run", "mine.toml").returncode == 0
    loaded = store.load(tmp_path / "results" / "mine")
    assert {record.status for record in loaded.records} == {"ok"}
    assert not list((tmp_path / "results" / "mine").rglob("*.tmp"))


# A full disk

FULL = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from baselines import checkpoint
from baselines.errors import UserError
from bench import artifacts, durable, store
from tests.test_store import make

disk = Path(sys.argv[1])
folder = disk / "results"
checkpoint.save(folder / "checkpoints" / "a", "model", {"x": torch.zeros(1000)}, {"version": 0})
store.append(folder, make("first"))
with durable.spare_room(folder):
    filler = open(disk / "filler", "wb", buffering=0)
    try:
        while True:
            filler.write(bytes(4096))
    except OSError as error:
        print("full:", error.strerror)
    try:
        checkpoint.save(folder / "checkpoints" / "a", "model", {"x": torch.ones(100_000)}, {"version": 1})
    except OSError as error:
        print("checkpoint:", error.strerror)
    found = checkpoint.load(folder / "checkpoints" / "a", "model")
    assert found is not None and found[1]["version"] == 0
    assert not list((folder / "checkpoints" / "a").glob(".*")), "nothing half-written stays"
    try:
        artifacts.save_json(folder, "curve", list(range(10_000)))
    except OSError as error:
        print("artifact:", error.strerror)
    assert not list((folder / "artifacts").iterdir())
    long = make("last", error="x" * 50_000)
    store.append(folder, long)
    print("recorded")
    assert {r.key: r for r in store.load(folder).records} == {"first": make("first"), "last": long}
    try:
        for i in range(1000):
            store.append(folder, replace(long, key=str(i)))
    except UserError as error:
        print("record:", error)
    loaded = store.load(folder)
    assert loaded.problems == () and len(loaded.records) > 2
    data = next((folder / "records").iterdir()).read_bytes()
    assert data.endswith(b"\\n") and data.count(b"\\n") == len(loaded.records)
try:
    with durable.spare_room(folder):
        pass
except UserError as error:
    print("next:", error)
"""


@mounts
def test_what_a_full_disk_stops_leaves_the_old_whole_and_what_was_computed_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "full.py").write_text(FULL)
    done = in_namespace(tmp_path, 'mount -t tmpfs -o size=4m none disk; "$@"', "full.py", "disk")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "full: No space left on device",
        "checkpoint: No space left on device",
        "artifact: No space left on device",
        "recorded",
    ]
    assert "cannot write a record" in lines[4]
    assert "No space left on device" in lines[4]
    assert "free space" in lines[4]
    assert "expected at least 1 MiB free, got: No space left on device" in lines[5]


FULL_RUN = """
mount -t tmpfs -o size=1090k none results
"$@" -m bench run mine.toml --results results || echo "exit $?"
cp -r results/records first
mount -o remount,size=64m results
"$@" -m bench run mine.toml --results results
cp -r results kept
"""


@pytest.mark.slow
@mounts
def test_a_run_on_a_full_disk_says_so_in_records_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "outside_model.py")
    (tmp_path / "mine.toml").write_text(MATRIX)
    (tmp_path / "results").mkdir()
    done = in_namespace(tmp_path, FULL_RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit 1" in done.stdout
    assert "Traceback" not in done.stderr
    (tmp_path / "before").mkdir()
    shutil.move(tmp_path / "first", tmp_path / "before" / "records")
    before = store.load(tmp_path / "before")
    assert before.problems == ()
    failed = [record for record in before.records if record.status == "failed"]
    assert any("No space left on device" in record.error.splitlines()[0] for record in failed)
    after = store.load(tmp_path / "kept")
    assert {record.status for record in after.records} == {"ok"}
    assert len(after.records) == 6
    kept = {record.key: record for record in after.records}
    assert all(kept[record.key] == record for record in before.records if record.status == "ok")


def test_a_disk_that_fails_for_good_is_told_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(tmp_path, make("a"))
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        if len(data) < 1000:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) - 100])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(UserError, match="No space left"):
        store.append(tmp_path, make("b", error="x" * 2000))
    monkeypatch.undo()
    assert store.load(tmp_path) == store.Loaded((make("a"),), ())
    store.append(tmp_path, make("b"))
    assert len(store.load(tmp_path).records) == 2


def test_a_report_that_a_full_disk_stops_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write_results(tmp_path / "results", models=("vae",), seeds=(0,))
    page = write_report(results, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def full(path: Path, data: bytes) -> int:
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    store.write_run(results, {**store.read_run(results), "title": "another"})
    with pytest.raises(UserError, match="No space left on device"):
        write_report(results, page.parent)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


# Folders


@mounts
@pytest.mark.parametrize("place", [pytest.param("results", marks=pytest.mark.slow), "results/records"])
def test_a_folder_that_is_read_only_is_told_before_anything_is_computed(tmp_path: Path, place: str) -> None:
    (tmp_path / "results" / "records").mkdir(parents=True)
    script = f'mount --bind {place} {place}; mount -o remount,bind,ro {place}; "$@"'
    done = in_namespace(tmp_path, script, "-m", "bench", "run", "smoke", "--results", "results")
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    assert "--results DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "results").glob("checkpoints"))


@pytest.mark.parametrize("part", ["records", "artifacts", "checkpoints", "features"])
def test_a_part_of_a_results_folder_that_is_no_folder_or_leads_out_of_it_is_told(tmp_path: Path, part: str) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / part).write_text("a file")
    with pytest.raises(UserError, match="cannot write in"), locked(results):
        pass
    (results / part).unlink()
    (tmp_path / "elsewhere").mkdir()
    (results / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of it"), locked(results):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_second_run_is_refused_and_harms_nothing_of_the_first(tmp_path: Path) -> None:
    with locked(tmp_path):
        passing = tmp_path / ".run.json.5"
        passing.touch()
        with pytest.raises(UserError, match="another run is using it"), locked(tmp_path):
            pass
        assert passing.exists()
        assert (tmp_path / ".spare").exists()
    with locked(tmp_path):
        assert not passing.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


# Signals


def children_of(pid: int) -> list[int]:
    """All that a process started, and what these started."""
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [each for child in own for each in (int(child), *children_of(int(child)))]


def alive(pid: int) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


UNDER_NO_NOHUP = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)]
)
def test_sigterm_ends_all_processes_loses_nothing_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "outside_model.py")
    (tmp_path / "mine.toml").write_text(MATRIX.replace("slow_s = 0.0", "slow_s = 0.2"))
    command = [sys.executable, "-m", "bench", "run", "mine.toml"]
    command[:0] = [sys.executable, "-c", UNDER_NO_NOHUP]  # a run under nohup outlives its terminal, as it should
    run = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True)
    results = tmp_path / "results" / "mine"
    until = time.monotonic() + 120
    while not (results / "records").exists() or len(store.load(results).records) < 2:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    finished = [record for record in store.load(results).records if record.status == "ok"]
    assert finished, "the premise: something was done already"
    children = children_of(run.pid)
    assert len(children) >= 2
    run.send_signal(number)
    _, told = run.communicate(timeout=60)
    assert run.returncode == status
    assert "the same command goes on from here" in told
    assert "Traceback" not in told
    until = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, children))
    loaded = store.load(results)
    assert all(record in loaded.records for record in finished)
    assert {record.status for record in loaded.records} == {"ok"}, "a cell that was stopped has not failed"
    assert loaded.problems == ()
    assert not (results / ".spare").exists()


# Models that misbehave

ODD = """
import ctypes, os, sys, time
import torch
from baselines.contract import Losses, Model
from outside_model import Config, Pixels


class Odd(Pixels):
    def loss(self, batch, context):
        what = "{what}"
        if what == "segfaults":
            ctypes.string_at(0)
        if what == "hangs":
            time.sleep(600)
        if what == "eats":
            self.held = [torch.ones(1 << 22) for _ in range(200)]
        if what == "prints":
            os.write(1, b"\\xff\\x1b[2J<script>garbage\\n" + b"z" * 2_000_000)
            sys.stderr.write("\\x1b]0;owned\\x07\\n")
        if what == "raises":
            raise RuntimeError("\\x1b[31mred\\x07 <script>alert(1)</script> \\u202eback")
        return super().loss(batch, context)


MODEL = Model("{what}", "a test", Config, Odd)
"""


def test_models_that_misbehave_are_readable_records_and_the_others_are_measured(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "outside_model.py")
    kinds = ("segfaults", "hangs", "eats", "prints", "raises")
    models = ""
    for what in kinds:
        (tmp_path / f"{what}.py").write_text(ODD.replace("{what}", what))
        models += f'[[models]]\nmodel = "{what}"\nimages = 64\n'
    limits = "time_limit_s = 8.0\nmemory_limit_mb = 1500\n"
    (tmp_path / "mine.toml").write_text(limits + MATRIX.partition("[[models]]")[0] + models)
    done = trilemma_here(tmp_path, "run", "mine.toml", "--jobs", "5")
    assert done.returncode == 1, done.stdout + done.stderr
    records = store.load(tmp_path / "results" / "mine").records
    found = {record.cell.model: record for record in records if record.cell.draw is None}
    assert {name: record.status for name, record in found.items()} == {
        "segfaults": "failed",
        "hangs": "timeout",
        "eats": "failed",
        "prints": "ok",
        "raises": "failed",
        "real": "ok",
        "histogram": "ok",
    }
    assert "SIGSEGV" in found["segfaults"].error
    assert "segfaults.py" in found["segfaults"].error
    assert "Extension modules" not in found["segfaults"].error + done.stderr
    assert "longer than its limit of 8 s" in found["hangs"].error
    assert "hangs.py" in found["hangs"].error
    assert "more than its limit of 1,500 MiB" in found["eats"].error
    assert found["raises"].error.startswith("RuntimeError: red? <script>alert(1)</script> ?back")
    for stream in (done.stdout, done.stderr):
        assert "\x1b" not in stream
        assert "\x07" not in stream
        assert len(stream) < 60_000
    page = (tmp_path / "reports" / "mine" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "longer than its limit of 8 s" in page


def test_a_memory_limit_of_the_command_line_stands_in_for_the_matrix_s(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("memory_limit_mb = 100_000\n" + MATRIX.partition("[[models]]")[0])
    done = trilemma_here(tmp_path, "run", "mine.toml", "--memory-limit", "1")
    assert done.returncode == 1
    assert "more than its limit of 1 MiB" in done.stdout
    assert "failed" in {record.status for record in store.load(tmp_path / "results" / "mine").records}
    assert trilemma_here(tmp_path, "run", "mine.toml", "--memory-limit", "0").returncode == 2
    (tmp_path / "mine.toml").write_text("memory_limit_mb = 0\n")
    done = trilemma_here(tmp_path, "run", "mine.toml")
    assert done.returncode == 2
    assert "memory_limit_mb" in done.stderr


# Clocks


def test_the_order_of_records_is_that_of_writing_whatever_the_clock_said(tmp_path: Path) -> None:
    for hour, value in ((9, 1.0), (1, 2.0), (5, 3.0)):
        later = make("a", value, provenance={"time": f"2026-01-01T{hour:02d}:00:00+00:00"})
        store.append(tmp_path, replace(later))
    assert [r.measured[0].value for r in store.load(tmp_path).records] == [3.0]
