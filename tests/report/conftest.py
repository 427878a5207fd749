"""A results folder made up for the tests of the report: every number in it is synthetic, none was measured."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.types import Budget, Draw
from bench import store
from bench.record import Artifact, Cell, Measurement, Record
from bench.report import write_report

FAMILIES = {
    "vae": {"family": "autoencoders", "title": "VAE", "source": "Kingma & Welling 2013, arXiv:1312.6114"},
    "dcgan": {"family": "gans", "title": "DCGAN", "source": "Radford et al. 2015, arXiv:1511.06434"},
    "pixelcnn": {"family": "autoregressive", "title": "PixelCNN", "source": "van den Oord et al. 2016"},
    "realnvp": {"family": "flows", "title": "RealNVP", "source": "Dinh et al. 2016, arXiv:1605.08803"},
    "ddpm": {"family": "diffusion", "title": "DDPM", "source": "Ho et al. 2020, arXiv:2006.11239"},
    "histogram": {"family": "references", "title": "Histogram", "source": "independent pixels"},
    "gaussian": {"family": "references", "title": "Gaussian", "source": "full covariance"},
    "gmm": {"family": "references", "title": "GMM", "source": "100 components"},
    "real": {"family": "references", "title": "Real images", "source": "development split"},
}
# model: FD, coverage, recall, precision, images/s, latency s, bits/dim (value, kind, name)
NUMBERS: dict[str, tuple[Any, ...]] = {
    "real": (1.0, 0.95, 0.85, 0.91, None, None, None),
    "histogram": (114.0, 0.12, 0.20, 0.07, 900_000.0, 2e-5, (2.43, "exact", "exact")),
    "gaussian": (60.0, 0.25, 0.52, 0.10, 400_000.0, 4e-5, (2.94, "upper_bound", "dequantised")),
    "gmm": (2.2, 0.90, 0.88, 0.90, 310_000.0, 5e-5, (2.68, "upper_bound", "dequantised")),
    "vae": (16.4, 0.80, 0.91, 0.62, 61_000.0, 3e-4, (1.91, "upper_bound", "elbo")),
    "dcgan": (2.4, 0.88, 0.92, 0.86, 42_000.0, 5e-4, None),
    "pixelcnn": (6.0, 0.91, 0.95, 0.80, 950.0, 0.06, (1.76, "exact", "exact")),
    "realnvp": (14.0, 0.84, 0.94, 0.66, 9_500.0, 6e-3, (2.02, "upper_bound", "dequantised")),
    "ddpm": (1.9, 0.93, 0.92, 0.88, 12.0, 1.4, (3.05, "upper_bound", "vlb")),
}
DDIM = {5: (12.5, 15.3), 10: (2.8, 4.5), 20: (2.05, 2.3), 50: (2.1, 2.3), 100: (1.8, 2.2)}
MODELS = tuple(NUMBERS)
EXTRACTOR = "digits-cnn"


def save_artifact(folder: Path, role: str, data: bytes, ending: str) -> Artifact:
    """Write an artifact as the runner does, named by its hash."""
    digest = hashlib.sha256(data).hexdigest()
    path = f"artifacts/{role}-{digest[:16]}.{ending}"
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return Artifact(role, path, digest)


def images(seed: int, blur: float = 0.0, n: int = 100, channels: int = 1) -> bytes:
    """npz of n made-up 8x8 images with 17 levels: rings and bars, mixed with noise by `blur`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:8, 0:8] - 3.5
    radius, angle = rng.uniform(1.5, 3.5, n), rng.uniform(0, np.pi, n)
    ring = np.exp(-((np.hypot(x, y)[None] - radius[:, None, None]) ** 2))
    bar = np.exp(-((x[None] * np.sin(angle)[:, None, None] - y[None] * np.cos(angle)[:, None, None]) ** 2) / 1.5)
    clean = np.where(rng.random(n)[:, None, None] < 0.5, ring, bar)
    mixed = (1 - blur) * clean + blur * rng.random((n, 8, 8))
    pixels = np.repeat(np.clip(np.rint(16 * mixed), 0, 16).astype(np.uint8)[:, None], channels, axis=1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=pixels, levels=np.array(17))
    return buffer.getvalue()


