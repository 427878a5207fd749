"""The truths of the coverage study against simulation and other formulas, and a tiny run of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from bench.metrics import coverage_cases, coverage_study
from bench.metrics.coverage_cases import FeatureCase, Gaussians, MeanCase, ScoreCase, Trial
from bench.metrics.frechet import frechet_distance, frechet_distance_of_moments
from bench.metrics.kernel import kernel_distance
from bench.stats import mean_over_seeds

FAR = Gaussians(3, shift=0.7, stretch=1.4)


def test_the_cubic_kernels_expectation_is_that_of_quadrature() -> None:
    """Gauss-Hermite quadrature is exact for polynomials: degree 3 in each coordinate needs 2 nodes, we take 4."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    mean_x, var_x = np.array([0.3, -1.0]), np.array([0.5, 2.0])
    mean_y, var_y = np.array([1.2, 0.4]), np.array([1.5, 0.1])
    total = 0.0
    for indices in np.ndindex(4, 4, 4, 4):
        z, w = nodes[list(indices)], float(np.prod(weights[list(indices)]))
        x, y = mean_x + np.sqrt(var_x) * z[:2], mean_y + np.sqrt(var_y) * z[2:]
        total += w * float((x @ y) / 2 + 1) ** 3
    assert coverage_cases.cubic_expectation(mean_x, var_x, mean_y, var_y) == pytest.approx(total, rel=1e-12)


def test_the_true_distances_are_what_large_samples_tend_to() -> None:
    real, generated = FAR.draw(40_000, np.random.default_rng(0))
    assert frechet_distance(real=real, generated=generated) == pytest.approx(FAR.frechet(), rel=0.03)
    found = kernel_distance(real=real[:4000], generated=generated[:4000])
    assert abs(found.value - FAR.kernel()) < 4 * found.error
    mean_x, var_x, mean_y, var_y = FAR.moments()
    exact = frechet_distance_of_moments(
        mean_real=mean_x, cov_real=np.diag(var_x), mean_generated=mean_y, cov_generated=np.diag(var_y)
    )
    assert FAR.frechet() == pytest.approx(exact)
    assert Gaussians(5).frechet() == Gaussians(5).kernel() == 0


def test_the_true_inception_score_of_alike_classes_has_a_marginal_of_equal_shares() -> None:
    """With two classes exp(ln 2 - E H) is one integral over the logits' difference, N(0, 2 deviation^2)."""
    grid = np.linspace(-60, 60, 40_001)
    p = 1 / (1 + np.exp(-grid))
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-np.minimum(p, 1 - 1e-16)))
    density = multivariate_normal(0, 2 * 3.0**2).pdf(grid)
    expected = math.exp(math.log(2) - float((entropy * density).sum() * (grid[1] - grid[0])))
    assert coverage_cases.score_truth((0.0, 0.0), 3.0) == pytest.approx(expected, rel=2e-3)


def test_a_case_asks_the_metrics_themselves_and_a_refusal_is_counted() -> None:
    few = coverage_study.repeat(FeatureCase("far", Gaussians(4, 0.7, 1.4), 3), 2)
    assert {row.interval: row.refused for row in few} == {"fd": 0, "fd_inf": 2}
    (kid,) = coverage_study.repeat(FeatureCase("far", FAR, 3, kernel=True), 2)
    assert (kid.interval, kid.truth, kid.repetitions) == ("kid", FAR.kernel(), 8)
    assert all(row.truth == Gaussians(4, 0.7, 1.4).frechet() for row in few if row.interval == "fd")
    first, second = (coverage_study.repeat(FeatureCase("far", Gaussians(4), 3), 2) for _ in range(2))
    assert first == second, "seeded: a second run counts the same"
    score = ScoreCase("alike", 30, (0.0,) * 3, 3.0, 2.0)
    assert score.trials(1)[0].low is not None


def test_counting() -> None:
    case = MeanCase("normal", "mean", 3, "seeds", mean_over_seeds, None)
    trials = [Trial("mean", 2.0, *b) for b in ((1.0, 3.0), (2.5, 3.5), (None, None), (0.0, 2.0))]
    (row,) = coverage_study.count(case, trials)
    assert (row.repetitions, row.refused, row.covered, row.size) == (4, 1, 2, "3 seeds")
    assert row.width == pytest.approx((2 + 1 + 2) / 3)


def test_students_t_covers_normal_values_as_often_as_it_says() -> None:
    (row,) = coverage_study.repeat(MeanCase("normal", "mean", 4, "seeds", mean_over_seeds, None), 300)
    assert row.repetitions == 3000
    assert row.covered / row.repetitions == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 3000))


def test_the_command_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [MeanCase("normal", "mean over seeds", n, "seeds", mean_over_seeds, None) for n in (10, 3)]
    monkeypatch.setattr(coverage_cases, "cases", lambda: iter(cases))
    out = tmp_path / "deep" / "study.json"
    monkeypatch.setattr("sys.argv", ["study", "-o", str(out), "--repetitions", "3", "--processes", "1"])
    coverage_study.main()
    study = json.loads(out.read_text())
    assert [row["size"] for row in study["rows"]] == ["3 seeds", "10 seeds"]
    assert study["command"].endswith("--repetitions 3")


def test_the_committed_study_is_of_the_metrics_as_they_are() -> None:
    study = json.loads(coverage_study.SHOWN.read_text())
    assert study["versions"]["metrics"] == {m.name: m.version for m in coverage_study.MEASURED}
    held = {(row["interval"], row["case"], row["size"]) for row in study["rows"]}
    assert all(any(size == case.size for _, _, size in held) for case in coverage_cases.cases())
    assert min(row["repetitions"] for row in study["rows"]) >= 200
