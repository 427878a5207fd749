"""What the page, the figures and the LaTeX tables are made of: small files, all numbers, nothing lost, nothing run."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from bench import store
from bench.peers.many_records import write_many
from bench.record import Record
from bench.report import crowd, write_report
from bench.report.artifacts import Images
from bench.report.drawn import Mark
from bench.report.grids import enlarged, grid, grids_within
from bench.report.grouping import aggregate, make_sheet, protocol_over
from bench.report.labels import label_points
from bench.report.latex import escape
from bench.report.page import data_uri
from bench.report.rows import Scores
from bench.report.source import open_results
from bench.report.structures import structures_table
from bench.report.style import draw
from bench.report.svg import slim
from bench.report.terminal import render

Make = Callable[..., Path]
XLINK = "{http://www.w3.org/1999/xlink}href"


def paint(figure: Figure) -> None:
    canvas = figure.subplots()
    canvas.plot([0, 1, 2], [1.5, 0.25, -0.125], label="a line")
    canvas.scatter([0.5, 1.5], [0, 1], gid="mark0")
    label_points(canvas, [(0.5, 0), (1.5, 1)], ["first $x$ <b>", "second"], [5.0, 5.0])


def test_a_slim_figure_keeps_its_letters_marks_and_lines_and_resolves_every_name() -> None:
    figure = draw("f", "t", "c", (4, 3), paint)
    root = ET.fromstring(figure.svg)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        assert (element.get(XLINK) or "#x")[1:] in [*ids, "x"]
        for value in element.attrib.values():
            for name in re.findall(r"url\(#([^)]+)\)", value):
                assert name in ids
    rims = [e for e in root.iter() if (e.get(XLINK) or "").startswith("#halo")]
    assert len(rims) == 2, "each text beside a point has its rim, drawn before it"
    letters = "first$x$<b>second"
    halos = [e for e in root.iter() if (e.get("id") or "").startswith("halo")]
    assert sum(len(list(h.iter("{http://www.w3.org/2000/svg}use"))) for h in halos) >= len(letters)
    assert not re.search(rb"<metadata|<!--|DejaVu", figure.svg)


def test_slim_coordinates_are_those_of_matplotlib_to_a_hundredth() -> None:
    held = io.BytesIO()
    figure = Figure(figsize=(4, 3))
    paint(figure)
    figure.savefig(held, format="svg")

    def lines(svg: bytes) -> list[list[float]]:
        paths = [e.get("d") or "" for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]
        return [[float(v) for v in re.findall(r"-?\d+\.?\d*", d)] for d in paths]

    before, after = lines(held.getvalue()), lines(slim(held.getvalue()))
    assert len(before) == len(after) > 15
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, atol=0.0051)


def test_marks_lie_where_matplotlib_draws_them() -> None:
    told = [Mark(name, ("FD 1.0 (0.9 – 1.1)",), "anchor") for name in ("first", "second")]
    figure = draw("f", "t", "c", (4, 3), paint, told)
    assert [spot.mark for spot in figure.spots] == told
    image = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(int)
    scale = image.shape[1] / figure.width
    for spot in figure.spots:
        pixel = image[round(spot.y * scale), round(spot.x * scale)]
        assert pixel.max() - pixel.min() > 60, "a coloured mark, neither paper nor ink"


def test_a_figure_knows_the_numbers_of_its_named_lines() -> None:
    data = draw("f", "t", "c", (4, 3), paint).data
    assert data is not None
    assert data.rows == (("a line", "0", "1.5"), ("a line", "1", "0.25"), ("a line", "2", "-0.125"))


def test_an_svg_address_ends_where_it_should_whatever_it_holds() -> None:
    svg = b"<?xml version='1.0'?>\n<svg a=\"b\">50% &amp; #1 'x'</svg>"
    address = str(data_uri(svg, "image/svg+xml"))
    assert address == "data:image/svg+xml,<svg a='b'>50%25 %26amp; %231 'x'</svg>"


@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (1, 17), (1, 256), (3, 3), (3, 256)])
def test_grids_are_exact_whatever_their_number_of_colours(channels: int, levels: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, levels, (5, channels, 9, 7), dtype=np.uint8)
    made = grid("t", "n", Images(pixels, levels), side=3)
    wanted = np.rint(pixels * (255 / (levels - 1))).astype(np.uint8)
    seen = np.asarray(Image.open(io.BytesIO(made.png)).convert("RGB"))
    np.testing.assert_array_equal(seen[10:19, 8:15], np.broadcast_to(wanted[4].transpose(1, 2, 0), (9, 7, 3)))
    assert (seen[9] == 255).all(), "white between images"
    assert (made.across, made.down) == (seen.shape[1], seen.shape[0])
    large = np.asarray(Image.open(io.BytesIO(enlarged(made))).convert("RGB"))
    scale = made.width // made.across
    np.testing.assert_array_equal(large[scale // 2 :: scale, scale // 2 :: scale], seen)


def test_grids_shrink_until_there_is_room_for_all_of_them() -> None:
    rng = np.random.default_rng(0)
    noise = Images(rng.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8), 256)
    whole = grids_within(10**9, [("t", "n", noise)] * 3)
    few = grids_within(300_000, [("t", "n", noise)] * 3)
    assert [one.across for one in whole] == [8 * 33 - 1] * 3
    assert sum(len(one.png) for one in whole) > 300_000 >= sum(len(one.png) for one in few)
    assert [one.across for one in few] == [4 * 33 - 1] * 3, "the most that have room, the same for all"


def test_every_figure_has_its_numbers_in_a_file_and_in_the_page(written: Path) -> None:
    text = (written / "index.html").read_text(encoding="utf-8")
    figures = {path.stem for path in (written / "figures").glob("*.svg")}
    assert figures == {path.stem for path in (written / "figures").glob("*.csv")}
    shown = text.count('<details class="data">')
    assert shown == text.count('class="zoom" src=') == len(figures) - 1, "all but the one for the README"
    with open(written / "figures" / "quality-latency-digits.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    fd = {row["model"]: row["fd[digits-cnn]"] for row in rows}
    assert fd["VAE"] in text
    assert len(fd) > 10


def test_each_picture_lies_in_the_page_once(written: Path) -> None:
    text = (written / "index.html").read_text(encoding="utf-8")
    held = re.findall(r"data:image/png;base64,[A-Za-z0-9+/=]+", text)
    assert len(held) > 8
    assert len(held) == len(set(held))


def test_the_families_stand_side_by_side_as_the_records_have_them(results: Path) -> None:
    sheet = make_sheet(open_results(results), "digits")
    table = structures_table(sheet, {"dcgan": ["main/loss", "discriminator/loss", "discriminator/real"]})
    assert table is not None
    told = {line.data[0].text: [d.text for d in line.data[1:]] for line in table.lines}
    assert told["PixelCNN"][1] == "explicit, exact"
    assert told["VAE"][1] == "explicit, a bound (≤): elbo"
    assert told["RealNVP"][1].startswith("explicit, exact of real numbers")
    assert told["DCGAN"][1] == "implicit"
    assert told["DCGAN"][4] == "main; discriminator (real)"
    assert told["DDPM"][3] == "5 to 1,000"


def test_latex_is_balanced_and_runs_no_command_of_a_record(make_results: Make, tmp_path: Path) -> None:
    evil = r"\input{/etc/passwd} $x^2$ 50% {a}_b & \\ #1 ~"

    def change(record: Record) -> Record:
        return replace(record, measured=tuple(replace(m, note=evil) for m in record.measured))

    folder = make_results(models=("real", "vae", "dcgan", "histogram"), change=change)
    info = store.read_run(folder)
    families = {**info["families"], "vae": {"family": "autoencoders", "title": evil}}
    store.write_run(folder, {**info, "title": f"{evil}\nnew line", "families": families})
    write_report(folder, tmp_path / "out")
    text = (tmp_path / "out" / "tables.tex").read_text(encoding="utf-8")
    assert escape(evil) in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\input" not in body
    plain = re.sub(r"\\[\\{}$%&#_]", "", body)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 3
    for inner in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.S):
        widths = {len(re.findall(r"(?<!\\)&", line)) for line in inner.splitlines() if line.endswith(r"\\")}
        assert len(widths) == 1, "every row has as many squares"


def test_a_crowd_is_thinned_to_the_best_of_every_family_and_keeps_the_references(tmp_path: Path) -> None:
    sheet = make_sheet(open_results(write_many(tmp_path, 1300, samples=False)), "digits")
    few = crowd.thinned(sheet)
    assert len(sheet.rows) > crowd.MOST_MARKS
    assert 5 <= sum(row.shown for row in few.rows) <= crowd.FEW_MARKS
    for family in {row.model.family for row in sheet.rows}:
        best = min((r for r in sheet.rows if r.model.family == family), key=lambda r: r.value(sheet.quality) or 0)
        assert best in few.rows
    assert few.left_out == {r.title for r in sheet.rows} - {r.title for r in few.rows}
    assert few.floor is sheet.floor
    assert crowd.thinned(few) is few
    assert "table.csv hold all" in crowd.told(sheet, few)
    shown, every = (sum(row.shown for row in held.rows) for held in (few, sheet))
    told = {}
    for all_rows in (True, False):
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(render([sheet], all_rows))
        told[all_rows] = console.export_text()
    assert f"{shown} of {every} rows" in told[False]
    assert " rows, those of" not in told[True]
    assert told[True].count("\n") - told[False].count("\n") == every - shown - 1


def test_one_training_with_more_draws_than_there_is_room_for_is_not_left_out(results: Path) -> None:
    sheet = make_sheet(open_results(results), "digits")
    ddpm = [row for row in sheet.rows if row.model.name == "ddpm"]
    others = [row for row in sheet.rows if row.model.name != "ddpm"]
    many = tuple(replace(row, samples=i, shown=row.shown and i == 0) for i in range(80) for row in ddpm)
    crowded = replace(sheet, rows=(*others, *many))
    few = crowd.thinned(crowded)
    assert len(many) > crowd.MOST_ROWS
    assert {row.title for row in ddpm} <= {row.title for row in few.rows}
    assert len(few.rows) < len(crowded.rows)
    assert f"{len(few.rows)} of {len(crowded.rows)} rows" in crowd.told(crowded, few)


def test_scores_are_the_same_whenever_they_are_made(results: Path) -> None:
    records = [r for r in open_results(results).records if r.cell.model == "vae" and r.cell.draw is not None]
    measured = {m.metric: [n for r in records for n in r.measured if n.metric == m.metric] for m in records[0].measured}
    scores = Scores(measured, aggregate, protocol_over)
    early = {metric: scores.value(metric) for metric in scores}
    protocols = {metric: scores.protocol(metric) for metric in scores}
    assert list(scores) == list(measured)
    assert dict(scores) == {metric: aggregate(values) for metric, values in measured.items()}
    assert early == {metric: score.value for metric, score in scores.items()}
    assert protocols == {metric: score.protocol for metric, score in scores.items()}
    assert "no such metric" not in scores
    with pytest.raises(KeyError):
        scores["no such metric"]
