"""Features in files instead of images, through the command line and from Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

import bench
from baselines.errors import UserError
from bench.metrics.base import Subject
from bench.metrics.frechet import frechet_distance
from bench.metrics.inception_score import inception_score
from bench.metrics.kernel import kernel_distance
from bench.metrics.ready_features import has_pixels, without_pixels
from bench.sources.opening import open_images
from tests.command import trilemma_here
from tests.pickled_code import Bomb

Array = NDArray[np.float64]


@pytest.fixture
def sets(rng: np.random.Generator) -> dict[str, Array]:
    return {name: rng.normal(i / 5, 1, (90, 6)) for i, name in enumerate(("real", "generated"))}


def score(samples: Path | Any, reference: Path | Any, **options: Any) -> Any:
    return bench.evaluate(samples, reference, **{"metrics": ["fd"], **options})


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return trilemma_here(folder, "evaluate", *arguments, TRILEMMA_CACHE=str(folder / "cache"))


def test_huge_features_cost_the_metrics_that_they_overflow_and_no_others(
    tmp_path: Path, sets: dict[str, Array]
) -> None:
    sets["train"] = -sets["real"]
    for name, values in sets.items():
        np.savez(tmp_path / f"{name}.npz", features=1e200 * values, logits=values[:, :4])
    paths = {name: tmp_path / f"{name}.npz" for name in sets}
    found = score(paths["generated"], paths["real"], train=paths["train"], metrics=())
    assert {m.metric.split("[")[0] for m in found.measured} >= {"is", "modes", "mode_kl", "nn_train_share"}
    for metric in ("fd", "fd_inf", "kid", "mmd_rbf", "precision", "recall", "density", "coverage"):
        assert "features reach" in found.skipped[metric]


def test_two_files_of_features_are_compared_by_the_command_line(tmp_path: Path, sets: dict[str, Array]) -> None:
    logits = 3 * sets["generated"][:, :4]
    np.savez(tmp_path / "fake.npz", features=sets["generated"].astype(np.float32), logits=logits, extractor="resnet-x")
    np.savez_compressed(tmp_path / "real.npz", features=sets["real"], logits=sets["real"][:, :4])
    done = run(tmp_path, "--samples", "fake.npz", "--reference", "real.npz", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out.json").read_text())
    found = {m["metric"]: m["value"] for m in told["measured"]}
    assert {"fd[resnet-x]", "kid[resnet-x]", "is[resnet-x]", "precision[resnet-x]"} <= found.keys()
    pair = {"real": sets["real"], "generated": sets["generated"].astype(np.float32).astype(float)}
    assert found["fd[resnet-x]"] == pytest.approx(frechet_distance(**pair), rel=1e-9)
    assert found["kid[resnet-x]"] == pytest.approx(kernel_distance(**pair).value, rel=1e-9)
    assert found["is[resnet-x]"] == pytest.approx(inception_score(probabilities=softmax(logits, axis=1)), rel=1e-9)
    assert told["extractor"]["name"] == "resnet-x"
    assert "taken of pixels" in told["skipped"]["sharpness"]
    assert told["samples"]["sha256"] != told["reference"]["sha256"]
    assert not (tmp_path / "cache").exists()
    refused = run(tmp_path, "--samples", "fake.npz", "--reference", "digits")
    assert refused.returncode == 1 or refused.returncode == 2
    assert "all as images or all as features" in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.stderr


def test_a_matrix_in_a_npy_file_is_features_under_the_name_that_is_given(
    tmp_path: Path, sets: dict[str, Array]
) -> None:
    for name, values in sets.items():
        np.save(tmp_path / f"{name}.npy", np.asfortranarray(values))
    pair = tmp_path / "generated.npy", tmp_path / "real.npy"
    assert score(*pair).value("fd[features]") == pytest.approx(frechet_distance(**sets), rel=1e-9)
    assert score(*pair, extractor_name="dinov2").value("fd[dinov2]") == score(*pair).value("fd[features]")
    assert "does not classify" in score(*pair, metrics=["fd", "is"]).skipped["is"]


def test_the_name_inception_alone_does_not_make_it_fid(tmp_path: Path, sets: dict[str, Array]) -> None:
    for name, values in sets.items():
        np.savez(tmp_path / f"{name}.npz", features=values, logits=values[:, :3], extractor="inception")
    found = score(tmp_path / "generated.npz", tmp_path / "real.npz", metrics=["fd", "is"])
    assert [m.metric for m in found.measured] == ["fd[inception]", "is[inception]"]


def test_train_features_make_the_floor(tmp_path: Path, sets: dict[str, Array], rng: np.random.Generator) -> None:
    train = rng.normal(0, 1, (90, 6))
    for name, values in {**sets, "train": train}.items():
        np.savez(tmp_path / f"{name}.npz", features=values)
    found = score(*(tmp_path / f"{name}.npz" for name in ("generated", "real")), train=tmp_path / "train.npz")
    assert found.floor["fd[features]"] == pytest.approx(frechet_distance(real=sets["real"], generated=train), rel=1e-9)


def test_metrics_of_pixels_are_told_that_there_are_none(tmp_path: Path, sets: dict[str, Array]) -> None:
    np.save(tmp_path / "real.npy", sets["real"])
    rows, images = open_images(tmp_path / "real.npy", "samples"), open_images("digits", "reference images")
    assert (has_pixels(rows), has_pixels(images)) == (False, True)
    assert without_pixels(Subject(0, generated=images, reference=images)) is None
    reason = without_pixels(Subject(0, generated=rows, reference=rows))
    assert reason is not None
    assert "ready-made features" in reason


def test_the_content_is_the_sets_identity(tmp_path: Path, sets: dict[str, Array]) -> None:
    arrays = {"a": {}, "b": {}, "c": {"logits": sets["real"][:, :1]}}
    for name, more in arrays.items():
        np.savez(tmp_path / f"{name}.npz", features=sets["real"] + (name == "b"), **more)
    np.save(tmp_path / "same.npy", sets["real"])
    found = {path.name: open_images(path, "samples").content() for path in sorted(tmp_path.iterdir())}
    assert found["a.npz"] == found["same.npy"]
    assert len(set(found.values())) == 3


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "integers": ({"features": np.zeros((5, 6), np.int64)}, "expected features as floats"),
    "one row of numbers": ({"features": np.zeros(6)}, r"expected floats \(N, d\)"),
    "no rows": ({"features": np.zeros((0, 6))}, r"expected floats \(N, d\)"),
    "nan": ({"features": np.full((5, 6), np.nan)}, "expected finite numbers"),
    "infinity": ({"features": np.full((5, 6), np.inf)}, "expected finite numbers"),
    "other d": ({"features": np.zeros((5, 7))}, "equally many in each set, got 7 of the samples, 6 of the reference"),
    "logits here alone": (
        {"features": np.ones((5, 6)), "logits": np.ones((5, 3))},
        "logits: expected equally many in each set, got 3 of the samples, 0 of the reference",
    ),
    "few logits": ({"features": np.ones((5, 6)), "logits": np.ones((4, 3))}, r"expected logits \(5, K\)"),
    "flat logits": ({"features": np.ones((5, 6)), "logits": np.ones(5)}, r"logits: expected floats \(N, d\)"),
    "number for a name": ({"features": np.ones((5, 6)), "extractor": np.array(3)}, "extractor: expected one string"),
    "names": ({"features": np.ones((5, 6)), "extractor": np.array(["a", "b"])}, "extractor: expected one string"),
    "odd name": ({"features": np.ones((5, 6)), "extractor": np.array("a]b")}, "expected letters, digits"),
    "pickled": ({"features": np.array([[Bomb()]], object)}, "pickled objects, which are refused"),
    "pickled name": ({"features": np.ones((5, 6)), "extractor": np.array(Bomb(), object)}, "pickled objects"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_of_something_else_is_told(kind: str, tmp_path: Path, sets: dict[str, Array]) -> None:
    arrays, match = BAD[kind]
    np.savez(tmp_path / "fake.npz", **arrays)
    np.savez(tmp_path / "real.npz", features=sets["real"])
    with pytest.raises(UserError, match=match) as error:
        score(tmp_path / "fake.npz", tmp_path / "real.npz")
    assert "fake.npz" in str(error.value) or kind in ("other d", "odd name", "logits here alone")


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_told(suffix: str, damage: str, tmp_path: Path, sets: dict[str, Array]) -> None:
    path = tmp_path / f"fake.{suffix}"
    if suffix == "npz":
        np.savez(path, features=sets["generated"])
    else:
        np.save(path, sets["generated"])
    content = bytearray(path.read_bytes())
    content = content[:700] if damage == "cut" else content[:60] + bytes(600) + content[660:]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"fake\.np"):
        score(path, path)


def test_images_and_features_are_not_compared(tmp_path: Path, sets: dict[str, Array]) -> None:
    np.savez(tmp_path / "real.npz", features=sets["real"])
    pictures = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    for pair in ((pictures, tmp_path / "real.npz"), (tmp_path / "real.npz", pictures)):
        with pytest.raises(UserError, match="all as images or all as features"):
            score(*pair)


def test_names_that_disagree_and_extractors_that_are_not_run_are_refused(
    tmp_path: Path, sets: dict[str, Array]
) -> None:
    for name, values in sets.items():
        np.savez(tmp_path / f"{name}.npz", features=values, extractor=f"net-{name}")
    paths = tmp_path / "generated.npz", tmp_path / "real.npz"
    with pytest.raises(UserError, match="one extractor, got net-generated and net-real"):
        score(*paths)
    with pytest.raises(UserError, match="one extractor, got net-real and other"):
        score(paths[1], paths[1], extractor_name="other")
    with pytest.raises(UserError, match="none is run; name them by --extractor-name"):
        score(paths[1], paths[1], extractor="inception")
    with pytest.raises(UserError, match="images are given; see --extractor"):
        score(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "digits", extractor_name="mine")