def _train_record(folder: Path, model: str, dataset: str, seed: int, draws_key: str) -> Record:
    rng = np.random.default_rng([seed, MODELS.index(model)])
    bits = NUMBERS[model][6]
    measured = [Measurement("parameters", 150_000 + 1000 * MODELS.index(model), "", "none", 1, "train")]
    artifacts = []
    if bits is not None:
        value, kind, name = bits
        value += 0.01 * rng.standard_normal()
        measured.append(
            Measurement(
                f"bits_per_dim[{name}]", value, "bits/dim", "lower", 360, "train", value - 0.03, value + 0.03, kind
            )
        )
    if model == "ddpm":
        parts = {"vlb:L_T": 0.001, "vlb:L_t": 2.75, "vlb:L_0": 0.299}
        measured += [
            Measurement(f"bits_per_dim[{name}]", v, "bits/dim", "none", 360, "train") for name, v in parts.items()
        ]
        measured.append(Measurement("bits_per_dim[pf_ode]", 2.81, "bits/dim", "lower", 64, "train", kind="estimate"))
    if FAMILIES[model]["family"] != "references":
        measured += [
            Measurement("training_images_per_s", 9000.0 - 800 * seed, "images/s", "higher", 1, "train"),
            Measurement("training_s", 58.0 + seed, "s", "lower", 1, "train"),
        ]
        rows = []
        for i in range(20):
            fade = np.exp(-i / 5)
            row = {"images": 20_000 * (i + 1), "seconds": 3.0 * (i + 1), "main/loss": 2 + fade + 0.05 * rng.random()}
            if model == "dcgan":
                row["discriminator/loss"] = 1.2 - 0.2 * fade + 0.05 * rng.random()
            if bits is not None:
                row["val_bits_per_dim"] = bits[0] + fade
            rows.append(row)
        artifacts.append(save_artifact(folder, "curve", json.dumps({"rows": rows}).encode(), "json"))
    skipped = {} if bits else {"bits_per_dim": "an implicit model has no likelihood"}
    return Record(
        key=f"{draws_key}-train",
        train_key=draws_key,
        status="ok",
        cell=Cell(model, dataset, Budget(images=400_000), seed, {"lr": 0.002}),
        measured=tuple(measured),
        skipped=skipped,
        artifacts=tuple(artifacts),
        provenance=PROVENANCE,
    )


def _draw_record(folder: Path, model: str, dataset: str, seed: int, draw: Draw, train_key: str) -> Record:
    fd, coverage, recall, precision, rate, latency, _ = NUMBERS[model]
    rng = np.random.default_rng([seed, MODELS.index(model), draw.steps or 0, int(draw.eta)])
    nfe = 0 if FAMILIES[model]["family"] == "references" else 1
    if model == "ddpm":
        steps = draw.steps or 1000
        nfe, rate, latency = steps, 12_000 / steps, 1.4e-3 * steps
        fd = fd if draw.sampler == "ddpm" else DDIM[steps][int(draw.eta)]
    fd *= 1.0 if model == "real" else float(np.exp(0.05 * rng.standard_normal()))
    state = {"weights": "averaged (EMA)" if model == "ddpm" else "raw", "clip": draw.clip}
    quality = {"subject": state, "split": "test", "extractor": EXTRACTOR, "version": 1}
    speed = {"device": "Synthetic CPU", "threads": 1, "batch": 1}

    def of_images(name: str, value: float, better: Any, low: float | None = None) -> Measurement:
        high = None if low is None else 2 * value - low
        return Measurement(f"{name}[{EXTRACTOR}]", value, "", better, 1437, "draw", low, high, protocol=quality)

    measured = [
        of_images("fd", fd, "lower", 0.93 * fd),
        of_images("fd_inf", 0.8 * fd, "lower"),
        of_images("is", 9.9 - 0.05 * fd, "higher"),
        of_images("kid", 1e-3 * fd, "lower"),
        of_images("precision", precision, "higher"),
        of_images("recall", recall, "higher"),
        of_images("density", precision * 1.05, "higher"),
        of_images("coverage", coverage * (1 + 0.005 * seed), "higher"),
    ]
    if rate is not None:
        timed = [("cold", 9.0), ("p50", 1.0), ("p90", 1.2), ("p99", 1.6)]
        measured += [
            Measurement(f"latency_s[{name}]", latency * k, "s", "lower", 200, "draw", protocol=speed)
            for name, k in timed
        ]
        large = {**speed, "batch": 1024}
        measured += [
            Measurement("images_per_s", rate, "images/s", "higher", 5, "draw", protocol=large),
            Measurement("nfe", float(nfe), "", "lower", 1, "draw"),
            Measurement("host_peak_bytes", 3.1e7 + 1e5 * nfe, "B", "lower", 1, "draw", protocol=large),
        ]
        if nfe:
            measured += [
                Measurement("limit_ratio[b1]", 1.3, "", "lower", 5, "draw", protocol=speed),
                Measurement("limit_ratio[large]", 1.08, "", "lower", 5, "draw", protocol=large),
            ]
    gpu = {f"gpu_{name}_bytes": "no GPU" for name in ("allocated", "reserved", "process")}
    blur = min(0.8, fd / 60)
    return Record(
        key=f"{train_key}-{draw.label()}",
        train_key=train_key,
        status="ok",
        cell=Cell(model, dataset, Budget(images=400_000), seed, {"lr": 0.002}, draw),
        measured=tuple(measured),
        skipped=gpu if rate is not None else {"images_per_s": "nothing is drawn", "latency_s": "nothing is drawn"},
        artifacts=(
            save_artifact(folder, "samples", images(100 * seed + MODELS.index(model) + 7, blur), "npz"),
            save_artifact(folder, "real", images(1), "npz"),
        ),
        provenance=PROVENANCE | {"cell_s": 1.5 + seed, "timed": ["images_per_s"]},
    )


