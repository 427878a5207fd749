"""Whole runs through the command line: a model from outside, resume, failure, damage, staleness, from Python.

The first run and those that are stopped or killed have a process of their own; the others run in this one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import keys, store
from bench.record import Record
from tests.command import trilemma_here

ROOT = Path(__file__).parents[1]
MATRIX = """
title = "a test"
datasets = ["digits"]
seeds = [0]
[measure]
samples = 200
latency_s = 0.05
[[models]]
model = "outside_model"
images = 6400
config = { slow_s = 0.0 }
"""


def environment() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}


def trilemma(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: their model, their matrix, and one finished run of it."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(Path(__file__).parent / "outside_model.py", folder / "outside_model.py")
    (folder / "mine.toml").write_text(MATRIX)
    done = trilemma(folder, "run", "mine.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "first.log").write_text(done.stdout)
    return folder


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(place, tmp_path / "copy"))


def records(folder: Path) -> dict[str, Record]:
    found = store.load(folder / "results" / "mine").records
    return {record.cell.label(): record for record in found}


def values(record: Record) -> dict[str, float]:
    return {m.metric: m.value for m in record.measured}


def test_a_model_from_outside_goes_through_the_whole_pipeline(place: Path) -> None:
    found = records(place)
    train, draw = found["outside_model-digits seed 0"], found["outside_model-digits seed 0, native"]
    assert train.status == draw.status == "ok"
    exact = {m.metric: m for m in train.measured}["bits_per_dim[exact]"]
    assert exact.kind == "exact"
    histogram = values(found["histogram-digits seed 0"])["bits_per_dim[exact]"]
    assert abs(exact.value - histogram) < 0.3, "independent pixels by gradient come near the same fit in closed form"
    scores = values(draw)
    for metric in ("fd[digits-cnn]", "is[digits-cnn]", "kid[digits-cnn]", "precision[digits-cnn]"):
        assert metric in scores
    for metric in ("coverage[digits-cnn]", "latency_s[p50]", "images_per_s", "host_peak_bytes", "nfe"):
        assert metric in scores
    assert scores["nfe"] == 1
    assert draw.skipped["gpu_peak_allocated_bytes"] == "no GPU"
    floor = values(found["real-digits seed 0, native"])
    assert floor["fd[digits-cnn]"] < scores["fd[digits-cnn]"]
    assert "latency_s[p50]" not in floor
    page = (place / "reports" / "mine" / "index.html").read_text()
    assert "Independent pixels by gradient" in page
    assert "reports/mine/index.html" in (place / "first.log").read_text()
    for line in (place / "results/mine/records").glob("*.jsonl"):
        plain = json.loads(line.read_text().splitlines()[0])
        assert {
            "schema",
            "key",
            "train_key",
            "status",
            "cell",
            "measured",
            "skipped",
            "artifacts",
            "provenance",
        } <= set(plain)


def test_run_again_finds_every_cell_done(copy: Path) -> None:
    before = records(copy)
    done = trilemma_here(copy, "run", "mine.toml")
    assert done.returncode == 0
    assert "0 to train, 0 draws to measure" in done.stdout
    assert records(copy) == before


def forget() -> None:
    """What another process would not know: the user's model, and hashes of source files."""
    sys.modules.pop("outside_model", None)
    keys._module_file.cache_clear()
    keys._read.cache_clear()


def test_a_changed_model_is_stale_and_is_run_again_alone(copy: Path) -> None:
    source = (copy / "outside_model.py").read_text()
    (copy / "outside_model.py").write_text(source + "\n# only a comment\n")
    forget()
    plan = trilemma_here(copy, "run", "mine.toml", "--dry-run").stdout
    assert "0 to do" in plan, "a comment makes nothing stale"
    (copy / "outside_model.py").write_text(source.replace("lr: float = 0.05", "lr: float = 0.04"))
    forget()
    plan = trilemma_here(copy, "run", "mine.toml", "--dry-run").stdout
    assert "stale, to train" in plan
    assert "stale, to measure" in plan
    done = trilemma_here(copy, "run", "mine.toml")
    assert "1 to train, 1 draws to measure, 2 of them stale" in done.stdout
    assert "stale" not in (copy / "reports/mine/report.md").read_text(), "all are replaced"
    forget()


