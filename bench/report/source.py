"""A results folder as a report sees it: current records, stale ones, what could not be read, model families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench import store
from bench.plain_text import printable
from bench.record import Record

FLOOR = "real"
"""The model whose images are real ones of the development split: the floor of FD, the top of coverage."""
CEILING = "histogram"
"""The model of independent pixels: the ceiling of FD."""
CORRUPTED = "corrupted"
"""The model of spoilt real images, by which the metrics themselves are measured; no row of the comparison."""
REFERENCES = "references"
"""The family of models that a deep model must beat."""

FAMILIES = {
    "autoencoders": "Autoencoders",
    "gans": "GANs",
    "autoregressive": "Autoregressive",
    "flows": "Flows",
    "diffusion": "Diffusion",
    "other": "Other",
    REFERENCES: "References",
}
"""Families in the order in which tables and figures show them."""

ORACLES = frozenset({"oracle_gaussian", "oracle_pixels"})
"""Exact denoisers: they show what samplers do, and have learned nothing that could be compared."""

_KNOWN_REFERENCES = frozenset({FLOOR, CEILING, CORRUPTED, "gaussian", "gmm"})


@dataclass(frozen=True)
class ModelInfo:
    """What the run says of one model."""

    name: str
    title: str
    family: str  # a key of FAMILIES
    source: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether it is one of those that a deep model must beat."""
        return self.family == REFERENCES

    @property
    def is_oracle(self) -> bool:
        """Whether it is an exact denoiser and no trained network."""
        return self.name in ORACLES


@dataclass(frozen=True)
class Source:
    """All that a report reads, apart from the artifacts."""

    folder: Path
    title: str
    matrix: str
    records: tuple[Record, ...]  # those that the matrix wants now
    stale: tuple[Record, ...]  # left out, as code, config, data or measuring options changed, and not replaced yet
    problems: tuple[str, ...]  # lines that could not be read
    models: Mapping[str, ModelInfo]
    missing: tuple[str, ...] = ()  # data sets of the matrix that were not on the machine, and have no records

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets in the order of their first record."""
        return tuple(dict.fromkeys(r.cell.dataset for r in self.records))

    @cached_property
    def trainings(self) -> Mapping[str, tuple[Record, ...]]:
        """The records of trainings, by data set, each from the lowest seed."""
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            if record.cell.draw is None:
                found[record.cell.dataset].append(record)
        return {name: tuple(sorted(own, key=lambda r: r.cell.seed)) for name, own in found.items()}


def open_results(folder: Path) -> Source:
    """Read a results folder, torch-free.

    Raises:
        UserError: if the folder is missing, has no current record, or is of a newer schema.
    """
    folder = Path(folder)
    loaded = store.load(folder)
    info = store.read_run(folder)
    wanted = info.get("keys")
    place = None if wanted is None else {key: i for i, key in enumerate(wanted)}
    families = info.get("families")
    known = {r.cell.model for r in loaded.records} if families is None else set(families)

    def is_current(record: Record) -> bool:
        """Wanted by the run; or of a model that it never had, whose record was copied here from another machine."""
        return place is None or record.key in place or record.cell.model not in known

    current = [r for r in loaded.records if is_current(r)]
    kept = {r.cell.label() for r in current if r.status == "ok"}
    old = [r for r in loaded.records if not is_current(r)]
    stale = tuple(r for r in old if r.cell.label() not in kept)
    if not current:
        what = f"{len(stale)} stale records only" if stale else "none"
        raise UserError(f"{folder}: expected records to report, got {what}; run the matrix first: trilemma run")
    if place is not None:
        current.sort(key=lambda r: place.get(r.key, len(place)))
    current = _plain(current)
    return Source(
        folder=folder,
        title=printable(str(info.get("title") or info.get("matrix") or folder.resolve().name)),
        matrix=printable(str(info.get("matrix") or folder.resolve().name)),
        records=tuple(current),
        stale=stale,
        problems=loaded.problems,
        models=_models(current, families or {}),
        missing=_missing(current, info.get("missing", ())),
    )


@lru_cache(maxsize=10_000)
def _is_plain(text: str) -> bool:
    return printable(text) == text


def _plain(records: list[Record]) -> list[Record]:
    """The records without control characters in what figures and tables show: XML, so SVG, has no place for them."""
    seen: dict[int, bool] = {}  # equal configs of records that were read are one object
    fine: set[tuple[str, str, str]] = set()  # metric, unit, note: there are few

    def clean(value: Any) -> bool:
        if isinstance(value, str):
            return _is_plain(value)
        if isinstance(value, Mapping):
            return all(clean(k) and clean(v) for k, v in value.items())
        return not isinstance(value, list | tuple) or all(map(clean, value))

    def config(record: Record) -> bool:
        place = id(record.cell.config)
        if place not in seen:
            seen[place] = clean(record.cell.config)
        return seen[place]

    def good(record: Record) -> bool:
        cell, draw = record.cell, record.cell.draw
        told = (cell.model, cell.dataset, *(() if draw is None else (draw.label(), draw.options)))
        texts = {(m.metric, m.unit, m.note) for m in record.measured} - fine
        if not (config(record) and clean(told) and clean(list(texts))):
            return False
        fine.update(texts)
        return True

    return [record if good(record) else _cleaned(record) for record in records]


def _cleaned(record: Record) -> Record:
    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {clean(k): clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return printable(value) if isinstance(value, str) else value

    plain = Record.from_json(clean(record.as_json()))
    return replace(plain, key=record.key, train_key=record.train_key, artifacts=record.artifacts)


def _missing(records: list[Record], told: Iterable[str]) -> tuple[str, ...]:
    here = {record.cell.dataset for record in records}
    return tuple(name for name in told if name not in here)


def _models(records: list[Record], table: Mapping[str, Any]) -> dict[str, ModelInfo]:
    named = {printable(name): entry for name, entry in table.items()}
    models: dict[str, ModelInfo] = {}
    for name in dict.fromkeys(r.cell.model for r in records):
        entry = table.get(name) or named.get(name)
        entry = entry if isinstance(entry, Mapping) else {}
        family = str(entry.get("family", REFERENCES if name in _KNOWN_REFERENCES else "other"))
        if family == "reference":  # the package's folder is named in the singular
            family = REFERENCES
        models[name] = ModelInfo(
            name=name,
            title=printable(str(entry.get("title") or name)),
            family=family if family in FAMILIES else "other",
            source=printable(str(entry.get("source") or "")),
        )
    return models
