"""What there is: rows for `trilemma list`."""

from __future__ import annotations

from baselines import registry
from baselines.config import nearest
from baselines.data import catalogue as data_catalogue
from baselines.errors import UserError
from bench import matrix as matrices
from bench.metrics import catalogue as metric_catalogue

KINDS = ("models", "datasets", "metrics", "matrices")


def rows(what: str) -> list[dict[str, str]]:
    """One row of strings for each model, data set, metric or matrix.

    Raises:
        UserError: if `what` is none of these.
    """
    if what == "models":
        return [_model(name) for name in registry.names()]
    if what == "datasets":
        return [{"name": info.name, "what": info.description} for info in data_catalogue.names()]
    if what == "metrics":
        return [{"name": name, "what": text} for name, text in metric_catalogue.descriptions().items()]
    if what == "matrices":
        return [_matrix(name) for name in matrices.shipped()]
    raise UserError(f"list: expected one of {', '.join(KINDS)}, got {what!r}{nearest(what, KINDS)}")


def _model(name: str) -> dict[str, str]:
    entry = registry.load(name)
    task = entry.model.task.replace("_", " ")
    about = {"family": entry.family, "task": task, "title": entry.model.title, "source": entry.model.source}
    return {"name": name, **about}


def _matrix(name: str) -> dict[str, str]:
    _, content = matrices.load(name)
    return {
        "name": name,
        "title": content.title,
        "models": ", ".join(dict.fromkeys(spec.model for spec in content.models)),
        "datasets": ", ".join(content.datasets),
        "seeds": ", ".join(map(str, content.seeds)),
    }
