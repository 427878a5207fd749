"""What of a matrix cannot be run here, and why: data that is not there, and models of another task than the data's."""

from __future__ import annotations

from collections.abc import Sequence

from baselines import registry
from baselines.errors import MissingDataError, UserError
from bench.job import Setup
from bench.matrix import Wanted
from bench.plan import misfit, open_dataset


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
