"""Writes the report's files: index.html, report.md, table.csv, tables.tex and figures/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import store
from bench.plain_text import csv_frame
from bench.report.content import gather
from bench.report.folder import check_writable, put, unwritable
from bench.report.forks import hands, later
from bench.report.grids import enlarged
from bench.report.latex import render_latex
from bench.report.markdown import render_markdown
from bench.report.page import csv_of, render_page
from bench.report.parts import Changes, Content
from bench.report.rows import Sheet
from bench.report.source import Source
from bench.report.style import Picture, papers


def write(source: Source, out: Path, changes: Changes | None, pdf: bool) -> tuple[Path, tuple[Sheet, ...]]:
    """See `bench.report.write_report`; also the sheets of the data sets."""
    check_writable(out)
    # no old PDF stands beside a new SVG
    with hands(), papers(lambda name: pdf or (out / "figures" / f"{name}.pdf").is_file()):
        table = later(lambda: _table(source))
        content = gather(source, changes)
    files = _files(content) | {"table.csv": table.result()}
    try:
        for name, data in files.items():
            put(out / name, data)
    except OSError as error:
        raise unwritable(out, error) from error
    return out / "index.html", content.sheets


def _table(source: Source) -> bytes:
    frame = csv_frame(store.table(source.records))
    return frame.to_csv(index=False, lineterminator="\n").encode(errors="backslashreplace")


def _files(content: Content) -> dict[str, bytes]:
    """The files of a report by their names, but for the table."""
    files: dict[str, bytes] = {
        "index.html": render_page(content).encode(errors="xmlcharrefreplace"),
        "report.md": render_markdown(content).encode(errors="backslashreplace"),
        "tables.tex": render_latex(content).encode(errors="backslashreplace"),
    }
    for picture in _pictures(content):
        files[f"figures/{picture.name}.svg"] = picture.svg
        files[f"figures/{picture.name}.png"] = picture.png
        if picture.pdf is not None:
            files[f"figures/{picture.name}.pdf"] = picture.pdf
        if picture.data is not None:
            files[f"figures/{picture.name}.csv"] = csv_of(picture.data).encode(errors="backslashreplace")
    for section in content.sections:
        for i, grid in enumerate(section.grids):
            files[f"figures/samples-{section.slug}-{i}.png"] = enlarged(grid)
        for i, held in enumerate(section.strips):
            for j, strip in enumerate(held.strips):
                files[f"figures/strip-{section.slug}-{i}-{j}.png"] = enlarged(strip.picture)
    return files


def _pictures(content: Content) -> Iterator[Picture]:
    for section in content.sections:
        yield from (p for p in (section.trilemma, section.map) if p is not None)
        yield from section.pictures
        if section.steps is not None:
            yield from section.steps.pictures
    for calibration in content.calibrations:
        yield from calibration.pictures
    if content.beside is not None:
        yield from (group.picture for group in content.beside.groups if group.picture is not None)
