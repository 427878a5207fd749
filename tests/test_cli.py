"""The command line on bad input: one clear line, a non-zero exit, no traceback, nothing lost."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import api, cli, prepare
from bench.runner import Summary
from tests.command import trilemma_here

ROOT = Path(__file__).parents[1]


def trilemma(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In this process, unless the environment matters to the interpreter."""
    if not environment:
        return trilemma_here(folder, *arguments)
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(*arguments: str, folder: Path, **environment: str) -> str:
    done = trilemma(*arguments, folder=folder, **environment)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vea"], "unknown model 'vea'; did you mean 'vae'?"),
        (["--model", "no.such.module"], "unknown model 'no.such.module'"),
        (["--model", "missing.py"], "model 'missing.py': no such file"),
        (["--dataset", "digit"], "did you mean 'digits'?"),
        (["quik"], "unknown matrix 'quik'; did you mean 'quick'?"),
        (["--model", "vae", "--set", "vae.latnt=3"], "vae.latnt: unknown key"),
        (["--model", "vae", "--set", "vae.training.batch_size=many"], "expected int, got 'many'"),
        (["--model", "vae", "--set", "vae"], "expected model.key=value"),
        (["--model", "vae", "--set", "vae.lr=nan"], "vae.lr: expected a finite number, got nan"),
        (["--model", "vae", "--set", "vae.training.batch_size=0"], "training.batch_size: expected at least 1, got 0"),
        (["--model", "vae", "--set", "vae.training.ema_decay=2.0"], "training.ema_decay"),
        (["--model", "vae", "--set", "vae.training.clip_norm=-1.0"], "training.clip_norm"),
        (["--budget", "soon"], "budget: expected images"),
        (["--device", "tpu"], "expected auto, cpu or cuda, got 'tpu'"),
        (["--dataset", "folder:nowhere"], "nowhere"),
        (["--dataset", "npz:nothing.npz"], "nothing.npz"),
        (["--extractor", "vgg"], "vgg"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused("run", *arguments, "--dry-run", folder=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none(tmp_path: Path) -> None:
    assert "no CUDA device" in refused("run", "--device", "cuda", folder=tmp_path)


@pytest.mark.parametrize(
    ("model", "draw", "message"),
    [
        ("ddpm", 'sampler = "ddim", steps = [0]', "steps: expected 1 to 1000"),
        ("ddpm", 'sampler = "ddim", steps = [5, 2000]', "steps: expected 1 to 1000"),
        ("ddpm", 'sampler = "ddim", steps = [5], eta = [7.0]', "eta: expected 0 to 1"),
        ("ddpm", 'sampler = "ddim", steps = [5], spacing = "foo"', "spacing: expected one of"),
        ("ddpm", 'sampler = "ddpm", variance = "bar"', "variance: 'ddpm' has"),
        ("ddpm", 'sampler = "ddpm", options = { foo = 3 }', "draw.options"),
        ("vae", "steps = [5]", "sampler 'native' takes no steps, got 5"),
        ("dcgan", 'spacing = "trailing"', "sampler 'native' takes no spacing"),
    ],
)
def test_a_draw_that_cannot_be_made_is_refused_before_any_training(
    model: str, draw: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "m.toml").write_text(f'[[models]]\nmodel = "{model}"\nimages = 100\ndraws = [{{ {draw} }}]\n')
    told = refused("run", "m.toml", folder=tmp_path)
    assert message in told
    assert f"error: {model}, draw " in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import not_there  # by MODEL", "imports 'not_there', which is not installed"),
        ("x = 1\ndef broken(:  # MODEL", "mine.py:2: invalid syntax"),
        ("x = 1\n\nraise ValueError('no')  # no MODEL", "mine.py:3: ValueError: no"),
        ("x = 1", "expected it to end with MODEL = Model(...)"),
    ],
)
def test_a_faulty_model_file_is_told_by_file_and_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(content)
    assert message in refused("run", "--model", "mine.py", "--dry-run", folder=tmp_path)


def test_a_model_given_as_a_file_can_be_configured(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "mine.py")
    arguments = ("run", "--model", "mine.py", "--dry-run", "--set")
    assert trilemma(*arguments, "mine.py.lr=0.1", folder=tmp_path).returncode == 0
    assert "mine.py.rl: unknown key" in refused(*arguments, "mine.py.rl=0.1", folder=tmp_path)


def test_a_report_folder_that_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    told = refused("run", "smoke", "--model", "histogram", "--report", "taken", folder=tmp_path)
    assert "report: cannot write in taken" in told
    assert not (tmp_path / "results").exists()


