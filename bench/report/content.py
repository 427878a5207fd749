"""All that a report says, gathered once and free of markup; the HTML page and the Markdown file render it."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.record import Record
from bench.report import (
    calibration_plots,
)
from bench.report.beside import beside_of
from bench.report.calibration import calibration_table, study_of, verdicts
from bench.report.coverage import coverage_table, shipped_study
from bench.report.crowd import listed
from bench.report.grouping import make_sheet
from bench.report.marks import commonest_protocol, flat
from bench.report.parts import Calibration, Changes, Content, Failure
from bench.report.published import published_tables
from bench.report.rows import Sheet
from bench.report.sections import section_of
from bench.report.side_tables import (
    models_table,
    protocol_table,
    provenance_table,
    skipped_table,
)
from bench.report.source import Source
from bench.variants import told_apart

_NAMED = 40  # stale cells
_TOLD = 100  # failures told in full


def gather(source: Source, changes: Changes | None = None) -> Content:
    """Compute every table, sentence and figure of a report.

    changes: since another run, to be shown with the rest.
    """
    notes = [f"{problem}" for problem in source.problems]
    if source.stale:
        one = len(source.stale) == 1
        notes.append(
            f"{len(source.stale)} stale record{' is' if one else 's are'} left out: code, config, data or measuring "
            f"options changed since. Run the matrix again to replace {'it' if one else 'them'}: "
            + _some(sorted({r.cell.label() for r in source.stale}))
        )
    notes += [f"{dataset} is left out: it was not on the machine that ran the matrix" for dataset in source.missing]
    slugs = _slugs(source.datasets)
    sheets = tuple(make_sheet(source, dataset) for dataset in source.datasets)
    compared = [sheet for sheet in sheets if sheet.rows or not sheet.corrupted]
    sections = tuple(section_of(source, sheet, slugs[sheet.dataset], notes) for sheet in compared)
    calibrations = tuple(_calibrations(sheets, slugs))
    seen = [listed(sheet) for sheet in sheets]
    tables = (skipped_table(seen), models_table(seen), protocol_table(seen), provenance_table(source.records))
    failures = tuple(_failures(source))
    if len(failures) > _TOLD:
        notes.append(f"{len(failures)} cells failed: the first {_TOLD} are told below, the records have all")
    beside, unread = beside_of(source.folder)
    notes += unread
    return Content(
        title=source.title,
        matrix=source.matrix,
        headline=tuple(_headline(source.records, sheets)),
        sheets=sheets,
        sections=sections,
        calibrations=calibrations,
        coverage=coverage_table(shipped_study()) if calibrations else None,
        failures=failures[:_TOLD],
        notes=tuple(dict.fromkeys(notes)),
        tables=tuple(table for table in tables if table is not None),
        published=tuple(published_tables()),
        changes=changes,
        beside=beside,
    )


def _some(names: Sequence[str]) -> str:
    """The first names, and how many there are more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


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


def _failures(source: Source) -> Iterator[Failure]:
    if all(record.status == "ok" for record in source.records):
        return  # names of a hundred thousand cells take their time
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
        drawn = (r.cell.draw is not None for r in records)
        threads = _commonest(f.get("threads") for f, of_draw in zip(fields, drawn, strict=True) if of_draw)
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
        scored = (row for row in sheet.all if sheet.quality in row.scores)
        protocol = flat(json.loads(commonest_protocol(row.protocol(sheet.quality) for row in scored)))
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
