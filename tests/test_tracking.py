"""Curves in TensorBoard and MLflow: what the record's curve holds, told while training, and never in its way."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from baselines.errors import UserError
from baselines.types import Budget
from bench import store, tracking
from bench.job import Job, Setup
from bench.record import Cell
from tests.command import trilemma_here

has_mlflow = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow (extra) is not installed")
has_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard (extra) is not installed"
)
ROWS = [{"images": 32.0 * i, "seconds": float(i), "main/loss": 5.0 - i} for i in range(1, 5)]
MATRIX = """
datasets = ["digits"]
[measure]
samples = 50
metrics = ["fd"]
[[models]]
model = "vae"
images = 640
draws = []
"""


def job(folder: Path, **trackers: Any) -> Job:
    cell = Cell("../evil/vae.py", "digits", Budget(images=128), 0, {"lr": 0.1, "training": {"batch_size": 32}})
    return Job(cell, "k", "0123456789abcdef", 10, Setup(folder, "cpu", **trackers), {})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def told(of: Job, parts: list[list[dict[str, float]]]) -> None:
    """The curve as it grows within one run, part by part."""
    training: Any = SimpleNamespace(state=SimpleNamespace(curve=list(parts[0])))
    with tracking.Follower(of, lambda *_: None) as follower:
        follower.training = training
        follower.progress("training", 1, 4)
        for part in parts[1:]:
            training.state.curve += part
            follower.progress("training", 2, 4)


@has_tensorboard
def test_event_files_hold_the_curve_and_an_interrupted_training_goes_on_in_them(tmp_path: Path) -> None:
    it = job(tmp_path, tensorboard=tmp_path / "events")
    told(it, [[], ROWS[:1], ROWS[1:2]])
    told(it, [ROWS[:2], ROWS[2:]])  # what was told before is not told again
    (folder,) = (tmp_path / "events").iterdir()
    assert folder.name == "vae-digits-seed0-01234567", "no part of a model's name leads elsewhere"
    assert scalars(folder) == {
        "main/loss": [(int(row["images"]), row["main/loss"]) for row in ROWS],
        "seconds": [(int(row["images"]), row["seconds"]) for row in ROWS],
    }


@has_tensorboard
def test_a_training_that_was_begun_without_is_told_from_its_start(tmp_path: Path) -> None:
    told(job(tmp_path, tensorboard=tmp_path / "events"), [ROWS[:2], ROWS[2:]])
    assert len(scalars(next((tmp_path / "events").iterdir()))["main/loss"]) == 4


@has_tensorboard
def test_a_run_writes_event_files_that_equal_the_curve_beside_the_record(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MATRIX)
    done = trilemma_here(tmp_path, "run", "mine.toml", "--tensorboard", "events")
    assert done.returncode == 0, done.stdout + done.stderr
    record = next(r for r in store.load(tmp_path / "results" / "mine").records if r.cell.model == "vae")
    artifact = next(a for a in record.artifacts if a.role == "curve")
    rows = json.loads((tmp_path / "results" / "mine" / artifact.path).read_text())["rows"]
    (folder,) = (tmp_path / "events").iterdir()
    found = scalars(folder)
    assert set(found) == {name for row in rows for name in row if name != "images"}
    for name, points in found.items():
        expected = [(int(row["images"]), row[name]) for row in rows if name in row]
        assert [step for step, _ in points] == [step for step, _ in expected]
        assert [value for _, value in points] == pytest.approx([value for _, value in expected], rel=1e-6)


@has_mlflow
def test_mlflow_holds_the_curve_in_one_run_over_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    address = (tmp_path / "runs").as_uri()
    it = job(tmp_path, mlflow=address)
    tracking.check(it.setup)
    told(it, [[], ROWS[:2]])
    told(it, [ROWS[:2], ROWS[2:]])
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "main/loss")
    assert [(m.step, m.value) for m in history] == [(int(row["images"]), row["main/loss"]) for row in ROWS]
    assert run.info.status == "FINISHED"
    assert run.data.tags["train_key"] == it.train_key
    assert run.data.params["training.batch_size"] == "32"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "nothing else is written"


@has_mlflow
def test_a_store_that_does_not_answer_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    setup = Setup(tmp_path, "cpu", mlflow="http://127.0.0.1:9")  # the discard port: refused at once
    with pytest.raises(UserError, match="expected a tracking store that answers"):
        tracking.check(setup)


def test_a_missing_extra_is_named_with_the_command_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    absent = ("mlflow", "tensorboard")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else real(name, *rest))
    for name, value in (("mlflow", "http://x"), ("tensorboard", "events")):
        done = trilemma_here(tmp_path, "run", "smoke", "--model", "histogram", f"--{name}", value)
        assert done.returncode == 2
        assert f"--{name}: it is not installed: python -m pip install 'trilemma-bench[{name}]'" in done.stderr
        assert not (tmp_path / "results").exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"taken: cannot be made|not installed"):
        tracking.check(Setup(tmp_path, "cpu", tensorboard=tmp_path / "taken"))


class _Broken:
    began_before = False

    def tell(self, rows: object) -> None:
        raise ConnectionError("gone")

    def close(self, finished: bool) -> None:
        raise AssertionError("it was left alone")


def test_a_tracker_that_fails_is_told_once_and_the_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    training: Any = SimpleNamespace(state=SimpleNamespace(curve=[]))
    with tracking.Follower(job(tmp_path), lambda *progress: seen.append(progress)) as follower:
        follower.trackers.append(_Broken())
        follower.training = training
        for row in ROWS:
            follower.progress("training", 1, 4)
            training.state.curve.append(row)
    assert len(seen) == 4
    assert capsys.readouterr().err == "note: tracking stopped, the training goes on: gone\n"


def test_unasked_no_tracker_is_imported() -> None:
    code = (
        "import sys, bench.worker, bench.tracking as t; from pathlib import Path; from tests.test_tracking import job;"
        "t.check(job(Path('x')).setup); t.Follower(job(Path('x')), print).__enter__();"
        "sys.exit(any(n.split('.')[0] in ('mlflow', 'tensorboard') for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def test_where_curves_are_told_changes_no_key(tmp_path: Path) -> None:
    from bench import matrix
    from bench.plan import plan

    wanted = matrix.expand(matrix.Matrix(), models=["vae"])
    plain = Setup(tmp_path, "cpu")
    tracked = replace(plain, tensorboard=tmp_path, mlflow="http://x")
    keys = [[t.job.key, *(d.key for d in t.draws)] for t in plan(wanted, plain)]
    assert keys == [[t.job.key, *(d.key for d in t.draws)] for t in plan(wanted, tracked)]
