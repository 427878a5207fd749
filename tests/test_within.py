"""Time: what past records say that cells take, and a run that makes the most of a budget."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import api, provenance, store
from bench.allowance import Allowance, fitting, rounds_of
from bench.estimates import Estimate, Estimator, past_records
from bench.job import Job, Setup
from bench.record import Cell, Measurement, Record
from tests.command import trilemma_here

SETUP = Setup(Path("results"), "cpu")
MACHINE = {name: provenance.collect()[name] for name in ("cpu", "cores", "device")}
OTHER = {"cpu": "another", "cores": 1, "device": "cpu"}


def job(model: str = "vae", seed: int = 0, draw: Draw | None = None, images: int = 1000, samples: int = 100) -> Job:
    cell = Cell(model, "digits", Budget(images=images), seed, {"lr": 0.1}, draw)
    train_key = f"{model}{seed}"
    return Job(cell, f"{train_key} {draw}", train_key, samples, SETUP, {})


def record(of: Job, cell_s: float, machine: dict[str, object] | None = None, **measured: float) -> Record:
    values = tuple(Measurement(name, value, "", "none", 100, "draw") for name, value in measured.items())
    origin = {**(machine or MACHINE), "cell_s": cell_s}
    return Record(of.key, of.train_key, "ok", of.cell, values, provenance=origin)


def estimator(*records: Record) -> Estimator:
    return Estimator(records, SETUP)


def test_the_same_cell_takes_what_it_took() -> None:
    assert estimator(record(job(), 12.0, training_s=10.0)).of(job()) == Estimate(12.0, True, 0)


def test_training_is_scaled_by_the_budget_and_the_measuring_after_it_is_not() -> None:
    past = estimator(record(job(images=1000), 12.0, training_s=10.0))
    assert past.of(job(images=3000, seed=1)) == Estimate(32.0, True, 1)
    assert past.of(job(images=3000), trained=True) == Estimate(2.0, True, 1)


def test_drawing_is_scaled_by_steps_and_samples_and_scoring_is_not() -> None:
    draw = record(job(draw=Draw("ddim", 10)), 6.0, **{"fd[x]": 1.0, "images_per_s": 25.0})  # 4 s drawing, 2 s scoring
    found = estimator(draw).of(job(draw=Draw("ddim", 50), samples=200))
    assert found == Estimate(2.0 + 4.0 * 5 * 2, True, 2)


def test_records_of_this_machine_count_before_those_of_others_and_the_other_is_told() -> None:
    here, there = record(job(), 12.0, training_s=10.0), record(job(), 99.0, OTHER, training_s=90.0)
    assert estimator(there, here).of(job()) == Estimate(12.0, True, 0)
    assert estimator(there).of(job()) == Estimate(99.0, False, 0)


def test_failed_records_other_models_and_another_kind_of_device_tell_nothing() -> None:
    failed = replace(record(job(), 1.0), status="failed")
    on_gpu = record(job(), 1.0, {**MACHINE, "device": "NVIDIA"})
    assert estimator(failed, on_gpu, record(job("gmm"), 1.0)).of(job()) is None


def test_the_total_counts_what_runs_side_by_side_once() -> None:
    past = estimator(record(job(), 8.0, training_s=8.0), record(job(draw=Draw()), 3.0))
    total = past.total([job(), job(seed=1)], [job(draw=Draw())], set(), slots=2)
    assert total.seconds == pytest.approx(8.0 + 3.0)
    assert (total.known, total.elsewhere, total.unknown) == (3, 0, 0)
    assert past.total([job("gmm")], [], set(), slots=2).unknown == 1


def test_past_records_are_those_of_the_folder_and_of_the_folders_beside_it(tmp_path: Path) -> None:
    for name in ("mine", "other", "newer"):
        store.append(tmp_path / name, replace(record(job(name), 1.0), schema=99 if name == "newer" else 1))
    assert {r.cell.model for r in past_records(tmp_path / "mine")} == {"mine", "other"}
    assert {r.cell.model for r in past_records(tmp_path / "not yet")} == {"mine", "other"}
    store.append(tmp_path / "reference" / "gpu", record(job("kept"), 1.0))
    assert {r.cell.model for r in past_records(tmp_path / "mine")} == {"mine", "other", "kept"}


def test_a_folder_beside_that_may_not_be_read_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append(tmp_path / "mine", record(job("mine"), 1.0))
    store.append(tmp_path / "theirs", record(job("theirs"), 1.0))
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if "theirs" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert {r.cell.model for r in past_records(tmp_path / "mine")} == {"mine"}


# The order, and what is admitted


def allowance(seconds: float, jobs: Sequence[Job], *past: Record, now: float = 0.0) -> Allowance:
    return Allowance(seconds, estimator(*past), set(), rounds_of(jobs), clock=lambda: now)


def test_first_seeds_of_all_models_come_first_references_before_models_and_quick_before_slow() -> None:
    names = ("ddpm", "unknown", "vae", "real", "histogram")
    jobs = [job(name, seed) for name in names for seed in (7, 3)]
    draws = [replace(j, key=f"{j.key}*", cell=replace(j.cell, draw=Draw())) for j in jobs]
    times = {"ddpm": 50.0, "vae": 5.0, "real": 1.0, "histogram": 2.0}
    past = [record(job(name), s, training_s=s) for name, s in times.items()]
    past += [record(job(name, draw=Draw()), 1.0) for name in times]
    budget = allowance(100, jobs, *past)
    order = [(now[0].cell.model, now[0].cell.seed) for now, _ in budget.passes(jobs, draws, slots=1)]
    models = ["real", "histogram", "vae", "ddpm", "unknown"]
    assert order == [(name, seed) for seed in (7, 3) for name in models]
    for now, mine in budget.passes(jobs, draws, slots=2):
        assert len(now) <= 2
        assert {d.train_key for d in mine} == {t.train_key for t in now}, "draws follow their trainings"


def test_a_teacher_comes_before_who_learns_from_it() -> None:
    teacher = job("ddpm")
    pupil = replace(job("distilled"), teacher=teacher)
    past = record(job("distilled"), 1.0, training_s=1.0), record(teacher, 50.0, training_s=50.0)
    found = [now[0].cell.model for now, _ in allowance(100, [teacher, pupil], *past).passes([pupil, teacher], [], 1)]
    assert found == ["ddpm", "distilled"]


def test_what_would_end_too_late_is_not_admitted_nor_a_training_without_time_for_a_draw() -> None:
    past = record(job(), 8.0, training_s=8.0), record(job(draw=Draw()), 3.0)
    draw = job(draw=Draw())
    assert allowance(10, [job()], *past).admits(job())
    assert not allowance(10, [job()], *past).admits(job(), [draw])
    assert allowance(11, [job()], *past).admits(job(), [draw])
    assert allowance(1, [job()]).admits(job()), "of which nothing is known"
    assert not replace(allowance(1, [job()]), seconds=0.0).admits(job())


def test_a_dry_run_tells_which_cells_a_time_would_suffice_for() -> None:
    jobs = [job("vae", 0), job("vae", 1), job("ddpm", 0)]
    draws = [replace(j, key=f"{j.key}*", cell=replace(j.cell, draw=Draw())) for j in jobs]
    past = [record(job("vae"), 5.0, training_s=5.0), record(job("ddpm"), 20.0, training_s=20.0)]
    past += [record(job(name, draw=Draw()), 1.0) for name in ("vae", "ddpm")]

    def begun(seconds: float, slots: int) -> set[str]:
        return fitting(seconds, estimator(*past), set(), rounds_of(jobs), (jobs, draws), slots)

    vae, second, ddpm = ({j.key, d.key} for j, d in zip(jobs, draws, strict=True))
    assert begun(5.5, 1) == set(), "a training without time for a draw"
    assert begun(6, 1) == vae
    assert begun(13, 1) == vae | second, "not ddpm, for which there is no time, but a second seed"
    assert begun(27, 1) == vae | ddpm
    assert begun(22, 2) == vae | ddpm, "side by side; drawing is not"
    assert begun(28, 2) == vae | ddpm | second


@pytest.mark.parametrize(("text", "expected"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0)])
def test_times_are_read(text: str, expected: float) -> None:
    assert api.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1m", "2d", "nan", "inf", "h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"expected a time such as 90s, 30m or 2h, got"):
        api.seconds(text)


# Whole runs

MATRIX = """
datasets = ["digits"]
seeds = [0]
[measure]
samples = 100
metrics = ["fd"]
[[models]]
model = "outside_model"
images = 3200
config = {{ slow_s = {slow} }}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "outside_model.py")
    (tmp_path / "mine.toml").write_text(MATRIX.format(slow=0.0))
    return tmp_path


