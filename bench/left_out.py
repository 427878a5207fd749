"""What of a matrix cannot be run here, and why: data not there or of another task, draws the machine cannot make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from baselines import registry
from baselines.config import build_config
from baselines.contract import GenerativeModel
from baselines.diffusion.acceleration import acceleration_of
from baselines.errors import MissingDataError, UserError
from baselines.types import Draw
from bench.job import Setup
from bench.matrix import Wanted
from bench.plan import misfit, open_dataset

_OF_THE_MACHINE = ("compile", "graph")
"""Options of a draw that need what a machine may lack: a compiler, a GPU."""


def available(wanted: Sequence[Wanted], setup: Setup) -> tuple[list[Wanted], dict[str, str]]:
    """What can be run where a data set of a matrix is not on this machine, and by data set why the rest cannot.

    Raises:
        MissingDataError: if no data set is left.
        UserError: for a data set that is unknown or damaged.
    """
    missing: dict[str, MissingDataError] = {}
    names = dict.fromkeys(item.dataset for item in wanted)
    for name in names:
        try:
            open_dataset(name, setup.data_dir)
        except MissingDataError as error:
            missing[name] = error
    if missing and len(missing) == len(names):
        raise next(iter(missing.values()))
    return [item for item in wanted if item.dataset not in missing], {n: str(e) for n, e in missing.items()}


def fitting(wanted: Sequence[Wanted], setup: Setup) -> tuple[list[Wanted], dict[str, str]]:
    """What models and data sets of one task make of what is wanted, and by `model on data set` why the rest cannot be.

    Raises:
        UserError: if nothing is left.
    """
    unfit: dict[str, str] = {}
    kept = []
    for item in wanted:
        entry, (dataset, _) = registry.load(item.model), open_dataset(item.dataset, setup.data_dir)
        if entry.model.task in dataset.tasks:
            kept.append(item)
        else:
            unfit[f"{entry.name} on {dataset.name}"] = misfit(entry, dataset)
    if unfit and not kept:
        raise UserError("; ".join(f"{pair}: {reason}" for pair, reason in unfit.items()))
    return kept, unfit


def possible(wanted: Sequence[Wanted], setup: Setup) -> tuple[list[Wanted], dict[str, str]]:
    """What this machine can draw of what is wanted, and by `model, draw` what it lacks for the rest.

    A draw that is wrong on every machine stays, and is refused by the plan.
    """
    lacking: dict[str, str] = {}
    kept = []
    for item in wanted:
        pairs = []
        for draw, samples in zip(item.draws, item.samples, strict=True):
            why = _lack(item, draw, setup)
            if why is None:
                pairs.append((draw, samples))
            else:
                lacking[f"{item.model}, {draw.label()}"] = why
        if len(pairs) == len(item.draws):
            kept.append(item)
        elif pairs:
            kept.append(replace(item, draws=tuple(draw for draw, _ in pairs), samples=tuple(n for _, n in pairs)))
    return kept, lacking


def _lack(item: Wanted, draw: Draw, setup: Setup) -> str | None:
    """What the machine lacks for a draw."""
    asked = [name for name in _OF_THE_MACHINE if draw.options.get(name) is True]
    entry = registry.load(item.model) if asked else None
    kind = None if entry is None else entry.model.build
    if entry is None or not (isinstance(kind, type) and issubclass(kind, GenerativeModel)):
        return None
    try:
        kind.check_draw(build_config(entry.model.config, item.config, item.model), draw)
    except UserError as error:
        return str(error) if str(error) in map(_missing, asked) else None
    if "graph" in asked and setup.device == "cpu":
        return "options.graph: CUDA graphs need a GPU, and this run is on the CPU"
    return None


def _missing(option: str) -> str | None:
    """What is said where this machine has not what an option needs."""
    try:
        acceleration_of(Draw(options={option: True}))
    except UserError as error:
        return str(error)
    return None
