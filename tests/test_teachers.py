"""Models that learn from other models' checkpoints: what the plan adds, what keys hold, order, failure and resume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import bench
from baselines import registry
from baselines.config import build_config
from baselines.errors import UserError
from bench import keys, matrix, store
from bench.job import Setup
from bench.plan import Training, plan, what_is_left
from bench.record import Record
from bench.teachers import teacher_of, waves

HERE = Path(__file__).parent
TEACHER = """
[[models]]
model = "outside_model"
images = 640
"""
PUPIL = """
[[models]]
model = "pupil_model"
images = 3200
"""
HEAD = """
datasets = ["digits"]
seeds = [0, 1]
[measure]
samples = 200
latency_s = 0.05
timed_seeds = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with both models, from which their names can be imported."""
    keys._module_file.cache_clear()
    for name in ("outside_model", "pupil_model"):
        shutil.copy(HERE / f"{name}.py", tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(folder: Path, text: str, models: tuple[str, ...] = (), seeds: tuple[int, ...] = ()) -> list[Training]:
    (folder / "m.toml").write_text(HEAD + text)
    content = matrix.load("m.toml")[1]
    wanted = matrix.expand(content, models, (), seeds)
    return plan(wanted, Setup(folder / "results", "cpu"), matrix.expand(content, (), (), seeds))


def of(trainings: list[Training], model: str, seed: int = 0) -> Training:
    (found,) = (t for t in trainings if (t.job.cell.model, t.job.cell.seed) == (model, seed))
    return found


# The plan


def test_a_pupils_teacher_is_the_training_of_the_same_seed_and_comes_first(folder: Path) -> None:
    for text in (TEACHER + PUPIL, PUPIL + TEACHER):
        trainings = planned(folder, text)
        names = [(t.job.cell.model, t.job.cell.seed) for t in trainings]
        assert len(names) == len(set(names)), "a teacher that the matrix names too is one training"
        for seed in (0, 1):
            pupil, teacher = of(trainings, "pupil_model", seed), of(trainings, "outside_model", seed)
            assert pupil.job.teacher == teacher.job
            assert teacher.draws, "its own draws are kept"
            assert names.index(("outside_model", seed)) < names.index(("pupil_model", seed))


def test_a_pupil_that_is_run_alone_brings_its_teacher_of_the_matrix(folder: Path) -> None:
    whole = planned(folder, TEACHER + PUPIL)
    alone = planned(folder, TEACHER + PUPIL, models=("pupil_model",))
    assert of(alone, "pupil_model").job == of(whole, "pupil_model").job
    assert of(alone, "outside_model").job == of(whole, "outside_model").job
    assert of(alone, "outside_model").draws == (), "it is trained, not measured"
    assert of(planned(folder, TEACHER + PUPIL, ("pupil_model",), (7,)), "outside_model", 7)


def test_without_a_teacher_the_plan_says_what_to_add(folder: Path) -> None:
    with pytest.raises(UserError, match=r"pupil_model-digits seed 0.*'outside_model'.*add \[\[models\]\] model = "):
        planned(folder, PUPIL)
    only_one = TEACHER.replace("images", "seeds = [0]\nimages")
    with pytest.raises(UserError, match="pupil_model-digits seed 1"):
        planned(folder, only_one + PUPIL)


def test_of_several_the_first_whose_config_fits_teaches(folder: Path) -> None:
    other = TEACHER + "config = { lr = 0.01 }\n"
    trainings = planned(folder, other + TEACHER + PUPIL)
    teacher = next(t for t in trainings if t.job.cell.model == "pupil_model").job.teacher
    assert teacher is not None
    assert teacher.cell.config["lr"] == 0.05
    with pytest.raises(UserError, match=r"cannot teach it: outside_model\.lr: expected 0\.05, got 0\.01"):
        planned(folder, other + PUPIL)


def test_a_model_of_another_data_set_teaches_nobody(folder: Path) -> None:
    (folder / "m.toml").write_text(HEAD + TEACHER + PUPIL)
    wanted = matrix.expand(matrix.load("m.toml")[1])
    pupil = next(w for w in wanted if w.model == "pupil_model")
    teacher = next(w for w in wanted if w.model == "outside_model" and w.seed == pupil.seed)
    other = replace(teacher, dataset="mnist")
    entry = registry.load("pupil_model")
    config = build_config(entry.model.config, {}, entry.name)
    assert teacher_of(entry, config, pupil, [other, teacher]) is teacher
    with pytest.raises(UserError, match="of the same data set and seed, and this run has none"):
        teacher_of(entry, config, pupil, [other])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("images = 640", "images = 641"),
        lambda text: text.replace("images = 640", "images = 640\nconfig = { fail_at = 5 }"),
    ],
    ids=["its budget", "its config"],
)
def test_the_key_of_a_pupil_holds_its_teachers(folder: Path, change: Callable[[str], str]) -> None:
    before, after = planned(folder, TEACHER + PUPIL), planned(folder, change(TEACHER) + PUPIL)
    assert of(before, "pupil_model").job.train_key != of(after, "pupil_model").job.train_key
    assert of(before, "histogram").job.train_key == of(after, "histogram").job.train_key
    draws = [of(t, "pupil_model").draws[0].key for t in (before, after)]
    assert draws[0] != draws[1]


def test_waves_put_every_teacher_before_its_pupils(folder: Path) -> None:
    jobs = [training.job for training in planned(folder, PUPIL + TEACHER)]
    groups = waves(list(reversed(jobs)))
    assert [{job.cell.model for job in group} for group in groups] == [
        {"outside_model", "real", "histogram"},
        {"pupil_model"},
    ]
    assert sorted(job.key for group in groups for job in group) == sorted(job.key for job in jobs)
    pupils = [job for job in jobs if job.cell.model == "pupil_model"]
    assert waves(pupils) == [pupils], "teachers that are done before are not waited for"


# Runs


def run(folder: Path, text: str) -> list[str]:
    """Run a matrix in this process; the labels of the cells that failed."""
    (folder / "m.toml").write_text(HEAD.replace("[0, 1]", "[0]") + text)
    return [record.cell.label() for record in bench.run("m.toml", jobs=2).attrs["failed"]]


def records(folder: Path) -> dict[str, Record]:
    return {record.cell.label(): record for record in store.load(folder / "results" / "m").records}


def test_a_pupil_learns_from_its_teachers_checkpoint_and_is_not_trained_again(folder: Path) -> None:
    assert run(folder, PUPIL + TEACHER) == []
    pupil = records(folder)["pupil_model-digits seed 0"]
    assert pupil.status == "ok"
    assert pupil.provenance["teacher"] == "outside_model-digits seed 0"
    cost = next(m for m in pupil.measured if m.metric == "training_s")
    assert "without the training of its teacher outside_model-digits seed 0" in cost.note
    assert left_to_train(folder) == []
    key = records(folder)["outside_model-digits seed 0"].train_key
    (checkpoint,) = (folder / "results/m/checkpoints" / key).glob("model-*")
    checkpoint.unlink()
    assert left_to_train(folder) == [], "a pupil that is done needs no teacher"
    (folder / "m.toml").write_text((folder / "m.toml").read_text().replace("images = 3200", "images = 3201"))
    assert sorted(left_to_train(folder)) == ["outside_model", "pupil_model"], "one to be trained needs its teacher"


def test_a_failed_teacher_fails_its_pupil_and_nothing_else(folder: Path) -> None:
    assert len(run(folder, PUPIL + TEACHER + "config = { fail_at = 3 }\n")) == 4
    found = records(folder)
    assert found["outside_model-digits seed 0"].status == "failed"
    pupil = found["pupil_model-digits seed 0"]
    assert (pupil.status, pupil.error) == ("failed", "its teacher outside_model-digits seed 0 failed: see that cell")
    assert found["pupil_model-digits seed 0, native"].status == "failed"
    assert found["histogram-digits seed 0, native"].status == "ok"
    assert run(folder, PUPIL + TEACHER) == []
    assert records(folder)["pupil_model-digits seed 0, native"].status == "ok"


@pytest.mark.slow
def test_a_pupil_that_was_killed_goes_on_without_training_its_teacher_again(folder: Path) -> None:
    slow = PUPIL + "config = { slow_s = 0.1 }\n"
    (folder / "m.toml").write_text(HEAD.replace("[0, 1]", "[0]") + slow + TEACHER)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench", "run", "m.toml", "--jobs", "2"]
    killed = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    key = next(t for t in planned_as_is(folder) if t.job.cell.model == "pupil_model").job.train_key
    state = folder / "results/m/checkpoints" / key / "state.json"
    until = time.monotonic() + 120
    while not state.exists() and time.monotonic() < until:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert state.exists(), "the premise: it was killed in the middle of the pupil's training"
    assert left_to_train(folder) == ["pupil_model"]
    assert run(folder, slow + TEACHER) == []
    assert records(folder)["pupil_model-digits seed 0"].provenance["resumed"] == 1


def planned_as_is(folder: Path) -> list[Training]:
    wanted = matrix.expand(matrix.load("m.toml")[1])
    return plan(wanted, Setup(Path("results/m"), "cpu", samples=200, batch=500, latency_s=0.05, timed_seeds=1))


def left_to_train(folder: Path) -> list[str]:
    left = what_is_left(planned_as_is(folder), {r.key: r for r in records(folder).values()})
    return [job.cell.model for job in left.trainings]
