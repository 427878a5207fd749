"""The families side by side: what each model's density is, its latent space, its steps, what it optimises.

All of it is read off the records: kinds of likelihood, settings, executed network calls, names of losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.report.curves import Curve, loss_names
from bench.report.rows import Row, Sheet, base, likelihoods, variant
from bench.report.source import FAMILIES
from bench.report.tables import Column, Datum, Line, Table

_SIZES = ("latent", "code")
"""Settings that give the dimensions of what a model draws first."""

_INTRO = (
    "What the structures promise, read off this run's records. Density: explicit and exact, explicit as a bound, or "
    "implicit (images can be drawn, no probability be had). Latent: whether points of a space of codes are turned into "
    "images, and its dimensions where a setting tells them. Network calls: the fewest and the most of one draw in "
    "this run. Optimised: the losses of each phase of training, as the training noted them."
)


def structures_table(sheet: Sheet, losses: Mapping[str, Sequence[str]]) -> Table | None:
    """A line a model of a data set, the families in their order; None without trained models.

    losses: model -> names of what its training noted, `phase/part`.
    """
    held: dict[str, list[Row]] = {}
    for row in sheet.rows:
        if not row.model.is_oracle:
            held.setdefault(row.model.name, []).append(row)
    if not any(not rows[0].model.is_reference for rows in held.values()):
        return None
    lines = [_line(rows, sheet, losses.get(name, ())) for name, rows in held.items()]
    heads = ("Model", "family", "density", "latent", "network calls a draw", "optimised")
    columns = tuple(Column(head, numeric=False) for head in heads)
    return Table("structures", "The families side by side", _INTRO, columns, tuple(lines))


def structure_of(rows: Sequence[Row], losses: Sequence[str]) -> dict[str, str]:
    """Density, latent, network calls and what is optimised of one model, in words."""
    return {
        "density": _density(rows),
        "latent": _latent(rows),
        "network calls a draw": _calls(rows),
        "optimised": _optimised(losses),
    }


def losses_by_model(curves: Iterable[tuple[str, Curve]]) -> dict[str, list[str]]:
    """Names of losses by model, of (model, curve); the first curve of each counts."""
    found: dict[str, list[str]] = {}
    for model, curve in curves:
        found.setdefault(model, loss_names(curve))
    return found


def _line(rows: Sequence[Row], sheet: Sheet, losses: Sequence[str]) -> Line:
    model = rows[0].model
    told = structure_of(rows, losses)
    calls = [score.value for row in rows if (score := row.scores.get("nfe"))]
    keys: list[float | str | None] = [text.lower() for text in told.values()]
    keys[2] = min(calls, default=None)
    family = FAMILIES[model.family]
    data = (
        Datum(model.title, model.title.lower()),
        Datum(family, list(FAMILIES).index(model.family)),
        *(Datum(text, key) for text, key in zip(told.values(), keys, strict=True)),
    )
    kind = told["density"].partition(":")[0]
    facts = (("family", family), ("density", kind))
    return Line(data, family=model.family, facets=facts, anchor=sheet.blocks.get(model.name, ""))


def _density(rows: Sequence[Row]) -> str:
    scores = [score for row in rows for score in likelihoods(row)]
    kinds = {score.kind for score in scores}
    if "exact" in kinds:
        return "explicit, exact"
    if any(variant(score.metric).startswith("dequantised") for score in scores):
        return "explicit, exact of real numbers: of whole levels a bound (≤)"
    if "upper_bound" in kinds:
        names = dict.fromkeys(variant(score.metric) for score in scores if score.kind == "upper_bound")
        return f"explicit, a bound (≤): {', '.join(names)}"
    if "estimate" in kinds:
        return "explicit, estimated (≈)"
    reasons = {reason for row in rows for metric, reason in row.skipped.items() if base(metric) == "bits_per_dim"}
    return "implicit" if reasons else "not measured"


def _latent(rows: Sequence[Row]) -> str:
    configs = [row.records[0].cell.config for row in rows if row.records]
    sizes = dict.fromkeys(str(c[name]) for c in configs for name in _SIZES if isinstance(c.get(name), int))
    if sizes:
        return f"{', '.join(sizes)} dimensions"
    if any(base(metric) == "ppl" for row in rows for metric in row.scores):
        return "as many dimensions as the image"
    lengths = sorted({c["timesteps"] for c in configs if isinstance(c.get("timesteps"), int)})
    if lengths:
        return f"the image at {', '.join(map(str, lengths))} levels of noise"
    return "none" if any(base(metric) == "ppl" for row in rows for metric in row.skipped) else "not told"


def _calls(rows: Sequence[Row]) -> str:
    calls = [score.value for row in rows if (score := row.scores.get("nfe"))]
    if not calls:
        return "–"
    low, high = (f"{value:,.6g}" for value in (min(calls), max(calls)))
    return low if low == high else f"{low} to {high}"


def _optimised(losses: Sequence[str]) -> str:
    phases: dict[str, list[str]] = {}
    for name in losses:
        phase, _, part = name.partition("/")
        phases.setdefault(phase, []).extend([part.replace("_", " ")] if part not in ("", "loss") else [])
    told = [phase.replace("_", " ") + (f" ({', '.join(parts)})" if parts else "") for phase, parts in phases.items()]
    return "; ".join(told) or "nothing is trained"
