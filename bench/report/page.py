"""The report as one HTML file that opens offline: no outside address, every text escaped, a strict CSP."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.report.axes import Axes
from bench.report.grouping import CHOSEN_TOLD
from bench.report.numbers import interval_text, number
from bench.report.parts import Content, Section
from bench.report.rows import Row, Sheet
from bench.report.source import FAMILIES
from bench.report.style import COLOURS
from bench.report.trilemma import CORNERS, triangle


@dataclass(frozen=True)
class TriangleView:
    """A model's triangle with its numbers, ready to be drawn."""

    title: str
    family: str
    points: tuple[tuple[str, str], ...]  # SVG coordinates, y downwards
    known: tuple[bool, ...]
    numbers: tuple[tuple[str, str, str], ...]  # (name, value, interval)
    told: str  # all of it in words


def render_page(content: Content) -> str:
    """The whole page.

    Scripts and styles are the page's own, admitted by their hashes; images are data addresses.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = data_uri
    css = ":root{" + "".join(f"--{family}:{hue};" for family, hue in COLOURS.items()) + "}\n" + _read("style.css")
    script = _read("report.js")
    page = environment.from_string(_read("page.html.jinja")).render(
        content=content,
        css=Markup(css),
        script=Markup(script),
        csp=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_hash(css)}'; script-src '{_hash(script)}'"
        ),
        triangles={
            section.slug: [triangle_view(row, at, section.sheet) for row, at in section.placed]
            for section in content.sections
        },
        outline=" ".join(f"{x:.3f},{-y:.3f}" for x, y in CORNERS),
        corners=[(f"{x:.3f}", f"{-y:.3f}") for x, y in CORNERS],
        families=FAMILIES,
        chosen=CHOSEN_TOLD,
        groups=[(section, _groups(section)) for section in content.sections],
    )
    return page.rstrip() + "\n"


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


def triangle_view(row: Row, at: Axes, sheet: Sheet) -> TriangleView:
    """Coordinates and words of one triangle."""
    told = (("FD", sheet.quality), ("coverage", sheet.coverage), ("recall", sheet.recall), ("images/s", sheet.speed))
    numbers = []
    for name, metric in told:
        score = row.scores.get(metric or "")
        value = "–" if score is None else number(score.value)
        numbers.append((name, value, "" if score is None else interval_text(score)))
    names = zip(("quality", "coverage", "speed"), at, strict=True)
    words = ", ".join(f"{name} {'unknown' if v is None else f'{v + 0.0:.2f}'}" for name, v in names)
    return TriangleView(
        title=row.short,
        family=row.model.family,
        points=tuple((f"{x:.3f}", f"{-y:.3f}") for x, y in triangle(at)),
        known=tuple(v is not None for v in at),
        numbers=tuple(numbers),
        told=f"{row.label}: {words} (0 and 1 are the run's endpoints); "
        + ", ".join(f"{name} {value}{f' ({span})' if span else ''}" for name, value, span in numbers),
    )


def _groups(section: Section) -> list[tuple[str, list[object]]]:
    """The section's figures under the headings where they stand."""
    heads = (
        ("Quality against time", ("quality-",)),
        ("Likelihood", ("likelihood-", "directions-", "bits-", "context-", "terms-")),
        ("Latent spaces", ("latent-",)),
        ("Training", ("validation-", "losses-", "collapse-")),
        ("How models work, in numbers", ("chart-",)),
    )
    groups = [(head, [p for p in section.pictures if p.name.startswith(starts)]) for head, starts in heads]
    return [(head, list(pictures)) for head, pictures in groups if pictures]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (resources.files("bench.report") / "templates" / name).read_text(encoding="utf-8")
