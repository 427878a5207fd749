"""All that a report says, gathered once and free of markup; the HTML page and the Markdown file render it."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from baselines.errors import UserError
from bench.record import Record
from bench.report import (
    calibration_plots,
    charts,
    curves,
    latent_maps,
    oracle_plots,
    over_training,
    pixel_maps,
    plots,
    steps_plots,
    terms_plot,
    trilemma,
)
from bench.report.artifacts import artifact_of, read_images
from bench.report.axes import Axes, axes_told, drawable, endpoints, formulas
from bench.report.calibration import calibration_table, study_of, verdicts
from bench.report.coverage import coverage_table, shipped_study
from bench.report.directions import directions
from bench.report.exact_table import exact_table
from bench.report.findings import findings
from bench.report.grids import Grid, grid
from bench.report.grouping import make_sheet
from bench.report.marks import commonest_protocol, flat
from bench.report.published import published_likelihoods, published_over_steps, published_tables
from bench.report.rows import Row, Sheet
from bench.report.side_tables import (
    cost_table,
    likelihood_table,
    models_table,
    other_table,
    protocol_table,
    provenance_table,
    skipped_table,
)
from bench.report.source import Source
from bench.report.steps_findings import steps_findings
from bench.report.steps_table import steps_table
from bench.report.strips import StripSet
from bench.report.style import Picture
from bench.report.tables import Table, main_table
from bench.report.trainings import charts_of, courses_of, curves_of, latent_maps_of, maps_of, strips_of, terms_of
from bench.variants import told_apart


@dataclass(frozen=True)
class Failure:
    """A cell that failed or ran out of time."""

    label: str
    status: str
    error: str
    rerun: str  # a command line


@dataclass(frozen=True)
class Steps:
    """What steps buy: draws of one checkpoint over the number of network calls."""

    findings: tuple[str, ...]
    exact_picture: Picture | None  # of a model that knows its samples' moments, beside a trained one
    exact: Table | None
    sampled: tuple[Picture, ...]
    table: Table | None
    published: Table

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Its figures in their order."""
        return self.sampled if self.exact_picture is None else (self.exact_picture, *self.sampled)


@dataclass(frozen=True)
class Section:
    """What is said of one data set."""

    sheet: Sheet
    slug: str  # for file names and anchors
    findings: tuple[str, ...]
    formulas: tuple[str, ...]
    missing: tuple[str, ...]  # axes that cannot be drawn, and why
    placed: tuple[tuple[Row, Axes], ...]
    trilemma: Picture | None  # map and triangles in one, for the README
    map: Picture | None  # the map alone, for the page, which draws the triangles itself
    pictures: tuple[Picture, ...]
    steps: Steps | None
    strips: tuple[StripSet, ...]
    grids: tuple[Grid, ...]
    main: Table
    cost: Table
    likelihood: Table
    published: Table | None  # likelihoods of the same data that papers give
    other: Table | None


@dataclass(frozen=True)
class Calibration:
    """What is said of the metrics themselves on one data set."""

    dataset: str
    slug: str
    verdicts: tuple[str, ...]
    pictures: tuple[Picture, ...]
    table: Table


@dataclass(frozen=True)
class Content:
    """The whole report."""

    title: str
    matrix: str
    headline: tuple[str, ...]  # device and protocol, for the first screen
    sections: tuple[Section, ...]
    calibrations: tuple[Calibration, ...]
    coverage: Table | None  # of the intervals; shown beside a calibration
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]  # unreadable lines, stale records, damaged artifacts
    tables: tuple[Table, ...]  # skipped, models, protocol, provenance
    published: tuple[Table, ...]