def test_what_is_named_twice_is_run_once(copy: Path) -> None:
    twice = MATRIX.replace("seeds = [0]", "seeds = [0, 0]") + MATRIX[MATRIX.index("[[models]]") :]
    (copy / "mine.toml").write_text(twice)
    for more in ([], ["--seed", "0", "--seed", "0", "--dataset", "digits", "--dataset", "digits"]):
        assert "6 cells, 6 done, 0 to do" in trilemma_here(copy, "run", "mine.toml", *more, "--dry-run").stdout


def test_damaged_and_missing_artifacts_are_made_again(copy: Path) -> None:
    files = sorted((copy / "results/mine/artifacts").iterdir())
    before = {file.name: file.read_bytes() for file in files}
    shutil.move(copy / "results/mine/artifacts", copy / "away")
    states = trilemma_here(copy, "run", "mine.toml", "--dry-run").stdout
    assert "files missing, to measure" in states
    assert "files missing, trained before, to measure" in states
    assert "stale" not in states, "neither code nor config is another one"
    shutil.move(copy / "away", copy / "results/mine/artifacts")
    files[0].unlink()
    for file in files[1:]:
        file.write_bytes(b"junk")
    assert trilemma_here(copy, "run", "mine.toml").returncode == 0
    after = {file.name: file.read_bytes() for file in files if "timings" not in file.name and file.exists()}
    assert set(after) == {name for name in before if "timings" not in name}
    assert all(before[name] == data for name, data in after.items())


def test_a_model_added_by_name_keeps_its_title_in_later_reports(copy: Path) -> None:
    (copy / "mine.toml").write_text(MATRIX[: MATRIX.index("[[models]]")])
    shutil.move(copy / "outside_model.py", copy / "added.py")
    assert trilemma_here(copy, "run", "mine.toml", "--model", "added.py", "--budget", "64").returncode == 0
    assert trilemma_here(copy, "run", "mine.toml").returncode == 0
    assert "Independent pixels by gradient" in (copy / "reports/mine/index.html").read_text()


def test_ctrl_c_says_how_to_go_on(copy: Path) -> None:
    (copy / "mine.toml").write_text(MATRIX.replace("slow_s = 0.0", "slow_s = 0.05"))
    command = [sys.executable, "-m", "bench", "run", "mine.toml"]
    run = subprocess.Popen(
        command,
        cwd=copy,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever the tests' own shell ignores
    )
    assert run.stdout is not None
    while "training" not in run.stdout.readline():
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command goes on from here" in told
    assert "Traceback" not in told


def test_a_damaged_checkpoint_is_named_set_aside_and_trained_again(copy: Path) -> None:
    before = records(copy)
    label = "outside_model-digits seed 0, native"
    folder = copy / "results/mine/checkpoints" / before[label].train_key
    checkpoint = next(folder.glob("model-*.safetensors"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-8])
    drop(copy, label)
    done = trilemma_here(copy, "run", "mine.toml")
    assert done.returncode == 0
    assert "corrupt checkpoint of outside_model-digits seed 0" in done.stdout
    assert "1 to train, 1 draws to measure" in done.stdout
    assert list(folder.glob("*.corrupt"))
    assert values(records(copy)[label])["fd[digits-cnn]"] == values(before[label])["fd[digits-cnn]"]


def drop(folder: Path, label: str) -> None:
    """Remove one record, as if the run had been stopped before it."""
    for shard in (folder / "results/mine/records").glob("*.jsonl"):
        lines = [
            line for line in shard.read_text().splitlines() if Record.from_json(json.loads(line)).cell.label() != label
        ]
        shard.write_text("".join(line + "\n" for line in lines))


def test_a_half_written_last_line_is_told_and_only_its_cell_is_run_again(copy: Path) -> None:
    shard = next((copy / "results/mine/records").glob("*.jsonl"))
    text = shard.read_text()
    shard.write_text(text[: len(text) - 200])
    done = trilemma_here(copy, "run", "mine.toml")
    assert done.returncode == 0
    assert "skipped, not a record" in done.stdout
    assert "1 draws to measure" in done.stdout or "1 trained before and to measure" in done.stdout
    assert len(records(copy)) == 6


