"""The report's calibration section, from synthetic records of spoilt images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr

from baselines.types import Budget, Draw
from bench import store
from bench.record import Cell, Measurement, Record
from bench.report import write_report
from bench.report.calibration import Point, calibration_table, enough, first_apart, rank_correlation, study_of
from bench.report.content import gather
from bench.report.coverage import coverage_table, covered, shipped_study
from bench.report.grouping import make_sheet
from bench.report.rows import Score
from bench.report.source import open_results
from tests.report.conftest import FAMILIES, PROVENANCE, write_results

NOISE = {0.1: 4.0, 0.2: 9.0, 0.4: 30.0}  # level -> FD
COPIES = {100: 3.0, 30: 1.5, 10: 20.0}
SIZES = {50: 12.0, 200: 3.0}
FLOOR = 1.0


def score(value: float, half: float | None = None, better: str = "lower") -> Score:
    low, high = (None, None) if half is None else (value - half, value + half)
    return Score("fd[x]", value, low, high, "own", 1, "", better, None, "{}", False, "")  # type: ignore[arg-type]


def record(fd: float, options: Mapping[str, Any], samples: int | None = None, dataset: str = "digits") -> Record:
    protocol = {"split": "test", "n_generated": samples or 1437}
    draw = Draw(options=options)
    cell = Cell("corrupted", dataset, Budget(images=1437), 0, {}, draw, samples)
    measured = (
        Measurement("fd[digits-cnn]", fd, "", "lower", 1437, "draw", fd - 0.5, fd + 0.5, protocol=protocol),
        Measurement("recall[digits-cnn]", 1 / fd, "", "higher", 360, "draw", protocol=protocol),
        Measurement("sharpness", 2 * fd, "", "none", 1437, "draw", protocol=protocol),
        Measurement("host_peak_bytes", 3e7, "B", "lower", 1, "draw"),
    )
    key = cell.label()
    origin = PROVENANCE | {"timed": ["host_peak_bytes"]}
    return Record(key, "corrupted-train", "ok", cell, measured, provenance=origin)


def study_records() -> list[Record]:
    found = [record(FLOOR, {}), *(record(fd, {}, n) for n, fd in SIZES.items())]
    found += [record(fd, {"kind": "noise", "level": level}) for level, fd in NOISE.items()]
    return found + [record(fd, {"kind": "copies", "level": level}) for level, fd in COPIES.items()]


def results_with(folder: Path, models: tuple[str, ...], **info: Any) -> Path:
    write_results(folder, models=models, seeds=(0,))
    records = study_records()
    for one in records:
        store.append(folder, one)
    run = store.read_run(folder)
    family = {"family": "reference", "title": "Corrupted real images", "source": "spoilt"}
    run["families"] = FAMILIES | {"corrupted": family}
    store.write_run(folder, run | {"keys": [*run["keys"], *(r.key for r in records)]} | info)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration run: spoilt images and the endpoints."""
    return results_with(tmp_path_factory.mktemp("study") / "run", ("real", "histogram"), missing=["mnist"])


def test_rows_of_the_study_are_told_by_level_and_n_and_stand_in_order(alone: Path) -> None:
    sheet = make_sheet(open_results(alone), "digits")
    assert not sheet.rows
    assert len(sheet.corrupted) == 1 + len(SIZES) + len(NOISE) + len(COPIES)
    study = study_of(sheet)
    assert study is not None
    assert [p.level for p in study.levels("fd[digits-cnn]", "noise")] == [0.1, 0.2, 0.4]
    assert [p.level for p in study.levels("fd[digits-cnn]", "copies")] == [100, 30, 10], "fewer images are worse"
    assert [p.level for p in study.counts("fd[digits-cnn]")] == [50, 200, 1437]
    assert study.metrics == ("fd[digits-cnn]", "recall[digits-cnn]", "sharpness"), (
        "no metric is named, no cost is taken"
    )


def test_the_table_says_monotone_floor_first_level_and_n(alone: Path) -> None:
    sheet = make_sheet(open_results(alone), "digits")
    study = study_of(sheet)
    assert study is not None
    table = calibration_table(study, sheet)
    fd, recall, _ = table.lines
    floor, noise, copies, n = fd.data[1:]
    assert (floor.text, floor.detail) == ("1.00", "0.500 – 1.50")
    assert (noise.text, noise.detail) == ("1.00", "from 0.1")
    expected = spearmanr(range(4), [FLOOR, *COPIES.values()]).statistic
    assert (copies.text, copies.detail) == (f"{expected:.2f}", "from 100")
    assert n.text == "none", "at N = 200 the interval is 2.5 to 3.5"
    assert (recall.data[2].text, recall.data[2].detail) == ("1.00", "no interval")


