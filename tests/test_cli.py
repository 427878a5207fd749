"""The command line on bad input: one clear line, a non-zero exit, no traceback, nothing lost."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]


def trilemma(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
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
