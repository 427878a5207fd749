"""Which draws the lines, the study and the sentences about steps are made of, and on which side a doubt falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from baselines.types import Budget, Draw
from bench.report import clock_plot, steps_plots, terms_plot
from bench.report.artifacts import Band
from bench.report.clock import Clock
from bench.report.ratios import Ratio
from bench.report.rows import Row, Sheet
from bench.report.source import ModelInfo
from bench.report.steps import lines, study_of
from bench.report.steps_findings import _linear, steps_findings
from tests.report.test_steps import DRAWS, as_published, every, told, write


def ten(draw: Draw, timesteps: int) -> float:
    return 10.0


def spent(row: Row, images: int) -> Row:
    """The same row, trained with another budget."""
    cells = [replace(record.cell, budget=Budget(images=images)) for record in row.records]
    records = [replace(record, cell=cell) for record, cell in zip(row.records, cells, strict=True)]
    return replace(row, records=tuple(records))


def timesteps(row: Row) -> int:
    return int(row.records[0].cell.config["timesteps"])


def test_trainings_with_t_equal_s_are_compared_within_one_budget_the_one_with_the_most(tmp_path: Path) -> None:
    full = {total: [Draw("ddpm")] for total in (10, 20, 50, 100)}
    sheet = write(tmp_path, ten, {1000: DRAWS["eta 0"] + DRAWS["eta 1"], **full})
    few = [spent(row, 7) for row in sheet.rows if timesteps(row) in (20, 100)]
    many = [row for row in sheet.rows if timesteps(row) not in (20, 100)]
    for rows in ((*many, *few), (*few, *many)):
        mixed = replace(sheet, rows=rows)
        line = next(line for line in lines(mixed) if line.label == "DDPM trained with T = S")
        assert [calls for calls, _ in line.rows] == [10, 50, 1000]
        study = study_of(mixed)
        assert study is not None
        assert set(study.trained) == {10, 50}, "a checkpoint is not compared with itself"


def test_the_draws_of_ddim_stand_for_their_kind_where_ddpm_has_one_too(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: [*every(), Draw("ddpm", 1000)]})
    rows = sorted(sheet.rows, key=lambda row: row.draw is None or row.draw.sampler != "ddpm")
    study = study_of(replace(sheet, rows=tuple(rows)))
    assert study is not None
    chosen = study.draws["eta 1", "uniform"][1000].draw
    assert chosen is not None
    assert chosen.sampler == "ddim"


def changed(sheet: Sheet, steps: int, calls: float | None = None, lone: bool = False) -> Sheet:
    """With the draws of so many steps at another number of calls, or alone."""

    def change(row: Row) -> Row:
        if row.draw is None or row.draw.steps != steps:
            return row
        nfe = row.scores["nfe"]
        return replace(row, lone=lone, scores={**row.scores, "nfe": replace(nfe, value=calls or nfe.value)})

    return replace(sheet, rows=tuple(change(row) for row in sheet.rows))


def test_a_line_stands_at_the_counted_calls_and_holds_no_lone_row(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: DRAWS["eta 0"]})
    (line,) = lines(changed(sheet, 10, calls=19))
    assert [calls for calls, _ in line.rows] == [5, 19, 20, 50, 100, 1000]
    (line,) = lines(changed(sheet, 10, lone=True))
    assert [calls for calls, _ in line.rows] == [5, 20, 50, 100, 1000]


def test_to_be_the_best_is_to_be_better_than_every_other(tmp_path: Path) -> None:
    def between(draw: Draw, timesteps: int) -> float:
        return 5.0 if draw.variance else 20.0 if draw.eta else 10.0

    sentence = told(write(tmp_path, between, {1000: every()}), "Few steps")
    assert "this was expected and does not show, at S=5 (sigma-hat has 0.5" in sentence


def test_a_gap_is_as_wide_on_the_other_side(tmp_path: Path) -> None:
    def crossing(draw: Draw, timesteps: int) -> float:
        return {5: 0.7, 1000: 1.1}.get(draw.steps or 0, 1.0) if draw.eta else 1.0

    sheet = write(tmp_path, crossing, {1000: DRAWS["eta 0"] + DRAWS["eta 1"]})
    assert told(sheet, "Towards").endswith("the gap closes, as expected.")


def test_a_gap_turns_round_only_where_it_was_on_the_other_side_before(tmp_path: Path) -> None:
    def widening_below(draw: Draw, timesteps: int) -> float:
        return {5: 0.9, 1000: 0.5}.get(draw.steps or 0, 0.8) if draw.eta else 1.0

    sheet = write(tmp_path, widening_below, {1000: DRAWS["eta 0"] + DRAWS["eta 1"]})
    assert told(sheet, "Towards").endswith("eta 1 is the better one from S=5 on.")


def test_sigma_hat_is_judged_at_few_steps_only_where_they_are_few(tmp_path: Path) -> None:
    for kept, expected in (((20, 50, 100), ["Sigma-hat at S=20"]), ((50, 100), [])):
        draws = [draw for draw in every() if draw.steps in kept]
        sheet = write(tmp_path / f"{kept[0]}", as_published, {1000: draws})
        found = [sentence.split(":")[0] for sentence in steps_findings(sheet) if sentence.startswith("Sigma-hat at")]
        assert found == expected


def test_trailing_is_compared_with_uniform_at_every_number_of_steps_that_both_have(tmp_path: Path) -> None:
    trailing = [replace(draw, spacing="trailing") for draw in every() if draw.steps in (5, 10)]
    trailing = [draw for draw in trailing if not (draw.variance and draw.steps == 5)]

    def truth(draw: Draw, timesteps: int) -> float:
        return {5: 30.0, 10: 3.0}[draw.steps or 0] / (2 if draw.eta else 1) if draw.spacing == "trailing" else 10.0

    sentence = told(write(tmp_path, truth, {1000: every() + trailing}), "Trailing")
    for part in ("Eta 0 lower at S=10", "; higher at S=5 (", "Eta 1 lower at S=10", "Sigma-hat lower at S=10"):
        assert part in sentence
    assert sentence.count("higher at S=5") == 2, "sigma-hat has no trailing draw of 5 steps"


@pytest.mark.parametrize(
    ("fd", "words"),
    [(20.0, "the training with T=S is the worse one at S=10, S=50"), (5.0, "is the better one at S=10, S=50")],
)
def test_who_is_better_with_t_equal_s_is_the_one_with_the_lower_fd(tmp_path: Path, fd: float, words: str) -> None:
    full = {total: [Draw("ddpm")] for total in (10, 50)}
    sheet = write(
        tmp_path, lambda draw, total: 10.0 if total == 1000 else fd, {1000: [*DRAWS["eta 0"], *DRAWS["eta 1"]], **full}
    )
    assert words in told(sheet, "A DDPM trained with T=S")


def test_the_inverse_of_a_ratio_has_the_inverse_bounds() -> None:
    found = Ratio(2.0, 1.6, 4.0, 3).inverse
    assert (found.value, found.low, found.high, found.seeds) == (0.5, 0.25, 0.625, 3)
    assert Ratio(2.0, None, None, 1).inverse == Ratio(0.5, None, None, 1)


def test_time_that_is_less_than_the_calls_own_is_said_to_be_less(tmp_path: Path) -> None:
    sheet = write(tmp_path, ten, {1000: DRAWS["eta 0"]})
    for start, words in ((0.002, "2.00 ms besides"), (-0.002, "2.00 ms less")):
        clock = Clock("x", ((1.0, 1.0), (9.0, 9.0)), start, 0.001, 0.0, (1.0, 1.0, 1.0))
        assert words in _linear(clock, sheet)


# Figures


def test_points_stand_at_calls_or_seconds_and_leave_out_what_a_logarithm_cannot_show(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: DRAWS["eta 0"]}, seeds=(0,))

    def worthless(row: Row) -> Row:
        if row.draw is None or row.draw.steps != 10:
            return row
        return replace(row, scores={name: replace(score, value=0.0) for name, score in row.scores.items()})

    ((_, points),) = steps_plots.drawn(lines(sheet), sheet, sheet.quality, time=False)
    assert [point.x for point in points] == [5, 10, 20, 50, 100, 1000]
    ((_, points),) = steps_plots.drawn(lines(sheet), sheet, sheet.quality, time=True)
    assert [point.x for point in points] == pytest.approx([1e-3 * calls for calls in (5, 10, 20, 50, 100, 1000)])
    mixed = replace(changed(sheet, 10, calls=10), rows=tuple(map(worthless, sheet.rows)))
    ((_, points),) = steps_plots.drawn(lines(mixed), mixed, sheet.quality, time=False)
    assert [point.x for point in points] == [5, 20, 50, 100, 1000]
    ((_, points),) = steps_plots.drawn(lines(mixed), mixed, sheet.coverage, time=False)
    assert [point.x for point in points] == [5, 10, 20, 50, 100, 1000], "a coverage of 0 is one"


def test_the_clocks_line_and_points_are_in_milliseconds() -> None:
    canvas = Figure().subplots()
    row = Row(ModelInfo("ddpm", "DDPM", "diffusion"), "", Draw("heun", 5), (0,), {}, {}, ())
    one = Clock("x", ((1.0, 0.5), (10.0, 1.5), (99.0, 9.0)), 0.4, 0.1, 0.0, (1.0, 1.0, 1.0), (row,) * 3)
    clock_plot._timed(canvas, one, 20.0, {"Heun": ("#000000", "o")}, "-")
    points, line = (drawn.get_xydata().tolist() for drawn in canvas.get_lines())
    assert points == [[1.0, 500.0], [10.0, 1500.0]]
    assert line == [[0.0, pytest.approx(400.0)], [20.0, pytest.approx(2400.0)]]


def test_ticks_that_would_touch_are_left_out() -> None:
    canvas = Figure().subplots()
    steps_plots.at_calls(canvas, {10.0, 11.0, 12.0, 13.0, 100.0})
    assert canvas.get_xticks().tolist() == [10, 13, 100]
    steps_plots.at_calls(canvas, [9.0, 10.0, 10.0, 39.0, 50.0, 50.0, 100.0])
    assert canvas.get_xticks().tolist() == [10, 39, 50, 100], "what most lines have goes before its neighbour"


def test_terms_of_chains_of_different_lengths_share_the_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[Figure] = []

    def paint_only(name: str, title: str, caption: str, size: tuple[float, float], paint: Callable[..., None]) -> None:
        painted.append(Figure())
        paint(painted[-1])

    monkeypatch.setattr(terms_plot, "draw", paint_only)
    long, short = (Band((1.0,) * n, (0.5,) * n, (2.0,) * n) for n in (200, 4))
    for held, ends, marked in (
        ([("a", short), ("b", short)], [4, 4], [True, True]),
        ([("a", long), ("b", short)], [1, 1], [False, True]),
    ):
        terms_plot.terms("x", held)
        drawn = painted[-1].axes[0].get_lines()
        assert [float(line.get_xdata()[-1]) for line in drawn] == pytest.approx(ends)
        assert [line.get_marker() not in ("", "None") for line in drawn] == marked
