"""R-precision: whether a caption is the one, among many, that fits the image best that was made for it.

Xu et al. 2018, arXiv:1711.10485 (AttnGAN, section 4.1), with R = 1 and 99 mismatched captions; the fit is, in place of
their learned similarity, the log-probability of all that a caption says, as the data set's own classifier of attributes
judges the image. Captions that say the same in other words do not count as mismatched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from bench.metrics.attributes import asked_for, judge_for, judgements, missing_judgement
from bench.metrics.base import Array, Subject
from bench.metrics.features import generator, protocol_of_images
from bench.record import Measurement, Scope

OTHERS = 99
_BLOCK = 500

Values = NDArray[np.int64]


def joint(log_probabilities: list[Array], values: Values) -> Array:
    """log P of images showing values, the sum over attributes: (N, K) of values (N, K, A) and A arrays (N, choices)."""
    rows = np.arange(len(values))[:, None]
    found: Array = np.sum([part[rows, values[..., a]] for a, part in enumerate(log_probabilities)], axis=0)
    return found


def mismatched(own: Values, pool: Values, others: int, rng: np.random.Generator) -> Values:
    """For each of own (N, A), `others` rows of pool (M, A) that say something else, each row at most once: indices.

    Returns:
        (N, others) int64; every choice is equally likely.

    Raises:
        ValueError: if there are too few such rows.
    """
    equal = (own[:, None] == pool[None]).all(2)
    if len(own) and (~equal).sum(1).min() < others:
        raise ValueError(f"expected {others} captions that say something else, got {int((~equal).sum(1).min())}")
    keys = np.where(equal, 2.0, rng.random(equal.shape))
    return np.argpartition(keys, others - 1, axis=1)[:, :others]


def ranked_first(own: Array, others: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whether own (N,) is above all of others (N, K); among equal ones chance decides."""
    ahead, equal = (others > own[:, None]).any(1), (others == own[:, None]).sum(1)
    first: NDArray[np.bool_] = ~ahead & (rng.random(len(own)) < 1 / (1 + equal))
    return first


class RPrecision:
    """`r_precision[all]`, and `[unseen]` of captions whose combination no training image has."""

    name = "r_precision"
    description = f"Share of images whose own caption fits them better than {OTHERS} mismatched ones, by the judge"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken; None if it can."""
        reason = missing_judgement(subject)
        if reason is not None:
            return reason
        assert subject.requests is not None
        assert subject.requests.attributes is not None
        if subject.requests.given.tokens is None:
            return "the model was given no captions"
        _, counts = np.unique(subject.requests.attributes.numpy(), axis=0, return_counts=True)
        fewest = len(subject.requests) - int(counts.max())
        if fewest < OTHERS:
            return f"needs {OTHERS} mismatched captions for each image, got {fewest}"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Shares in [0, 1] with Wilson's intervals over the images."""
        assert subject.requests is not None
        assert subject.requests.attributes is not None
        asked, parts = asked_for(subject), list(judgements(subject).values())
        assert asked.attributes is not None
        own, pool = asked.attributes.numpy(), subject.requests.attributes.numpy()
        rng = generator(subject, "r precision")
        first = []
        for start in range(0, len(own), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = [part[rows] for part in parts]
            others = pool[mismatched(own[rows], pool, OTHERS, rng)]
            first.append(ranked_first(joint(block, own[rows][:, None])[:, 0], joint(block, others), rng))
        found = np.concatenate(first)
        told = [self._share(subject, "all", found)]
        unseen = None if asked.unseen is None else asked.unseen.numpy()
        if unseen is not None and unseen.any():
            told.append(self._share(subject, "unseen", found[unseen]))
        return tuple(told)

    def _share(self, subject: Subject, name: str, first: NDArray[np.bool_]) -> Measurement:
        assert subject.dataset is not None
        judge = judge_for(subject.dataset.name)
        assert judge is not None
        low, high = binomtest(int(first.sum()), len(first)).proportion_ci(method="wilson")
        return Measurement(
            metric=f"{self.name}[{name}]",
            value=float(first.mean()),
            unit="",
            better="higher",
            n=len(first),
            scope=self.scope,
            low=float(low),
            high=float(high),
            protocol=protocol_of_images(
                subject, self.version, judge={"name": judge.name, **judge.identity()}, mismatched=OTHERS
            ),
            note=f"chance is {1 / (OTHERS + 1):g}; mismatched captions are other test captions; Wilson interval",
        )