PROVENANCE = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "versions": {"python": "3.11.0", "torch": "2.15.0", "numpy": "2.4.6"},
    "device": "cpu",
    "cpu": "Synthetic CPU",
    "cores": 2,
    "threads": 1,
    "platform": "made up for tests",
    "protocol": 1,
    "time": "2026-01-01T00:00:00+00:00",
}


def draws_of(model: str, seed: int, ancestral: bool = False) -> list[Draw]:
    """Native for all but DDPM: ancestral at seed 0 or at every seed, DDIM at five numbers of steps with eta 0 and 1."""
    if model != "ddpm":
        return [Draw()]
    ddim = [Draw("ddim", steps, eta) for steps in DDIM for eta in (0.0, 1.0)]
    return [Draw("ddpm"), *ddim] if seed == 0 or ancestral else ddim


def write_results(
    folder: Path,
    models: Sequence[str] = MODELS,
    seeds: Sequence[int] = (0, 1),
    datasets: Sequence[str] = ("digits",),
    change: Callable[[Record], Record | None] = lambda record: record,
    families: bool = True,
    ancestral: bool = False,
) -> Path:
    """A run's folder with synthetic records of these models; `change` may alter or drop (None) each record."""
    records: list[Record] = []
    for dataset in datasets:
        for model in models:
            for seed in seeds if model != "real" else seeds[:1]:
                key = f"{model}-{dataset}-{seed}"
                made = [_train_record(folder, model, dataset, seed, key)]
                made += [_draw_record(folder, model, dataset, seed, d, key) for d in draws_of(model, seed, ancestral)]
                records += [kept for record in made if (kept := change(record)) is not None]
    for record in records:
        store.append(folder, record)
    info = {"matrix": "synthetic", "title": "Synthetic numbers", "keys": [r.key for r in records]}
    store.write_run(folder, info | ({"families": FAMILIES} if families else {}))
    return folder


@pytest.fixture
def make_results(tmp_path: Path) -> Callable[..., Path]:
    """make_results(models=..., seeds=..., datasets=..., change=...) writes a synthetic results folder."""

    def make(name: str = "results", **options: Any) -> Path:
        return write_results(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models, two seeds, one data set. Do not write into it."""
    return write_results(tmp_path_factory.mktemp("synthetic") / "results")


@pytest.fixture(scope="session")
def written(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report on `results`. Do not write into it."""
    return write_report(results, tmp_path_factory.mktemp("written")).parent