def gather(source: Source) -> Content:
    """Compute every table, sentence and figure of a report."""
    notes = [f"{problem}" for problem in source.problems]
    if source.stale:
        one = len(source.stale) == 1
        notes.append(
            f"{len(source.stale)} stale record{' is' if one else 's are'} left out: code, config, data or measuring "
            f"options changed since. Run the matrix again to replace {'it' if one else 'them'}: "
            + ", ".join(sorted({r.cell.label() for r in source.stale}))
        )
    notes += [f"{dataset} is left out: it was not on the machine that ran the matrix" for dataset in source.missing]
    slugs = _slugs(source.datasets)
    sheets = [make_sheet(source, dataset) for dataset in source.datasets]
    compared = [sheet for sheet in sheets if sheet.rows or not sheet.corrupted]
    sections = tuple(_section(source, sheet, slugs[sheet.dataset], notes) for sheet in compared)
    calibrations = tuple(_calibrations(sheets, slugs))
    tables = (skipped_table(sheets), models_table(sheets), protocol_table(sheets), provenance_table(source.records))
    return Content(
        title=source.title,
        matrix=source.matrix,
        headline=tuple(_headline(source.records, sheets)),
        sections=sections,
        calibrations=calibrations,
        coverage=coverage_table(shipped_study()) if calibrations else None,
        failures=tuple(_failures(source)),
        notes=tuple(dict.fromkeys(notes)),
        tables=tuple(table for table in tables if table is not None),
        published=tuple(published_tables()),
    )


def _calibrations(sheets: Iterable[Sheet], slugs: Mapping[str, str]) -> Iterator[Calibration]:
    for sheet in sheets:
        study, slug = study_of(sheet), slugs[sheet.dataset]
        if study is not None:
            yield Calibration(
                sheet.dataset,
                slug,
                tuple(verdicts(study)),
                tuple(calibration_plots.pictures(f"calibration-{slug}", study)),
                calibration_table(study, sheet),
            )


def _section(source: Source, sheet: Sheet, slug: str, notes: list[str]) -> Section:
    ends = endpoints(sheet)
    placed = drawable(sheet.models, sheet, ends)
    trained = curves_of(source, sheet, notes)
    maps, shares = maps_of(source, sheet, notes), _context_shares(sheet)
    pictures = (
        plots.quality_against_latency(f"quality-latency-{slug}", sheet),
        plots.quality_against_throughput(f"quality-throughput-{slug}", sheet),
        plots.likelihood_by_kind(f"likelihood-{slug}", sheet),
        directions(f"directions-{slug}", sheet),
        pixel_maps.bits(f"bits-{slug}", maps),
        pixel_maps.contexts(f"context-{slug}", maps, shares),
        latent_maps.picture(f"latent-{slug}", latent_maps_of(source, sheet, notes)),
        terms_plot.terms(f"terms-{slug}", terms_of(source, sheet, notes)),
        curves.validation(f"validation-{slug}", trained),
        curves.losses(f"losses-{slug}", trained),
        over_training.collapse(f"collapse-{slug}", courses_of(source, sheet, notes)),
        *charts.pictures(f"chart-{slug}", charts_of(source, sheet, notes)),
    )
    mapped = any(at.quality is not None and at.coverage is not None for _, at in placed)
    return Section(
        sheet=sheet,
        slug=slug,
        findings=tuple(findings(sheet)),
        formulas=tuple(formulas(ends)) if axes_told(sheet) else (),
        missing=tuple(ends.missing()) if axes_told(sheet) else (),
        placed=tuple(placed),
        trilemma=trilemma.picture(f"trilemma-{slug}", sheet, placed, ends) if placed else None,
        map=trilemma.map_picture(f"map-{slug}", sheet, placed) if mapped else None,
        pictures=tuple(picture for picture in pictures if picture is not None),
        steps=_steps(slug, sheet),
        strips=tuple(strips_of(source, sheet, notes)),
        grids=tuple(_grids(source, sheet, notes)),
        main=main_table(sheet),
        cost=cost_table(sheet),
        likelihood=likelihood_table(sheet),
        published=published_likelihoods(sheet.dataset),
        other=other_table(sheet),
    )


def _steps(slug: str, sheet: Sheet) -> Steps | None:
    """What is said of steps; exact numbers first, since they have no noise."""
    told, sampled = tuple(steps_findings(sheet)), tuple(steps_plots.pictures(slug, sheet))
    picture, exact = oracle_plots.exact_picture(f"exact-{slug}", sheet), exact_table(sheet)
    if not (told or sampled or exact):
        return None
    return Steps(told, picture, exact, sampled, steps_table(sheet) if sampled else None, published_over_steps())


