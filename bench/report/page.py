"""The report as one HTML file that opens offline: no outside address, every text escaped, a strict CSP."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.plain_text import cell
from bench.report.axes import Axes
from bench.report.drawn import Data, Mark
from bench.report.grouping import CHOSEN_TOLD
from bench.report.parts import Content, Section
from bench.report.rows import Row
from bench.report.source import FAMILIES
from bench.report.spoken import marks_of, numbers_of
from bench.report.style import COLOURS, Picture
from bench.report.trilemma import CORNERS, triangle

_ROOM = 6000
"""Characters of a figure's numbers that the page holds; the CSV file beside it has all."""

_STRIPS_ROOM = 1_400_000
"""Bytes of pictures of models' workings that the page holds."""

_HEADS = (
    ("Quality against time", "time", ("quality-",)),
    ("Likelihood", "likelihoods", ("likelihood-", "directions-", "bits-", "context-", "terms-")),
    ("Latent spaces", "latents", ("latent-",)),
    ("Training", "training", ("validation-", "losses-", "collapse-")),
    ("How models work, in numbers", "charts", ("chart-",)),
)
"""Headings of a section's figures, their anchors, and how the figures' names begin."""


@dataclass(frozen=True)
class TriangleView:
    """A model's triangle with its numbers, ready to be drawn."""

    title: str
    family: str
    points: tuple[tuple[str, str], ...]  # SVG coordinates, y downwards
    known: tuple[bool, ...]
    numbers: tuple[tuple[str, str, str], ...]  # (name, value, interval)
    told: str  # all of it in words
    tip: str  # likewise, a line each
    anchor: str  # of its model's block


def render_page(content: Content) -> str:
    """The whole page.

    Scripts and styles are the page's own, admitted by their hashes; images are data addresses.
    """
    content = _with_room(content)
    page = rendered(
        "page.html.jinja",
        content=content,
        triangles={
            section.slug: [triangle_view(row, at, section, mark) for (row, at), mark in _marked(section)]
            for section in content.sections
        },
        outline=" ".join(f"{x:.3f},{-y:.3f}" for x, y in CORNERS),
        corners=[(f"{x:.3f}", f"{-y:.3f}") for x, y in CORNERS],
        families=FAMILIES,
        chosen=CHOSEN_TOLD,
        contents=contents_of(content),
        groups=[(section, _groups(section)) for section in content.sections],
    )
    return page


def rendered(template: str, **values: object) -> str:
    """A page of this style: a template with the values, and the style, the scripts and their hashes."""
    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "numbers": numbers_told, "breaks": breaks}
    hues = "".join(f"--{family}:{hue};" for family, hue in COLOURS.items())
    css = f":root{{{hues}}}\n" + _read("style.css") + _read("explore.css")
    script = _read("tables.js") + _read("explore.js")
    csp = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(css)}'; script-src '{_hash(script)}'"
    )
    page = environment.get_template(template).render(values, css=Markup(css), script=Markup(script), csp=csp)
    return page.rstrip() + "\n"


def _with_room(content: Content) -> Content:
    """The content with as many pictures of models' workings as the page has room for; the files have all."""
    room, sections = _STRIPS_ROOM, []
    for section in content.sections:
        kept = []
        for held in section.strips:
            size = sum(len(strip.picture.png) for strip in held.strips)
            if size <= room:
                room -= size
                kept.append(held)
            else:
                note = f"{held.note}: for want of room not in this page, but in figures/strip-{section.slug}-*.png"
                kept.append(replace(held, note=note, strips=()))
        sections.append(replace(section, strips=tuple(kept)))
    return replace(content, sections=tuple(sections))


def data_uri(data: bytes, kind: str) -> str:
    """The address of an image that lies in the page itself, for an attribute in double quotes.

    An SVG is told as text, a quarter shorter than in base64; all that could end the attribute or the address is
    escaped.
    """
    if kind != "image/svg+xml":
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"
    text = " ".join(data.decode().partition("?>")[2].split()).replace('"', "'")
    for sign, code in (("%", "%25"), ("#", "%23"), ("&", "%26")):
        text = text.replace(sign, code)
    assert '"' not in text
    return Markup(f"data:{kind},{text}")