def test_show_refuses_two_formats_at_once(tmp_path: Path) -> None:
    assert "got both" in refused("show", str(tmp_path), "--csv", "--json", folder=tmp_path)


def test_a_terminal_that_lacks_a_sign_loses_nothing_else(tmp_path: Path) -> None:
    done = trilemma("list", "models", folder=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "ddpm" in done.stdout


def test_the_examples_of_run_are_valid(tmp_path: Path) -> None:
    shown = trilemma("run", "--help", folder=tmp_path).stdout
    examples = [line.strip(" │") for line in shown.splitlines() if line.strip(" │").startswith("trilemma run")]
    assert len(examples) > 4
    (tmp_path / "photos").mkdir()
    for i in range(30):
        pixels = np.random.default_rng(i).integers(256, size=(8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    shutil.copy(Path(__file__).parent / "outside_model.py", tmp_path / "my.py")
    (tmp_path / "my_matrix.toml").write_text('[[models]]\nmodel = "vae"\n')
    for example in examples:
        words = example.split("#")[0].replace("my.module", "my").split()[1:]
        done = trilemma(*words, *([] if "--dry-run" in words else ["--dry-run"]), folder=tmp_path)
        assert done.returncode == 0, (example, done.stderr)


def test_a_sampler_that_a_model_lacks_is_named(tmp_path: Path) -> None:
    text = "[[models]]\nmodel = 'ddpm'\ndraws = [{ sampler = 'dimm' }]"
    (tmp_path / "mine.toml").write_text(text)
    assert "did you mean 'ddim'?" in refused("run", "mine.toml", "--dry-run", folder=tmp_path)


def test_bad_mnist_files_are_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    header = struct.pack(">IIII", 2051, 60_000, 28, 28)
    (data / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(1000)))
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (data / f"{name}.gz").write_bytes(gzip.compress(bytes(8)))
    arguments = ("run", "--dataset", "mnist", "--data-dir", str(data), "--dry-run")
    assert "train-images-idx3-ubyte" in refused(*arguments, folder=tmp_path)


def test_bad_images_of_the_user_are_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(photos / f"{i}.png")
    (photos / "broken.png").write_bytes(b"not a picture")
    arguments = ("run", "--dataset", "folder:photos", "--dry-run")
    assert "broken.png" in refused(*arguments, folder=tmp_path)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(photos / "broken.png")
    assert "broken.png" in refused(*arguments, folder=tmp_path)


def test_a_pickled_npz_is_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "bad.npy").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "bad.npz", images=np.array([Bomb()], dtype=object))
    for name in ("bad.npy", "bad.npz"):
        assert name in refused("run", "--dataset", f"npz:{name}", "--dry-run", folder=tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    message = refused("run", "--model", "histogram", "--results", "taken/here", folder=tmp_path)
    assert "taken" in message
    assert "--results" in message


def test_reports_of_nothing_are_refused(tmp_path: Path) -> None:
    assert "nowhere" in refused("report", "nowhere", folder=tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("report", "empty", folder=tmp_path)
    assert "nowhere" in refused("show", "nowhere", folder=tmp_path)


@pytest.mark.parametrize("what", ["models", "datasets", "metrics", "matrices"])
def test_lists_are_json_for_programs(what: str, tmp_path: Path) -> None:
    import json

    done = trilemma("list", what, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {"models": "ddpm", "datasets": "digits", "metrics": "fd", "matrices": "quick"}[what] in str(rows)
    table = trilemma("list", what, folder=tmp_path)
    assert rows[0]["name"] in table.stdout


def test_an_unknown_list_is_refused(tmp_path: Path) -> None:
    assert "did you mean 'models'" in refused("list", "model", folder=tmp_path)


@pytest.mark.parametrize("command", ["run", "report", "list", "show"])
def test_help_shows_an_example(command: str, tmp_path: Path) -> None:
    done = trilemma(command, "--help", folder=tmp_path)
    assert done.returncode == 0
    assert f"trilemma {command} " in done.stdout


def test_a_data_set_that_is_left_out_is_told_before_the_run_and_after_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "available", lambda wanted, setup: (wanted, {"mnist": "not on this machine"}))
    monkeypatch.setattr(api, "run_matrix", lambda *rest: Summary(tmp_path, 0, 0, ()))
    monkeypatch.setattr(cli, "_finish", lambda results, out, console: console.print("report: here"))
    lines = trilemma_here(tmp_path, "run", "quick").stdout.splitlines()
    assert lines == ["note: without mnist: not on this machine", "report: here", lines[0]]