def _context_shares(sheet: Sheet) -> dict[str, float]:
    """`context_fraction` of each training."""
    return {row.title: s.value for row in sheet.models if (s := row.scores.get("context_fraction")) is not None}


def _grids(source: Source, sheet: Sheet, notes: list[str]) -> list[Grid]:
    """Real images first, then the first samples of every row that stands in the picture, lowest seed."""
    grids: list[Grid] = []
    records = [record for row in sheet.all for record in row.records]
    real = next((r for r in records if artifact_of(r, "real")), None)
    if real is not None:
        grids += _grid(source, real, "real", "Real images", "test split", notes)
    for row in sheet.models:
        if row.shown and row.records:
            first = row.records[0]
            grids += _grid(source, first, "samples", row.short, f"seed {first.cell.seed}", notes)
    return grids


def _grid(source: Source, record: Record, role: str, title: str, note: str, notes: list[str]) -> list[Grid]:
    artifact = artifact_of(record, role)
    if artifact is None:
        return []
    try:
        return [grid(title, note, read_images(source.folder, artifact))]
    except UserError as error:
        notes.append(f"{record.cell.label()}: {error}")
        return []


def _failures(source: Source) -> Iterator[Failure]:
    for record, variant in zip(source.records, told_apart([r.cell for r in source.records]), strict=True):
        if record.status != "ok":
            cell = record.cell
            words = ["trilemma", "run", source.matrix, "--model", cell.model, "--dataset", cell.dataset]
            rerun = shlex.join([*words, "--seed", str(cell.seed)])
            yield Failure(cell.label(variant), record.status, record.error or "no error text", rerun)


def _headline(records: Sequence[Record], sheets: Iterable[Sheet]) -> list[str]:
    """Where it was measured, and by which protocol the quality numbers hold."""
    fields = [flat(dict(r.provenance)) for r in records]
    told = []
    devices = _commonest(f.get("cpu") if f.get("device", "cpu") == "cpu" else f.get("device") for f in fields)
    if devices:
        threads = _commonest(flat(dict(r.provenance)).get("threads") for r in records if r.cell.draw is not None)
        of_threads = f", {threads[0]} thread{'s' if threads[0] != '1' else ''}" if threads else ""
        more = f" and {len(devices) - 1} other devices" if len(devices) > 1 else ""
        told.append(f"Measured on {devices[0]}{of_threads}{more}.")
    versions = [
        f"{name} {v[0]}" for name in ("python", "torch") if (v := _commonest(f.get(f"versions.{name}") for f in fields))
    ]
    commits = _commonest(f.get("commit") for f in fields)
    if commits and commits[0] != "null":
        dirty = " with uncommitted changes" if any(f.get("dirty") == "true" for f in fields) else ""
        versions.append(f"commit {commits[0][:12]}{dirty}")
    if versions:
        told.append(f"{', '.join(versions)}.")
    for sheet in sheets:
        if sheet.quality is None:
            continue
        scores = [row.scores[sheet.quality] for row in sheet.all if sheet.quality in row.scores]
        protocol = flat(json.loads(commonest_protocol(scores)))
        seeds = sorted({seed for row in sheet.models for seed in row.seeds})
        told.append(
            f"{sheet.dataset}: {sheet.quality} of {protocol.get('n', 'unknown N')} samples against the "
            f"{protocol.get('split', 'test')} split; seed{'s' if len(seeds) > 1 else ''} "
            f"{', '.join(map(str, seeds))}."
        )
    return told


def _commonest(values: Iterable[str | None]) -> list[str]:
    return [value for value, _ in Counter(v for v in values if v is not None).most_common()]


def _slugs(datasets: Iterable[str]) -> dict[str, str]:
    """A short name for files and anchors; unlike data sets never share one."""
    slugs: dict[str, str] = {}
    for dataset in datasets:
        slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")[-40:].strip("-") or "data"
        while slug in slugs.values():
            slug += "-2"
        slugs[dataset] = slug
    return slugs