def test_a_training_that_lacks_its_measurements_alone_is_not_said_to_be_trained_again(copy: Path) -> None:
    drop(copy, "outside_model-digits seed 0")
    plan = trilemma_here(copy, "run", "mine.toml", "--dry-run").stdout
    assert "trained before, to measure" in next(line for line in plan.splitlines() if "outside_model" in line)
    done = trilemma_here(copy, "run", "mine.toml")
    assert "5 cells done before, 0 to train, 1 trained before and to measure, 0 draws to measure" in done.stdout


def test_cells_that_differ_in_their_config_have_labels_that_say_so(copy: Path) -> None:
    models = "".join(
        f'[[models]]\nmodel = "ddpm"\nimages = 64\nconfig = {{ timesteps = {t} }}\ndraws = [{{ sampler = "ddpm" }}]\n'
        for t in (10, 50)
    )
    (copy / "two.toml").write_text(MATRIX.partition("[[models]]")[0] + models)
    plan = trilemma_here(copy, "run", "two.toml", "--dry-run").stdout
    for t in (10, 50):
        assert f"ddpm-digits (timesteps={t}) seed 0, ddpm" in plan
    cells = [line.split("│")[1].strip() for line in plan.splitlines() if line.startswith("│")]
    assert len(cells) == len(set(cells))
    assert "real-digits seed 0" in cells, "what is alone needs no more"


def test_a_failing_cell_does_not_stop_the_others(copy: Path) -> None:
    shutil.rmtree(copy / "results")
    done = trilemma_here(copy, "run", "mine.toml", "--set", "outside_model.fail_at=3")
    assert done.returncode == 1
    assert "2 cells failed" in done.stdout
    assert "RuntimeError: broken as told" in done.stdout
    assert "trilemma run mine.toml --set outside_model.fail_at=3" in done.stdout
    found = records(copy)
    assert found["outside_model-digits seed 0"].status == "failed"
    assert "broken as told" in found["outside_model-digits seed 0"].error
    assert found["histogram-digits seed 0, native"].status == "ok"
    assert (copy / "reports/mine/index.html").exists()


