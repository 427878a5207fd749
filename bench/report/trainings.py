"""What the trainings of a data set left beside their records: curves, terms by timestep, maps, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from baselines.errors import UserError
from bench.record import Record
from bench.report import charts, curves, over_training, pixel_maps
from bench.report.artifacts import Band, artifact_of, read_curve, read_strip, read_terms
from bench.report.grouping import training_of
from bench.report.latent_maps import LatentMap, read_latent_map
from bench.report.rows import Sheet
from bench.report.source import ModelInfo, Source
from bench.report.strips import StripSet, strip

T = TypeVar("T")


def trainings(source: Source, sheet: Sheet) -> Iterator[tuple[str, Record]]:
    """(title, record) of every training of a data set, by seed; the title tells a model's configs apart."""
    titles = {training_of(row.records[0]): row.title for row in sheet.all if row.records}  # the same of every seed
    for record in source.trainings.get(sheet.dataset, ()):
        title = titles.get(training_of(record))
        if title is not None or not sheet.left_out:
            yield title or source.models[record.cell.model].title, record


def curves_of(source: Source, sheet: Sheet, notes: list[str]) -> list[tuple[ModelInfo, str, int, curves.Curve]]:
    """(model, title, seed, rows) of every training curve that can be read."""
    found = []
    for title, record in trainings(source, sheet):
        artifact = artifact_of(record, "curve")
        if artifact is None:
            continue
        try:
            model = source.models[record.cell.model]
            found.append((model, title, record.cell.seed, read_curve(source.folder, artifact)))
        except UserError as error:
            notes.append(f"{record.cell.label()}: {error}")
    order = list(source.models)
    return sorted(found, key=lambda item: order.index(item[0].name))


def maps_of(source: Source, sheet: Sheet, notes: list[str]) -> pixel_maps.Maps:
    """(training, its maps of pixels) of the lowest seed of every training that has some, in the order of the rows."""
    found: dict[str, dict[str, pixel_maps.PixelMap]] = {}
    for title, record in trainings(source, sheet):
        artifact = artifact_of(record, "maps")
        if artifact is None or title in found:
            continue
        try:
            found[title] = pixel_maps.read_maps(source.folder, artifact)
        except UserError as error:
            notes.append(f"{record.cell.label()}: {error}")
    order = list(dict.fromkeys(row.title for row in sheet.all))
    return sorted(found.items(), key=lambda held: order.index(held[0]) if held[0] in order else len(order))


def latent_maps_of(source: Source, sheet: Sheet, notes: list[str]) -> list[tuple[str, LatentMap]]:
    """(training, where codes lie) of the lowest seed of every training that has a map, in the order of the rows."""
    found: dict[str, LatentMap] = {}
    for title, record in trainings(source, sheet):
        artifact = artifact_of(record, "latent_map")
        if artifact is None or title in found:
            continue
        try:
            found[title] = read_latent_map(source.folder, artifact)
        except UserError as error:
            notes.append(f"{record.cell.label()}: {error}")
    order = list(dict.fromkeys(row.title for row in sheet.all))
    return sorted(found.items(), key=lambda held: order.index(held[0]) if held[0] in order else len(order))


def terms_of(source: Source, sheet: Sheet, notes: list[str]) -> list[tuple[str, Band]]:
    """(training and likelihood, terms by timestep) of the lowest seed of every training that noted some."""
    found: dict[str, dict[str, Band]] = {}
    for title, record in trainings(source, sheet):
        artifact = artifact_of(record, "likelihood_curves")
        if artifact is None or title in found:
            continue
        try:
            found[title] = read_terms(source.folder, artifact)
        except UserError as error:
            notes.append(f"{record.cell.label()}: {error}")
    several = any(len(bands) > 1 for bands in found.values())
    return [
        (f"{title}, {name}" if several else title, band)
        for title, bands in found.items()
        for name, band in bands.items()
    ]


def strips_of(source: Source, sheet: Sheet, notes: list[str]) -> Iterator[StripSet]:
    """What each training shows of its workings, lowest seed, in the order of the rows."""
    found: dict[str, StripSet] = {}
    shown: set[str] = set()
    for title, record in trainings(source, sheet):
        made = []
        for artifact in (a for a in record.artifacts if a.role == "strip" and title not in found):
            try:
                made.append(strip(read_strip(source.folder, artifact)))
            except UserError as error:
                notes.append(f"{record.cell.label()}: {error}")
        if made:
            first = record.cell.model not in shown
            found[title] = StripSet(title, f"seed {record.cell.seed}", first, tuple(made))
            shown.add(record.cell.model)
    order = list(dict.fromkeys(row.title for row in sheet.all))
    yield from sorted(found.values(), key=lambda held: order.index(held.title) if held.title in order else len(order))


def charts_of(source: Source, sheet: Sheet, notes: list[str]) -> list[tuple[str, charts.Chart]]:
    """(training, chart) of what trainings show of themselves in numbers, lowest seed; what is the same stands once."""
    found: list[tuple[str, charts.Chart]] = []
    first: dict[str, str] = {}  # of each title the training that is shown
    seen: set[str] = set()
    for title, record in trainings(source, sheet):
        for artifact in (a for a in record.artifacts if a.role == "chart" and a.sha256 not in seen):
            if first.setdefault(title, record.key) != record.key:
                continue
            seen.add(artifact.sha256)
            try:
                found.append((title, charts.read_chart(source.folder, artifact)))
            except UserError as error:
                notes.append(f"{record.cell.label()}: {error}")
    return _in_order(sheet, found)


def courses_of(source: Source, sheet: Sheet, notes: list[str]) -> over_training.Held:
    """(training, seed, scores over training) of every training that drew images meanwhile, in the rows' order."""
    found = []
    for title, record in trainings(source, sheet):
        artifact = artifact_of(record, "over_training")
        if artifact is None:
            continue
        try:
            course = over_training.read_course(source.folder, artifact)
            found.append((title, (title, record.cell.seed, course)))
        except UserError as error:
            notes.append(f"{record.cell.label()}: {error}")
    return [item for _, item in _in_order(sheet, found)]


def _in_order(sheet: Sheet, found: list[tuple[str, T]]) -> list[tuple[str, T]]:
    """(title, anything) by the order of the rows, else as they came."""
    order = list(dict.fromkeys(row.title for row in sheet.all))
    return sorted(found, key=lambda held: order.index(held[0]) if held[0] in order else len(order))
