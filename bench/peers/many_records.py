"""Results folders of any size, for timing the report: every number in them is made up."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from baselines.types import Budget, Draw
from bench import store
from bench.record import Artifact, Cell, Measurement, Record

FAMILIES = ("autoencoders", "gans", "autoregressive", "flows", "diffusion")
SEEDS = 3
STEPS = (5, 10, 20, 50, 100, 200, 500, 1000)


def write_many(folder: Path, records: int, samples: bool, draws: int = 1) -> Path:
    """A run of so many records: trainings in five families, each with a record of its own and `draws` draws.

    samples: whether each draw has a hundred images of 28x28 with it, the same real ones beside.
    """
    rng = np.random.default_rng(0)
    trainings = max(1, round((records - 4) / (1 + draws)))
    models = max(5, min(100, trainings // (3 * SEEDS)))
    real = _images(folder, rng, "real") if samples else None
    made: list[Record] = []
    for name, skill in (("real", 0.0), ("histogram", 1.5)):
        made += _training(folder, name, "references", {"width": 0}, 0, 1, rng, real, skill)
    for i in range(trainings):
        group, seed = divmod(i, SEEDS)
        config = {"width": 16 * (1 + group // models), "lr": 0.001}
        family = FAMILIES[group % models % len(FAMILIES)]
        made += _training(folder, f"model{group % models}", family, config, seed, draws, rng, real)
    (folder / "records").mkdir(parents=True, exist_ok=True)
    lines = "\n".join(json.dumps(record.as_json()) for record in made[:records])
    (folder / "records" / "0001.jsonl").write_text(lines + "\n", encoding="utf-8")
    families = {
        f"model{m}": {"family": FAMILIES[m % len(FAMILIES)], "title": f"Model {m}", "source": f"Paper {m}"}
        for m in range(models)
    }
    info = {"matrix": "many", "title": f"{records} records", "keys": [r.key for r in made], "families": families}
    store.write_run(folder, info)
    return folder


def _training(
    folder: Path,
    model: str,
    family: str,
    config: dict[str, Any],
    seed: int,
    draws: int,
    rng: np.random.Generator,
    real: Artifact | None,
    skill: float | None = None,
) -> list[Record]:
    key = f"{model}-{config['width']}-{seed}"
    budget, skill = Budget(images=400_000), rng.uniform(0, 1) if skill is None else skill
    rows = [{"images": 20_000.0 * k, "main/loss": 2 / k, "val_bits_per_dim": 1.5 + 1 / k} for k in range(1, 21)]
    curve = (_artifact(folder, "curve", json.dumps({"rows": rows}).encode(), "json"),) if real is not None else ()
    measured = (
        Measurement("parameters", float(rng.integers(100_000, 1_000_000)), "", "none", 1, "train"),
        Measurement("bits_per_dim[elbo]", 1.5 + skill, "bits/dim", "lower", 360, "train", kind="upper_bound"),
        Measurement("training_s", 100 * skill + 10, "s", "lower", 1, "train"),
    )
    made = [Record(f"{key}-t", key, "ok", Cell(model, "digits", budget, seed, config), measured, {}, curve)]
    for k in range(draws):
        draw = Draw() if draws == 1 else Draw("ddim", STEPS[k % len(STEPS)], float(k // len(STEPS)))
        drawn = () if real is None else (_images(folder, rng, "samples"), real)
        cell = Cell(model, "digits", budget, seed, config, draw)
        made.append(Record(f"{key}-{k}", key, "ok", cell, _scores(rng, skill, k), {}, drawn, PROVENANCE))
    return made


def _scores(rng: np.random.Generator, skill: float, k: int) -> tuple[Measurement, ...]:
    fd = float(np.exp(rng.normal(1 + 2 * skill, 0.1)))
    quality = {"split": "test", "extractor": "digits-cnn", "version": 1}
    speed = {"device": "made up", "threads": 1, "batch": 1024}

    def of(name: str, value: float, better: Any) -> Measurement:
        return Measurement(f"{name}[digits-cnn]", value, "", better, 1437, "draw", protocol=quality)

    return (
        of("fd", fd, "lower"),
        of("is", 10 - 0.1 * fd, "higher"),
        of("kid", 0.01 * fd, "lower"),
        of("precision", 1 - 0.5 * skill, "higher"),
        of("recall", 1 - 0.4 * skill, "higher"),
        of("density", 1 - 0.3 * skill, "higher"),
        of("coverage", 1 - 0.6 * skill, "higher"),
        Measurement("latency_s[p50]", 0.01 * (k + 1), "s", "lower", 200, "draw", protocol=speed),
        Measurement("images_per_s", 9000 * (1 - skill) / (k + 1) + 1, "images/s", "higher", 5, "draw", protocol=speed),
        Measurement("nfe", float(k + 1), "", "lower", 1, "draw"),
        Measurement("host_peak_bytes", 3e7 + 1e6 * skill, "B", "lower", 1, "draw", protocol=speed),
    )


def _images(folder: Path, rng: np.random.Generator, role: str) -> Artifact:
    """A hundred blurred blobs, which compress about as digits do."""
    y, x = np.mgrid[0:28, 0:28]
    centre = rng.uniform(9, 19, (100, 2, 1, 1))
    blob = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / rng.uniform(8, 40, (100, 1, 1)))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.rint(255 * blob).astype(np.uint8)[:, None], levels=np.array(256))
    return _artifact(folder, role, buffer.getvalue(), "npz")


def _artifact(folder: Path, role: str, data: bytes, ending: str) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    path = f"artifacts/{role}-{digest[:16]}.{ending}"
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return Artifact(role, path, digest)


PROVENANCE = {"device": "cpu", "cpu": "made up", "threads": 1, "versions": {"python": "3.11", "torch": "2"}}
