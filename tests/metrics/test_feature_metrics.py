"""What all feature metrics share: names, protocol, reasons, one extraction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from baselines.errors import UserError
from bench.metrics import catalogue
from bench.metrics.base import Features, Metric, Subject

OF_MODELS = {  # that ask the model or its requests too, or need near-duplicates; each has tests of its own
    "fd_exact",
    "birthday",
    "attribute_accuracy",
    "r_precision",
    "mask_iou",
    "appearance_l1",
    "paired_error",
    "reconstruction_l1",
    "mi_bound",
    "cluster_accuracy",
    "fd_by_resolution",
}
DRAWN = [metric for metric in catalogue.METRICS if metric.scope == "draw" and metric.name not in OF_MODELS]
OF_PIXELS = {"sharpness"}  # metrics that no extractor has a part in
NUMBERS = {"memorisation": {"nn_train_share", "nn_train_ratio"}}  # of families that make several


def measured(subject: Subject) -> dict[str, Any]:
    return {m.metric: m for metric in DRAWN for m in metric.measure(subject)}


def test_every_metric_bears_its_extractor_in_its_name(subject: Callable[..., Subject]) -> None:
    found = measured(subject())
    numbers = {name for metric in DRAWN for name in NUMBERS.get(metric.name, {metric.name})}
    assert set(found) == {name if name in OF_PIXELS else f"{name}[patch]" for name in numbers}
    assert all(np.isfinite(m.value) and m.scope == "draw" for m in found.values())


def test_inception_alone_may_be_called_fid_and_is(subject: Callable[..., Subject]) -> None:
    seen = subject()
    assert seen.extractor is not None
    seen.extractor.name = "inception"
    names = set(measured(seen))
    assert {"fid", "is", "kid[inception]", "fd_inf[inception]", "recall[inception]"} <= names


def test_protocols_say_split_numbers_and_extractor(subject: Callable[..., Subject]) -> None:
    seen = subject(test=70, samples=90)
    seen.protocol = {"subject": "averaged"}
    for found in measured(seen).values():
        assert found.protocol["split"] == "test"
        assert (found.protocol["n_real"], found.protocol["n_generated"]) == (70, 90)
        if found.metric in OF_PIXELS:
            assert "extractor" not in found.protocol
        else:
            assert found.protocol["extractor"]["weights_sha256"] == "none"
        assert found.protocol["subject"] == "averaged"
        assert found.protocol["version"] >= 1


def test_features_are_computed_once_for_all_metrics(subject: Callable[..., Subject]) -> None:
    seen = subject()
    measured(seen)
    assert seen.extractor.calls == 3  # type: ignore[union-attr] - of samples, test and train images


def test_a_cache_shared_by_draws_never_answers_for_other_images(subject: Callable[..., Subject]) -> None:
    first, second = subject(seed=0), subject(seed=1)
    alone = measured(second)
    second.cache = first.cache
    measured(first)
    assert {name: m.value for name, m in measured(second).items()} == {name: m.value for name, m in alone.items()}


def test_images_changed_in_place_are_seen_anew(subject: Callable[..., Subject]) -> None:
    seen = subject()
    before = measured(seen)["fd[patch]"].value
    seen.generated.images.fill_(3)  # type: ignore[union-attr]
    assert measured(seen)["fd[patch]"].value > 2 * before


def test_the_same_subject_gives_the_same_numbers_twice(subject: Callable[..., Subject]) -> None:
    first, second = measured(subject()), measured(subject())
    assert first == second


@pytest.mark.parametrize("metric", DRAWN, ids=lambda metric: metric.name)
def test_no_extractor_no_samples_or_too_few_give_a_reason(metric: Metric, subject: Callable[..., Subject]) -> None:
    blind = subject()
    blind.extractor, blind.extractor_reason = None, "no network for this"
    assert metric.unavailable(blind) == (None if metric.name in OF_PIXELS else "no network for this")
    undrawn = subject()
    undrawn.generated = None
    assert metric.unavailable(undrawn) == "no samples were drawn"
    assert "needs at least" in str(metric.unavailable(subject(samples=1)))
    assert metric.unavailable(subject()) is None


def test_without_class_logits_only_the_metrics_of_classes_are_missing(
    subject: Callable[..., Subject], unclassified: Any
) -> None:
    seen = subject(extractor=unclassified)
    missing = [metric.name for metric in DRAWN if metric.unavailable(seen) is not None]
    assert missing == ["is", "modes", "mode_kl"]


def test_few_samples_leave_the_metrics_that_can_be_taken(subject: Callable[..., Subject]) -> None:
    left = [metric.name for metric in DRAWN if metric.unavailable(subject(samples=5)) is None]
    apart = {"fd_inf", "density", "coverage"}  # need more than five images
    assert left == [metric.name for metric in DRAWN if metric.name not in apart]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error(value: float, subject: Callable[..., Subject]) -> None:
    class Broken:
        name = "broken"

        def identity(self) -> dict[str, str]:
            return {}

        def extract(self, images: Tensor, levels: int) -> Features:
            return Features(np.full((len(images), 3), value))

    with pytest.raises(UserError, match=r"extractor broken: features of the .* are not finite"):
        measured(subject(extractor=Broken()))


def test_generated_worse_than_real_ranks_worse_by_every_metric(subject: Callable[..., Subject]) -> None:
    good, bad = subject(samples=120), subject(samples=120)
    bad.generated.images.fill_(8)  # type: ignore[union-attr]
    first, second = measured(good), measured(bad)
    assert second["fd[patch]"].value > first["fd[patch]"].value
    assert second["kid[patch]"].value > first["kid[patch]"].value
    assert second["recall[patch]"].value < first["recall[patch]"].value
    assert second["coverage[patch]"].value < first["coverage[patch]"].value
    assert second["mmd_rbf[patch]"].value > first["mmd_rbf[patch]"].value
    assert second["mode_kl[patch]"].value > first["mode_kl[patch]"].value
    assert second["is[patch]"].value == pytest.approx(1)
    assert (second["modes[patch]"].value, second["sharpness"].value) == (1, 0)


def test_names_and_descriptions_are_told_once_each() -> None:
    names = catalogue.names()
    assert len(set(names)) == len(names) == len(catalogue.METRICS)
    assert all(catalogue.descriptions()[name] for name in names)


def test_a_code_key_depends_on_the_metric_alone() -> None:
    keys = {metric.name: catalogue.code_key(metric) for metric in catalogue.METRICS}
    assert len(set(keys.values())) == len(keys)
    assert keys == {metric.name: catalogue.code_key(metric) for metric in catalogue.METRICS}
