"""Writes the report's files: index.html, report.md, table.csv and figures/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from baselines.errors import UserError
from bench import store
from bench.report.content import Content, gather
from bench.report.grids import enlarged
from bench.report.markdown import render_markdown
from bench.report.page import render_page
from bench.report.source import open_results
from bench.report.style import Picture


def write(results: Path, out: Path) -> Path:
    """See `bench.report.write_report`."""
    source = open_results(results)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from error
    content = gather(source)
    files: dict[str, bytes] = {
        "index.html": render_page(content).encode(),
        "report.md": render_markdown(content).encode(),
        "table.csv": store.table(source.records).to_csv(index=False, lineterminator="\n").encode(),
    }
    for picture in _pictures(content):
        files[f"figures/{picture.name}.svg"] = picture.svg
        files[f"figures/{picture.name}.png"] = picture.png
    for section in content.sections:
        for i, grid in enumerate(section.grids):
            files[f"figures/samples-{section.slug}-{i}.png"] = enlarged(grid)
    try:
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise _unwritable(out, error) from error
    return out / "index.html"


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"report: cannot write in {out}: {error.strerror or error}; choose another folder with -o")


def _pictures(content: Content) -> Iterator[Picture]:
    for section in content.sections:
        yield from (p for p in (section.trilemma, section.map) if p is not None)
        yield from section.pictures
