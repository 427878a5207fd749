"""All that is said of one data set: sentences, figures, pictures and tables."""

from __future__ import annotations

from dataclasses import replace

from baselines.errors import UserError
from bench.record import Record
from bench.report import (
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
from bench.report.artifacts import Images, artifact_of, read_images
from bench.report.axes import axes_told, drawable, endpoints, formulas
from bench.report.blocks import anchors, blocks_of
from bench.report.crowd import FEW_PANELS, listed, thinned, told
from bench.report.directions import directions
from bench.report.exact_table import exact_table
from bench.report.findings import findings
from bench.report.forks import later
from bench.report.grids import Grid, grids_within
from bench.report.parts import Section, Steps
from bench.report.published import published_likelihoods, published_over_steps
from bench.report.rows import Sheet
from bench.report.side_tables import cost_table, likelihood_table, other_table
from bench.report.source import Source
from bench.report.steps_findings import steps_findings
from bench.report.steps_table import steps_table
from bench.report.structures import losses_by_model, structures_table
from bench.report.tables import main_table
from bench.report.trainings import charts_of, courses_of, curves_of, latent_maps_of, maps_of, strips_of, terms_of

_ROOM = 1_400_000
"""Bytes that the grids of all data sets may take in the page."""


def section_of(source: Source, sheet: Sheet, slug: str, notes: list[str]) -> Section:
    sentences = later(lambda: tuple(findings(sheet)))
    ends, few = endpoints(sheet), thinned(sheet)
    few = replace(few, blocks=anchors(slug, few))
    lines = replace(listed(sheet), blocks=few.blocks)
    placed = drawable(few.models, few, ends)
    mapped = any(at.quality is not None and at.coverage is not None for _, at in placed)
    corners = trilemma.picture(f"trilemma-{slug}", few, placed, ends) if placed else None  # the longest to draw, first
    trained = curves_of(source, few, notes)
    first = list(dict.fromkeys(title for _, title, _, _ in trained))[: FEW_PANELS if few.left_out else None]
    maps, shares = maps_of(source, few, notes), _context_shares(few)
    pictures = (
        plots.quality_against_latency(f"quality-latency-{slug}", few),
        plots.quality_against_throughput(f"quality-throughput-{slug}", few),
        plots.likelihood_by_kind(f"likelihood-{slug}", few),
        directions(f"directions-{slug}", few),
        pixel_maps.bits(f"bits-{slug}", maps),
        pixel_maps.contexts(f"context-{slug}", maps, shares),
        latent_maps.picture(f"latent-{slug}", latent_maps_of(source, few, notes)),
        terms_plot.terms(f"terms-{slug}", terms_of(source, few, notes)),
        curves.validation(f"validation-{slug}", trained),
        curves.losses(f"losses-{slug}", [held for held in trained if held[1] in first]),
        over_training.collapse(f"collapse-{slug}", courses_of(source, few, notes)),
        *charts.pictures(f"chart-{slug}", charts_of(source, few, notes)),
    )
    grids, strips = _grids(source, few, notes), tuple(strips_of(source, few, notes))
    failed = [(r, r.cell.label()) for r in source.records if r.status != "ok" and r.cell.dataset == sheet.dataset]
    return Section(
        sheet=sheet,
        slug=slug,
        findings=sentences.result(),
        thinned=told(sheet, few),
        formulas=tuple(formulas(ends)) if axes_told(sheet) else (),
        missing=tuple(ends.missing()) if axes_told(sheet) else (),
        placed=tuple(placed),
        trilemma=corners,
        map=trilemma.map_picture(f"map-{slug}", few, placed) if mapped else None,
        pictures=tuple(picture for picture in pictures if picture is not None),
        steps=_steps(slug, few),
        strips=strips,
        anchors=few.blocks,
        grids=tuple(grids),
        structures=structures_table(few, losses_by_model((m.name, curve) for m, _, _, curve in trained)),
        blocks=tuple(blocks_of(few, trained, [held.title for held in grids], [held.title for held in strips], failed)),
        main=main_table(lines),
        cost=cost_table(lines),
        likelihood=likelihood_table(lines),
        published=published_likelihoods(sheet.dataset),
        other=other_table(lines),
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
    held: list[tuple[str, str, Images]] = []
    records = [record for row in sheet.all for record in row.records]
    real = next((r for r in records if artifact_of(r, "real")), None)
    if real is not None:
        held += _images(source, real, "real", "Real images", "test split", notes)
    for row in sheet.models:
        if row.shown and row.records:
            first = row.records[0]
            held += _images(source, first, "samples", row.short, f"seed {first.cell.seed}", notes)
    return grids_within(_ROOM // len(source.datasets), held)


def _images(
    source: Source, record: Record, role: str, title: str, note: str, notes: list[str]
) -> list[tuple[str, str, Images]]:
    artifact = artifact_of(record, role)
    if artifact is None:
        return []
    try:
        return [(title, note, read_images(source.folder, artifact))]
    except UserError as error:
        notes.append(f"{record.cell.label()}: {error}")
        return []