def breaks(text: str) -> Markup:
    """Text that may be broken behind = and _, where names of settings are long."""
    return Markup(re.sub(r"(?<=[=_])(?=[^ ])", "<wbr>", str(escape(text))))


def _marked(section: Section) -> Iterator[tuple[tuple[Row, Axes], Mark]]:
    """The rows of the trilemma picture with what each tells."""
    return zip(section.placed, marks_of([row for row, _ in section.placed], section.sheet), strict=True)


def triangle_view(row: Row, at: Axes, section: Section, mark: Mark) -> TriangleView:
    """Coordinates and words of one triangle."""
    sheet = section.sheet
    numbers = numbers_of(row, sheet)[:4]
    names = zip(("quality", "coverage", "speed"), at, strict=True)
    words = ", ".join(f"{name} {'unknown' if v is None else f'{v + 0.0:.2f}'}" for name, v in names)
    return TriangleView(
        title=row.short,
        family=row.model.family,
        points=tuple((f"{x:.3f}", f"{-y:.3f}") for x, y in triangle(at)),
        known=tuple(v is not None for v in at),
        numbers=tuple(numbers),
        told=f"{row.label}: {words} (0 and 1 are the run's endpoints); " + ", ".join(mark.lines),
        tip="\n".join((mark.title, *mark.lines)),
        anchor=section.anchors.get(row.model.name, "") or f"{section.slug}-models",
    )


def _groups(section: Section) -> list[tuple[str, str, list[Picture]]]:
    """The section's figures under the headings where they stand."""
    groups = [
        (head, anchor, [p for p in section.pictures if p.name.startswith(starts)]) for head, anchor, starts in _HEADS
    ]
    return [(head, anchor, pictures) for head, anchor, pictures in groups if pictures]


def contents_of(content: Content) -> list[tuple[str, list[tuple[str, str]]]]:
    """(part of the page, its links as (title, anchor)) in the page's order."""
    parts = []
    for section in content.sections:
        slug, groups = section.slug, _groups(section)
        found = [
            ("Trilemma", slug, True),
            ("All numbers", f"{slug}-numbers", True),
            ("What do steps buy?", f"{slug}-steps", section.steps is not None),
            ("The families side by side", f"{slug}-structures", section.structures is not None),
            *((head, f"{slug}-{anchor}", True) for head, anchor, _ in groups if head != "Training"),
            ("How models work", f"{slug}-strips", bool(section.strips)),
            ("Samples", f"{slug}-samples", bool(section.grids)),
            *((head, f"{slug}-{anchor}", True) for head, anchor, _ in groups if head == "Training"),
            ("Work, time, memory", f"{slug}-costs", bool(section.cost.lines)),
            ("Further measurements", f"{slug}-further", section.other is not None),
            ("Model by model", f"{slug}-models", bool(section.blocks)),
        ]
        parts.append((section.sheet.dataset, [(title, anchor) for title, anchor, there in found if there]))
    rest = [(content.changes.title, "changes")] if content.changes is not None else []
    rest += [(content.beside.title, "beside")] if content.beside is not None else []
    rest += [(f"Calibration: {c.dataset}", f"calibration-{c.slug}") for c in content.calibrations]
    rest += [(content.coverage.title, "coverage-part")] if content.coverage else []
    rest += [("Failures", "failures")] if content.failures else []
    rest += [(table.title, f"{table.name}-part") for table in content.tables]
    return [*parts, ("All data sets", [*rest, ("Published figures", "published")])]


def numbers_told(picture: Picture) -> dict[str, str | int]:
    """A figure's numbers as CSV, as far as the page has room: {"text", "left": lines that it has no room for}."""
    assert picture.data is not None
    lines = csv_of(picture.data).splitlines()
    length = room = 0
    for line in lines:
        length += len(line) + 1
        if length > _ROOM:
            break
        room += 1
    room = 0 if room < min(3, len(lines)) else room
    return {"text": "\n".join(lines[:room]), "left": len(lines) - room}


def csv_of(data: Data) -> str:
    """A figure's numbers as a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(map(cell, row) for row in [data.heads, *data.rows])
    return buffer.getvalue()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (resources.files("bench.report") / "templates" / name).read_text(encoding="utf-8")
