"""Matplotlib's SVG files made small: the same picture in a fifth of the bytes, and the same bytes each time."""

from __future__ import annotations

import re

HALO = "halo"
"""Prefix of the ids of texts that have a white rim, so that they are read over lines and marks."""

_RIM = 'style="stroke:#fff;stroke-width:{width};stroke-linejoin:round"'
_UNITS = 0.015625  # of a glyph's outline in the font's size: matplotlib draws texts at scale size * 1/64
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE[^>]*>", re.S)
_SMALL = 0.2
_NUMBER = re.compile(r"-?\d+\.\d+")
_DRAWN = re.compile(r'\b(d|x|y|transform|style)="([^"]*)"')
_LETTER = re.compile(r'(<use xlink:href="[^"]*") transform="translate\(([-\d.]+ [-\d.]+)\)"/>')
_ALIKE = re.compile(r'<g( clip-path="[^"]*")?>(<use [^>]* style="([^"]*)"/>(?:<use [^>]* style="\3"/>)+)</g>')


def slim(svg: bytes) -> bytes:
    """Drop what no viewer shows, round to a hundredth of a point, name clip paths in their order.

    Matplotlib hashes coordinates for the names of clip paths, and their last digits vary with the layout's solver.

    Args:
        svg: a file that matplotlib wrote with `svg.fonttype: path`; texts with ids that begin with `HALO` get a rim.

    Returns:
        The SVG file as UTF-8, without double quotes or line breaks inside of its elements' content.
    """
    text = _DROPPED.sub("", svg.decode())
    text = _DRAWN.sub(_short, text)
    text = re.sub(r">\s+<", "><", text)
    text = text.replace("DejaVuSans-Bold-", "b").replace("DejaVuSans-Oblique-", "o").replace("DejaVuSans-", "g")
    text = re.sub(r'<g id="(?!' + HALO + r')[^"]*"', "<g", text)
    text = _named(text)
    text = _LETTER.sub(_placed, text)
    text = _hoisted(text)
    text = re.sub(r"<g></g>", "", text)
    return _rims(text).replace("?><svg", "?>\n<svg").strip().encode() + b"\n"


def _placed(match: re.Match[str]) -> str:
    """A letter's place within its text: x and y in place of a translation."""
    x, y = match[2].split()
    return f"{match[1]}" + (f' x="{x}"' if x != "0" else "") + (f' y="{y}"' if y != "0" else "") + "/>"


def _short(match: re.Match[str]) -> str:
    name, value = match[1], " ".join(match[2].split())
    value = _NUMBER.sub(_rounded, value)
    if name == "d":
        value = re.sub(r" ?([A-Za-z]) ?", r"\1", value)
    if name == "style":
        value = re.sub(r"([:;,]) +", r"\1", value)
    if name == "transform":
        value = re.sub(r"\) +", ")", value)
    return f'{name}="{value}"'


def _rounded(match: re.Match[str]) -> str:
    """To a hundredth; a scale, which is a small number, keeps its digits."""
    value = float(match[0])
    if 0 < abs(value) < _SMALL:
        return match[0]
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _named(text: str) -> str:
    """Clip paths and marks numbered in their order."""
    marks = {old: f"m{number}" for number, old in enumerate(dict.fromkeys(re.findall(r'id="(m[0-9a-f]{10})"', text)))}
    text = re.sub(r"\bm[0-9a-f]{10}\b", lambda m: marks.get(m[0], m[0]), text)
    found = re.findall(r'<clipPath id="([^"]+)"', text)
    names = {old: f"clip{number}" for number, old in enumerate(dict.fromkeys(found))}
    return re.sub(r'(?<=url\(#)[^)]+(?=\))|(?<=<clipPath id=")[^"]+', lambda m: names.get(m[0], m[0]), text)


def _hoisted(text: str) -> str:
    """A cloud of marks of one style has it once, in its group."""

    def once(match: re.Match[str]) -> str:
        style = f' style="{match[3]}"'
        return f"<g{match[1]}{style}>{match[2].replace(style, '')}</g>"

    return _ALIKE.sub(once, text)


def _rims(text: str) -> str:
    """A copy of each such text behind it, stroked in white."""

    def rim(match: re.Match[str]) -> str:
        size = re.search(r"scale\(([\d.]+)", text[match.end() : match.end() + 400])
        width = 2.5 / (float(size[1]) * _UNITS) if size else 0
        return f'<use xlink:href="#{match[1]}" {_RIM.format(width=round(width))}/>{match[0]}'

    return re.sub(rf'<g id="({HALO}[^"]*)">', rim, text)
