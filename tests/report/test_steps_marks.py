"""Points of the figures over steps tell their numbers: each its own, where it is drawn."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.report import oracle_plots, steps_plots
from bench.report.drawn import Mark, tell
from bench.report.joined import joined
from bench.report.numbers import interval_text, number
from bench.report.rows import Row, Sheet
from bench.report.steps import lines
from bench.report.style import Picture, draw
from tests.report.test_steps import DRAWS, STEPS, as_published, every, write


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Sheet:
    return write(tmp_path_factory.mktemp("marks"), as_published, {1000: every()})


def pictures(sheet: Sheet) -> dict[str, Picture]:
    return {picture.name: picture for picture in steps_plots.pictures("x", sheet)}


def test_every_point_of_the_figures_over_steps_is_a_mark_that_lies_on_it(sheet: Sheet) -> None:
    made = pictures(sheet)
    counts = {name: len(picture.spots) for name, picture in made.items()}
    points = len(DRAWS) * len(STEPS)
    few = sum(s <= 1000 / 5 for s in STEPS) * len(DRAWS)  # once more, enlarged
    assert counts == {
        "steps-x": points,
        "steps-time-x": points,
        "steps-coverage-x": points,
        "steps-clock-x": points + few,
    }
    for picture in made.values():
        image = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)
        scale = image.shape[1] / picture.width
        for spot in picture.spots:
            x, y = round(spot.x * scale), round(spot.y * scale)
            mark = image[y - 3 : y + 4, x - 3 : x + 4]  # a fitted line may lie over its middle
            assert (mark.max(2) - mark.min(2)).max() > 70, (picture.name, spot.mark.told)


def test_a_mark_tells_the_score_of_its_own_point(sheet: Sheet) -> None:
    own = {
        (
            row.label,
            f"{point.x:,g} network calls an image",
        ): f"FD {number(point.score.value)} ({interval_text(point.score)})"
        for line in lines(sheet)
        for point in joined(line.rows, sheet.quality or "")
        for row in [point.row]
    }
    spots = pictures(sheet)["steps-x"].spots
    told = {(spot.mark.title, spot.mark.lines[1]): spot.mark.lines[0] for spot in spots}
    assert told == own
    assert {spot.mark.lines[-1] for spot in spots} == {"3 seeds"}
    places = [spot.x for spot in spots[: len(STEPS)]]
    assert places == sorted(places)
    assert (
        "images/s 50.0"
        in next(spot.mark for spot in pictures(sheet)["steps-clock-x"].spots if "S=20 " in spot.mark.title).told
    )


def test_a_point_of_other_seeds_says_so(tmp_path: Path) -> None:
    whole = write(tmp_path, as_published, {1000: DRAWS["eta 0"]})

    def alone(row: Row) -> Row:
        if row.draw is None or row.draw.steps != 1000:
            return row
        return replace(row, records=row.records[:1], seeds=(0,))

    few = replace(whole, rows=tuple(map(alone, whole.rows)))
    points = joined([(1.0 * (r.draw.steps or 0), r) for r in few.rows if r.draw is not None], whole.quality or "")
    assert [point.odd for point in points].count(True) == 1, "the premise"
    spots = pictures(few)["steps-x"].spots
    odd = [spot.mark for spot in spots if "of other seeds than its line" in spot.mark.lines]
    assert [mark.lines[1] for mark in odd] == ["1,000 network calls an image"]


def test_exact_numbers_tell_theirs(tmp_path: Path) -> None:
    whole = write(tmp_path, as_published, {1000: every()})
    exact = tuple(
        replace(
            row,
            scores={
                "fd_exact[pixels]": replace(
                    row.scores["fd[digits-cnn]"], metric="fd_exact[pixels]", low=None, high=None
                )
            },
        )
        for row in whole.rows
    )
    picture = oracle_plots.exact_picture("x", replace(whole, rows=exact))
    assert picture is not None
    assert len(picture.spots) == len(DRAWS) * len(STEPS)
    assert {spot.mark.lines[0].split()[0] for spot in picture.spots} == {"exact"}


def test_marks_keep_their_order_and_what_is_cut_off_tells_nothing() -> None:
    marks: list[Mark] = []

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        [line] = canvas.plot([1, 2, 3], [1, 2, 3])
        canvas.set_xlim(0, 2.5)
        tell(line, marks, [Mark(name, ()) for name in "abc"])
        tell(canvas.scatter([1], [2]), marks, [Mark("d", ())])

    spots = draw("f", "t", "c", (4, 3), paint, marks).spots
    assert [spot.mark.title for spot in spots] == ["a", "b", "d"]
    assert spots[0].x < spots[1].x
    assert spots[0].y > spots[1].y
    assert (spots[2].x, spots[2].y) == (spots[0].x, spots[1].y)
