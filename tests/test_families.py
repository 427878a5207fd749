"""Which metric families a run takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines.data import catalogue
from baselines.errors import UserError
from bench.families import family_keys, measure_families
from bench.job import Setup
from bench.metrics.base import Subject


def test_a_run_may_take_some_metrics_alone() -> None:
    dataset = catalogue.load("digits")
    every = family_keys(dataset, Setup(Path(), "cpu"), latent=False)
    some = family_keys(dataset, Setup(Path(), "cpu", metrics=("fd", "fd_exact")), latent=False)
    assert set(some["draw"]) == {"sampling", "fd", "fd_exact"}
    assert set(some["train"]) == {"counters"}
    assert {name: every["draw"][name] for name in some["draw"]} == some["draw"], "the keys are the same"
    measured, skipped = measure_families("draw", Subject(0, extractor_reason="none here"), ("fd",))
    assert (measured, skipped) == ((), {"fd": "none here"})


def test_a_metric_that_there_is_not_is_named() -> None:
    with pytest.raises(UserError, match=r"measure\.metrics: no metric 'recal'.*recall"):
        family_keys(catalogue.load("digits"), Setup(Path(), "cpu", metrics=("recal",)), latent=False)