def test_a_run_without_time_leaves_all_says_so_and_the_next_one_goes_on(place: Path) -> None:
    done = trilemma_here(place, "run", "mine.toml", "--within", "0.000001")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "6 cells are left, for which 0.000001 did not suffice" in done.stdout
    assert "outside_model-digits seed 0, native" in done.stdout
    assert not list((place / "reports").rglob("*.html")), "there is nothing to report"
    done = trilemma_here(place, "run", "mine.toml", "--within", "10m")
    assert done.returncode == 0, done.stdout + done.stderr
    places = {name: done.stdout.index(f"] {name}-digits seed 0: ok") for name in ("real", "histogram", "outside_model")}
    assert max(places["real"], places["histogram"]) < places["outside_model"], "references first"
    plan = trilemma_here(place, "run", "mine.toml", "--seed", "1", "--model", "outside_model", "--dry-run").stdout
    assert "by past records" in plan
    assert "?" not in plan


def test_what_runs_when_the_time_ends_is_stopped_is_no_failure_and_goes_on(place: Path) -> None:
    (place / "mine.toml").write_text(MATRIX.format(slow=0.1).replace("3200", "1280"))  # four seconds at least
    assert trilemma_here(place, "run", "mine.toml", "--model", "histogram").returncode == 0
    done = trilemma_here(place, "run", "mine.toml", "--within", "2s")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "failed" not in done.stdout
    found = {r.cell.model: r.status for r in store.load(place / "results" / "mine").records}
    assert found == {"real": "ok", "histogram": "ok"}, "no record of what was stopped"
    assert (place / "reports" / "mine" / "index.html").exists(), "what there is, is reported"
    assert "2 cells are left, for which 2s did not suffice" in done.stdout
    begun = list((place / "results" / "mine" / "checkpoints").glob("*/state.json"))  # after five seconds, if at all
    done = trilemma_here(place, "run", "mine.toml", "--within", "10m")
    assert done.returncode == 0, done.stdout + done.stderr
    record = next(r for r in store.load(place / "results" / "mine").records if r.cell.model == "outside_model")
    assert record.provenance["resumed"] == len(begun)
