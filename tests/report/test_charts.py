"""Charts of models' own workings and the courses of mode collapse, read with suspicion and shown in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.errors import UserError
from bench.record import Artifact, Record
from bench.report import write_report
from bench.report.charts import pictures, read_chart
from bench.report.over_training import SCORES, Course, collapse, read_course
from tests.report.conftest import save_artifact

Make = Callable[..., Path]


def line(**changes: Any) -> dict[str, Any]:
    return {"label": "minimax", "x": [0, 1, 2], "y": [1.0, 0.1, 0.01], "marks": False, **changes}


def chart(*lines: dict[str, Any], **changes: Any) -> dict[str, Any]:
    panels = [{"title": "first", "lines": list(lines) or [line(), line(label="autograd", marks=True)]}]
    words = {"title": "G's gradient", "caption": "What is left.", "x": "rejection", "y": "norm"}
    return {**words, "log_y": True, "panels": panels, **changes}


def course(**changes: Any) -> dict[str, Any]:
    scores = {"modes": [10, 4], "mode_kl": [0.02, None], "precision": [0.8, 0.9], "recall": [0.7, 0.1]}
    real = {"modes": 10, "mode_kl": 0.01, "precision": 0.9, "recall": 0.8}
    return {"images": [100, 200], "samples": 256, **scores, "real": real, **changes}


def put(folder: Path, role: str, content: Any) -> Artifact:
    return save_artifact(folder, role, json.dumps(content).encode(), "json")


def test_a_chart_is_read_as_it_was_written(tmp_path: Path) -> None:
    read = read_chart(tmp_path, put(tmp_path, "chart", chart()))
    assert (read.title, read.log_y, read.panels[0][0]) == ("G's gradient", True, "first")
    assert read.panels[0][1][0].y == (1.0, 0.1, 0.01)
    assert read.panels[0][1][1].marks


@pytest.mark.parametrize(
    "content",
    [
        chart(line(y=[1.0])),
        chart(line(y=[1.0, 2.0, float("nan")])),
        chart(line(x=[], y=[])),
        chart(line(label="x" * 100)),
        chart(line(y=[0.0, 0.0, -1.0])),
        chart(panels=[]),
        chart(panels=[{"title": "t", "lines": []}]),
        chart(panels=[{"title": 3, "lines": [line()]}]),
        chart(caption=None),
        [1],
    ],
    ids=lambda content: json.dumps(content)[:40],
)
def test_a_chart_of_something_else_is_told(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="expected a chart"):
        read_chart(tmp_path, put(tmp_path, "chart", content))


def test_a_course_is_read_as_it_was_written(tmp_path: Path) -> None:
    read = read_course(tmp_path, put(tmp_path, "over_training", course()))
    assert read.images == (100, 200)
    assert read.scores["mode_kl"] == (0.02, None)
    assert read.real["recall"] == 0.8


@pytest.mark.parametrize(
    "content",
    [
        course(recall=[0.1]),
        course(images=[200, 100]),
        course(images=[0, 100]),
        course(images=[]),
        course(modes=[1, -1]),
        course(precision=[0.5, float("inf")]),
        course(real={}),
        3,
    ],
    ids=lambda content: json.dumps(content)[:60],
)
def test_a_course_of_something_else_is_told(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="expected scores over training"):
        read_course(tmp_path, put(tmp_path, "over_training", content))


def test_figures_are_made_the_same_each_time_and_only_of_more_than_one_snapshot(tmp_path: Path) -> None:
    held = Course((1, 2), dict.fromkeys(SCORES, (0.5, 0.25)), dict.fromkeys(SCORES, 0.5), 256)
    one = Course((1,), dict.fromkeys(SCORES, (0.5,)), dict.fromkeys(SCORES, 0.5), 256)
    gap = Course((1, 2), dict.fromkeys(SCORES, (None, None)), dict.fromkeys(SCORES, None), 256)
    assert collapse("collapse", []) is None
    assert collapse("collapse", [("GAN", 0, one)]) is None
    drawn = collapse("collapse", [("GAN", 0, held), ("GAN", 1, gap), ("WGAN", 0, held)])
    assert drawn is not None
    assert drawn == collapse("collapse", [("GAN", 0, held), ("GAN", 1, gap), ("WGAN", 0, held)])
    first = read_chart(tmp_path, put(tmp_path, "chart", chart()))
    wide = replace(first, panels=first.panels * 4, log_y=False)
    drawn_charts = pictures("chart", [("GAN", first), ("GAN", wide)])
    assert [picture.name for picture in drawn_charts] == ["chart-0", "chart-1"]
    assert drawn_charts == pictures("chart", [("GAN", first), ("GAN", wide)])


def with_charts(folder: Path) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        if record.cell.draw is not None or record.cell.model not in ("dcgan", "vae"):
            return record
        added = [put(folder, "over_training", course(images=[100, 200 + record.cell.seed]))]
        if record.cell.model == "dcgan":
            added += [put(folder, "chart", chart()), put(folder, "chart", chart(title=f"seed {record.cell.seed}"))]
        return replace(record, artifacts=(*record.artifacts, *added))

    return change


def test_the_page_shows_charts_of_the_lowest_seed_once_and_the_courses_of_all(
    make_results: Make, tmp_path: Path
) -> None:
    folder = make_results(models=("real", "dcgan", "vae"), seeds=(0, 1), change=with_charts(tmp_path / "results"))
    out = write_report(folder, tmp_path / "out")
    markdown = (out.parent / "report.md").read_text(encoding="utf-8")
    assert markdown.count("### DCGAN: G's gradient") == 1
    assert "DCGAN: seed 0" in markdown
    assert "DCGAN: seed 1" not in markdown
    assert "### Mode collapse over training" in markdown
    page = out.read_text(encoding="utf-8")
    assert "How models work, in numbers" in page
    assert "Mode collapse over training" in page


def test_damaged_files_are_noted_and_the_report_is_made(make_results: Make, tmp_path: Path) -> None:
    folder = make_results(models=("real", "dcgan"), change=with_charts(tmp_path / "results"))
    for path in [*(folder / "artifacts").glob("chart-*"), *(folder / "artifacts").glob("over_training-*")]:
        path.write_bytes(b"{}")
    markdown = (write_report(folder, tmp_path / "out").parent / "report.md").read_text(encoding="utf-8")
    assert "damaged" in markdown
    assert "Mode collapse over training" not in markdown
    assert "G's gradient" not in markdown
