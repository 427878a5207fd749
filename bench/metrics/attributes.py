"""Whether images show what was asked for, as the data set's own classifier of attributes judges.

The classifier learnt from real images of the train split alone, and no model sees it. A caption's or a domain's values
count as met where the judge's most probable value is the one that was asked for.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from baselines.given import Requests
from baselines.types import ImageShape
from bench.metrics.base import Array, Subject
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.extractors import OWN_CLASSIFIER
from bench.metrics.features import protocol_of_images
from bench.record import Measurement, Scope


@cache
def _opened(name: str) -> ClassifierExtractor:
    return ClassifierExtractor(SPECS[name])


def judge_for(dataset: str) -> ClassifierExtractor | None:
    """The classifier of a data set's attributes; None if it has none."""
    name = OWN_CLASSIFIER.get(dataset)
    return _opened(name) if name is not None and SPECS[name].attributes else None


def judgements(subject: Subject) -> dict[str, Array]:
    """Log-probability of each value of each attribute, (N, values) by its name, of the generated images."""
    assert subject.dataset is not None
    assert subject.generated is not None
    judge = judge_for(subject.dataset.name)
    assert judge is not None
    key = f"judgements {judge.name} {subject.generated.content()}"
    if key not in subject.cache:
        shape: ImageShape = subject.generated.shape
        parts = [judge.judge(batch, shape.levels) for batch in subject.generated.batches(1000)]
        subject.cache[key] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found: dict[str, Array] = subject.cache[key]
    return found


def asked_for(subject: Subject) -> Requests:
    """The request that each generated image answers, in order.

    A translation has no chance in it, and what it is asked a second time it answers the same: those go uncounted.
    """
    assert subject.requests is not None
    assert subject.generated is not None
    n = len(subject.generated)
    return subject.requests.at(0, n if subject.requests.given.images is None else min(n, len(subject.requests)))


def missing_judgement(subject: Subject) -> str | None:
    """Why attributes cannot be judged; None if they can."""
    if subject.generated is None:
        return "no samples were drawn"
    if subject.requests is None or subject.requests.attributes is None:
        return "the model was asked for no attributes"
    if subject.dataset is None or judge_for(subject.dataset.name) is None:
        return "the data set has no classifier of attributes"
    return None


class AttributeAccuracy:
    """`attribute_accuracy[NAME]` for each attribute, `[all]` of several at once, `[unseen]` for new combinations.

    Of a translation also `[changed]`: all attributes that had to become another value did, for which leaving an image
    as it was has 0.
    """

    name = "attribute_accuracy"
    description = "Share of images that show what was asked for, as an independent classifier of attributes judges"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken; None if it can."""
        return missing_judgement(subject)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Shares in [0, 1] with Wilson's intervals over the requests."""
        asked, found = asked_for(subject), judgements(subject)
        assert asked.attributes is not None
        wanted = asked.attributes.numpy()
        right = {name: found[name][: len(wanted)].argmax(1) == wanted[:, i] for i, name in enumerate(found)}
        whole = np.all(list(right.values()), axis=0)
        told = [self._share(subject, name, values) for name, values in right.items()]
        if len(told) > 1:
            told.append(self._share(subject, "all", whole))
        if asked.originals is not None and asked.given.attributes is not None:
            to_change = (asked.originals != asked.given.attributes).numpy()
            done = np.stack(list(right.values()), 1)[:, : to_change.shape[1]] | ~to_change
            if to_change.any():
                told.append(self._share(subject, "changed", done.all(1)[to_change.any(1)]))
        unseen = None if asked.unseen is None else asked.unseen.numpy()
        if unseen is not None and unseen.any():
            told.append(self._share(subject, "unseen", whole[unseen]))
        return tuple(told)

    def _share(self, subject: Subject, name: str, right: NDArray[np.bool_]) -> Measurement:
        assert subject.dataset is not None
        judge = judge_for(subject.dataset.name)
        assert judge is not None
        low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        real = judge.manifest["of_attributes"]
        limit = real.get("all" if name in ("unseen", "changed") else name, judge.manifest["accuracy"]["test"])
        return Measurement(
            metric=f"{self.name}[{name}]",
            value=float(right.mean()),
            unit="",
            better="higher",
            n=len(right),
            scope=self.scope,
            low=float(low),
            high=float(high),
            protocol=protocol_of_images(subject, self.version, judge={"name": judge.name, **judge.identity()}),
            note=f"on real test images the judge {judge.name} is right in {limit:.3f}; Wilson interval",
        )