def test_rank_correlation_is_spearmans_with_ties() -> None:
    values = [1.0, 1.0, 3.0, 2.0, 5.0]
    floor, *others = (score(v) for v in values)
    points = [Point(float(i), s) for i, s in enumerate(others)]
    assert rank_correlation(points, floor) == pytest.approx(spearmanr(range(5), values).statistic)
    up = [replace(p, score=replace(p.score, better="higher")) for p in points if p.score]
    assert rank_correlation(up, replace(floor, better="higher")) == pytest.approx(
        -spearmanr(range(5), values).statistic
    )
    assert rank_correlation([Point(1, score(2)), Point(2, score(2))], score(2)) is None
    assert rank_correlation([Point(1, None), Point(2, score(3))], score(2)) is None


def test_first_apart_and_enough() -> None:
    floor = score(1, 0.5)
    points = [Point(1, score(1.8, 0.5)), Point(2, None), Point(3, score(3, 0.5)), Point(4, score(4, 0.5))]
    assert (found := first_apart(points, floor)) is not None
    assert found.level == 3
    assert first_apart(points[:2], floor) is None
    sizes = [Point(10, score(1.2, 1)), Point(20, score(3, 0.5)), Point(40, score(1.3, 0.5)), Point(80, score(1.2, 0.4))]
    assert enough([*sizes, Point(99, score(1, 0.1))]) == 40, "from there on, not by luck below"
    biased = replace(score(2), low=0.9, high=1.1)
    assert enough([*sizes, Point(99, biased)]) == 40, "the middle of an interval that leaves its value out"
    assert enough([Point(10, score(5, 0.1)), Point(99, score(1, 0.1))]) is None


def test_a_calibration_run_has_its_section_alone_and_deep_rows_are_not_cluttered(alone: Path, tmp_path: Path) -> None:
    content = gather(open_results(alone))
    assert not content.sections, "there is nothing to compare beside the endpoints"
    assert [c.dataset for c in content.calibrations] == ["digits"]
    assert any("mnist is left out" in note for note in content.notes)
    mixed = gather(open_results(results_with(tmp_path / "mixed", ("real", "histogram", "vae", "dcgan"))))
    (section,) = mixed.sections
    shown = [section.main, section.cost, *([section.other] if section.other else [])]
    assert not any("Corrupted" in line.data[0].text for table in shown for line in table.lines)
    assert not any(row.model.name == "corrupted" for row, _ in section.placed)
    assert len(mixed.calibrations) == 1
    assert mixed.calibrations[0].verdicts


def test_without_spoilt_images_there_is_no_such_section(tmp_path: Path) -> None:
    content = gather(open_results(write_results(tmp_path / "results", ("real", "histogram", "vae"), seeds=(0,))))
    assert content.calibrations == ()
    assert content.coverage is None


def test_page_markdown_and_figures_hold_the_study(alone: Path, tmp_path: Path) -> None:
    page = write_report(alone, tmp_path / "out").read_text()
    text = (tmp_path / "out" / "report.md").read_text()
    for told in (page, text):
        assert "Is each metric monotone" in told
        assert "How often the intervals hold the truth" in told
        assert "Memorised copies" in told
    figures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {"calibration-digits.svg", "calibration-digits.png"}
    assert "figures/calibration-digits.png" in text


def test_the_coverage_table_marks_what_falls_short_and_tells_refusals() -> None:
    study = shipped_study()
    row = {"interval": "fd", "case": "near", "size": "d = 4, N/d = 3", "truth": 1.0, "repetitions": 200}
    rows = [
        row | {"refused": 100, "covered": 80, "width": 0.5},
        row | {"refused": 0, "covered": 190, "width": 0.5, "size": "d = 4, N/d = 10"},
        row | {"refused": 200, "covered": 0, "width": None, "size": "d = 4, N/d = 25"},
    ]
    assert [covered(r) for r in rows] == [0.8, 0.95, None]
    table = coverage_table(study | {"rows": rows})
    (line,) = table.lines
    assert [d.text for d in line.data] == ["FD", "d = 4, near", "80.0 % ⚠", "95.0 %", "no interval"]
    assert "refused 50 %" in line.data[2].detail
    assert "1 of 3 cases cover less than 90 %" in table.intro
    whole = coverage_table(study)
    assert study["command"] in whole.intro
    assert study["date"] in whole.intro
    assert len(whole.columns) == 5