def test_a_killed_run_goes_on_where_it_was(copy: Path) -> None:
    whole = values(records(copy)["outside_model-digits seed 0"])["bits_per_dim[exact]"]
    shutil.rmtree(copy / "results")
    slow = ["--set", "outside_model.slow_s=0.05"]
    command = [sys.executable, "-m", "bench", "run", "mine.toml", *slow]
    run = subprocess.Popen(command, cwd=copy, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = None
    until = time.monotonic() + 120
    while state is None and time.monotonic() < until:
        time.sleep(0.1)
        state = next((copy / "results/mine/checkpoints").glob("*/state.json"), None)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert state is not None, "the premise: it was killed in the middle of training"
    done = trilemma_here(copy, "run", "mine.toml", *slow)
    assert done.returncode == 0, done.stdout + done.stderr
    record = records(copy)["outside_model-digits seed 0"]
    assert record.provenance["resumed"] == 1
    assert values(record)["bits_per_dim[exact]"] == whole, "bit for bit as if it had never been killed"


def test_two_runs_never_share_a_folder(copy: Path) -> None:
    import fcntl

    with (copy / "results/mine/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = trilemma_here(copy, "run", "mine.toml")
    assert done.returncode == 2
    assert "another run is using it" in done.stderr


def test_from_python_without_a_main_guard(copy: Path) -> None:
    script = copy / "study.py"
    script.write_text(
        "import bench\n"
        "frame = bench.run('mine.toml', models=['histogram'], seeds=[4])\n"
        "print(sorted(set(frame.metric)))\n"
        "print(frame[frame.seed == 4].model.unique())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=copy, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "bits_per_dim[exact]" in done.stdout
    assert "histogram" in done.stdout


def test_show_speaks_json_and_csv(place: Path) -> None:
    lines = trilemma_here(place, "show", "results/mine", "--json").stdout.splitlines()
    assert len(lines) == 6
    assert all(json.loads(line)["schema"] == 1 for line in lines)
    table = trilemma_here(place, "show", "results/mine", "--csv").stdout
    assert "images_per_s" in table
    assert "Independent pixels by gradient" in " ".join(trilemma_here(place, "show", "results/mine").stdout.split())


REFUSES = """
from dataclasses import dataclass

from baselines.contract import Illustrates, Model
from baselines.errors import UserError
from outside_model import Config, Pixels


class Shy(Pixels, Illustrates):
    def pictures(self, real, noise):
        raise UserError("nothing to see")


MODEL = Model("Shy", "a test", Config, Shy)
"""


@pytest.mark.slow
def test_what_models_show_of_themselves_is_kept_with_the_training_and_stands_in_the_report(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "outside_model.py")
    (tmp_path / "shy.py").write_text(REFUSES)
    models = (
        '[[models]]\nmodel = "ddpm"\nimages = 64\nconfig = { timesteps = 12 }\n'
        'draws = [{ sampler = "ddim", steps = [5, 10] }]\n[[models]]\nmodel = "shy"\nimages = 64\n'
    )
    (tmp_path / "mine.toml").write_text(MATRIX.partition("[[models]]")[0] + models)
    done = trilemma(tmp_path, "run", "mine.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(tmp_path)
    strips = [a for a in found["ddpm-digits seed 0"].artifacts if a.role == "strip"]
    assert len(strips) == 7
    assert found["shy-digits seed 0"].status == "ok"
    assert found["shy-digits seed 0"].skipped["pictures"] == "nothing to see"
    page = (tmp_path / "reports" / "mine" / "index.html").read_text(encoding="utf-8")
    for title in (
        "Forward process",
        "Progressive generation",
        "Reconstruction by DDIM inversion",
        "What do steps buy?",
    ):
        assert title in page
    (tmp_path / "results" / "mine" / strips[0].path).unlink()
    again = trilemma(tmp_path, "run", "mine.toml")
    assert "0 to train, 1 trained before and to measure" in again.stdout, "a strip that is lost is made again"
    assert "1 of them with files missing" in again.stdout
    assert len([a for a in records(tmp_path)["ddpm-digits seed 0"].artifacts if a.role == "strip"]) == 7


def a_measurement(record: Record, metric: str) -> Any:
    return next(m for m in record.measured if m.metric == metric)


def test_every_number_carries_its_protocol(place: Path) -> None:
    draw = records(place)["outside_model-digits seed 0, native"]
    quality = a_measurement(draw, "fd[digits-cnn]").protocol
    assert quality["split"] == "test"
    assert quality["n_generated"] == 200
    assert quality["extractor"]["name"] == "digits-cnn"
    speed = a_measurement(draw, "images_per_s").protocol
    assert speed["threads"] == 1
    assert speed["device"]


@pytest.mark.slow
def test_a_likelihood_on_request_and_the_bounds_curves_are_kept_without_training_again(tmp_path: Path) -> None:
    matrix = """
    [measure]
    samples = 50
    latency_s = 0.05
    likelihood_images = 3
    [[models]]
    model = "improved_ddpm"
    images = 640
    config = { timesteps = 10, widths = [4, 4] }
    """
    (tmp_path / "mine.toml").write_text(matrix)
    done = trilemma(tmp_path, "run", "mine.toml", "--model", "improved_ddpm")
    assert done.returncode == 0, done.stdout + done.stderr
    plain = records(tmp_path)["improved_ddpm-digits seed 0"]
    (kept,) = (a for a in plain.artifacts if a.role == "likelihood_curves")
    curve = json.loads((tmp_path / "results" / "mine" / kept.path).read_text())["vlb"]["L_t"]
    assert [len(curve[name]) for name in ("mean", "low", "high")] == [10, 10, 10]
    bound = values(plain)
    assert sum(curve["mean"][1:]) == pytest.approx(bound["bits_per_dim[vlb:L_{t-1}]"], rel=1e-5)
    assert curve["mean"][0] == pytest.approx(bound["bits_per_dim[vlb:L_0]"], rel=1e-5)
    assert not [metric for metric in bound if "pf_ode" in metric]
    (tmp_path / "mine.toml").write_text(
        matrix.replace("likelihood_images", 'likelihoods = ["pf_ode"]\nlikelihood_images')
    )
    again = trilemma(tmp_path, "run", "mine.toml", "--model", "improved_ddpm")
    assert again.returncode == 0, again.stdout + again.stderr
    asked = records(tmp_path)["improved_ddpm-digits seed 0"]
    assert asked.train_key == plain.train_key
    assert values(asked)["training_s"] == bound["training_s"], "the checkpoint is the same"
    assert values(asked)["bits_per_dim[vlb]"] == bound["bits_per_dim[vlb]"]
    assert values(asked)["bits_per_dim[pf_ode:trace_error]"] > 0
