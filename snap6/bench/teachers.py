"""Models that learn from other models' checkpoints: which training teaches which, and in which order they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baselines import registry
from baselines.config import build_config, config_values
from baselines.contract import Distils
from baselines.errors import UserError
from bench.job import Job
from bench.matrix import Wanted


def teacher_of(entry: registry.Entry, config: Any, wanted: Wanted, candidates: Sequence[Wanted]) -> Wanted | None:
    """The first candidate of the same data set and seed that can teach this model; None if it learns by itself.

    Raises:
        UserError: if there is none, saying what to add.
    """
    kind = entry.model.build
    if not (isinstance(kind, type) and issubclass(kind, Distils)):
        return None
    name, needs = kind.teacher(config)
    refusals = []
    for candidate in candidates:
        if (candidate.model, candidate.dataset, candidate.seed) != (name, wanted.dataset, wanted.seed):
            continue
        theirs = config_values(build_config(registry.load(name).model.config, candidate.config, name))
        wrong = [
            f"{name}.{key}: expected {value!r}, got {theirs.get(key)!r}"
            for key, value in needs.items()
            if theirs.get(key) != value
        ]
        if not wrong:
            return candidate
        refusals.append(", ".join(wrong))
    who = f"{entry.name}-{wanted.dataset} seed {wanted.seed}"
    if refusals:
        raise UserError(f"{who}: the {name!r} of this run cannot teach it: {'; '.join(dict.fromkeys(refusals))}")
    raise UserError(
        f"{who}: it learns from a trained {name!r} of the same data set and seed, and this run has none; "
        f'add [[models]] model = "{name}" to the matrix, or --model {name}'
    )


def waves(jobs: Sequence[Job]) -> list[list[Job]]:
    """The trainings in groups to be run one after another: nobody's teacher is in its own group or a later one."""
    left, found = list(jobs), list[list[Job]]()
    while left:
        waiting = {job.train_key for job in left}
        now = [job for job in left if job.teacher is None or job.teacher.train_key not in waiting]
        assert now, "a training is its own teacher"
        found.append(now)
        left = [job for job in left if job not in now]
    return found
