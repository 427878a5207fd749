"""What steps buy: lines, ratios, clocks and sentences, from records whose truth is set by the test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import store
from bench.record import Artifact, Cell, Measurement, Record
from bench.report import clock_plot, steps_plots, style, terms_plot
from bench.report.artifacts import Band, read_terms
from bench.report.clock import clocks, fit
from bench.report.content import gather
from bench.report.grouping import aggregate, make_sheet
from bench.report.names import way
from bench.report.plots import FLOOR_TOLD, floor_line
from bench.report.ratios import Ratio, ratio
from bench.report.rows import Row, Sheet
from bench.report.source import ModelInfo, open_results
from bench.report.steps import Line, kind_of, lines, study_of
from bench.report.steps_findings import steps_findings
from bench.report.steps_looks import DASHES, SPACINGS_TOLD, legend, looks_of
from bench.report.steps_table import steps_table
from tests.report.conftest import FAMILIES, PROVENANCE, save_artifact

Make = Callable[..., Path]
Truth = Callable[[Draw, int], float]
STEPS = (5, 10, 20, 50, 100, 1000)
PUBLISHED = {  # FID of Song et al. 2020, table 1; S = 5 made up after the same pattern
    "eta 0": (25.0, 13.36, 6.84, 4.67, 4.16, 4.04),
    "eta 1": (80.0, 41.07, 18.36, 8.01, 5.78, 4.73),
    "sigma-hat": (500.0, 367.43, 133.37, 32.72, 9.99, 3.17),
}
DRAWS = {
    "eta 0": [Draw("ddim", s) for s in STEPS],
    "eta 1": [Draw("ddim", s, 1.0) for s in STEPS],
    "sigma-hat": [Draw("ddim", s, variance="sigma_hat") for s in STEPS],
}


def as_published(draw: Draw, timesteps: int) -> float:
    return PUBLISHED[kind_of(draw) or ""][STEPS.index(draw.steps or timesteps)]


def write(
    folder: Path,
    truth: Truth,
    draws: Mapping[int, list[Draw]],
    seeds: tuple[int, ...] = (0, 1, 2),
    spread: float = 0.01,
    seconds: Callable[[int], float] = lambda calls: 1e-3 * calls,
    terms: bytes | None = None,
) -> Sheet:
    """Records of ddpm trainings (T -> draws) whose FD is the truth, times a factor of each seed and draw."""
    records = []
    for timesteps, wanted in draws.items():
        for seed in seeds:
            key, rng = f"{timesteps}-{seed}", np.random.default_rng([timesteps, seed])
            cell = Cell("ddpm", "digits", Budget(images=100), seed, {"timesteps": timesteps, "lr": 0.1})
            artifacts = () if terms is None else (save_artifact(folder, "likelihood_curves", terms, "json"),)
            records.append(Record(f"{key}-train", key, "ok", cell, artifacts=artifacts, provenance=PROVENANCE))
            for draw in wanted:
                calls = draw.steps or timesteps
                fd = truth(draw, timesteps) * math.exp(spread * rng.standard_normal())
                speed = Measurement("images_per_s", 1 / seconds(calls), "images/s", "higher", 1, "draw")
                measured = (
                    Measurement("fd[digits-cnn]", fd, "", "lower", 100, "draw", 0.9 * fd, 1.1 * fd),
                    Measurement("coverage[digits-cnn]", 0.9, "", "higher", 100, "draw"),
                    Measurement("nfe", float(calls), "", "none", 1, "draw"),
                    *((speed,) if seed == 0 else ()),
                )
                drawn = Cell(cell.model, cell.dataset, cell.budget, seed, cell.config, draw)
                records.append(Record(f"{key}-{draw.label()}", key, "ok", drawn, measured, provenance=PROVENANCE))
    for record in records:
        store.append(folder, record)
    store.write_run(folder, {"matrix": "steps", "families": {"ddpm": FAMILIES["ddpm"]}})
    return make_sheet(open_results(folder), "digits")


def every() -> list[Draw]:
    return [draw for line in DRAWS.values() for draw in line]


def told(sheet: Sheet, start: str) -> str:
    return next(sentence for sentence in steps_findings(sheet) if sentence.startswith(start))


@pytest.mark.parametrize(
    ("draw", "kind"),
    [
        (Draw("ddim", 5), "eta 0"),
        (Draw("ddim", 5, 0.5), "eta 0.5"),
        (Draw("ddim", 5, variance="sigma_hat"), "sigma-hat"),
        (Draw("ddpm"), "eta 1"),
        (Draw("ddpm", variance="beta"), "sigma-hat"),
        (Draw("ddpm", variance="learned"), None),
        (Draw("dpm_solver", 5), None),
        (Draw("ddim", 5, clip=False), "eta 0"),
        (Draw("ddim", 5, options={"x": 1}), None),
    ],
)
def test_a_draws_kind_says_which_noise_its_steps_have(draw: Draw, kind: str | None) -> None:
    assert kind_of(draw) == kind


def test_the_published_picture_is_told_as_expected(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: every()})
    few = told(sheet, "Few steps")
    assert "as expected, at S=5 (next is eta 1, 3." in few
    assert "S=20" in few
    assert "does not" not in few
    gap = told(sheet, "Towards T")
    assert "to 1.1" in gap
    assert gap.endswith("the gap closes, as expected.")
    assert told(sheet, "Sigma-hat at S=5").startswith("Sigma-hat at S=5: the worst, as expected; it has 6.")
    assert "the best, as expected; the next, eta 0, has 1.2" in told(sheet, "Sigma-hat at S=T=1000")
    assert told(sheet, "Time").startswith(
        "Time: linear in S within 1 % from 5 to 1000 network calls, as expected: it grows with S^b, "
        "b = 1.000 [1.000 – 1.000]; 1.00 ms a network call"
    )


def test_an_effect_that_is_turned_round_is_told_as_not_shown(tmp_path: Path) -> None:
    def upside_down(draw: Draw, timesteps: int) -> float:
        return 100 / as_published(draw, timesteps)

    sheet = write(tmp_path, upside_down, {1000: every()}, seconds=lambda calls: 1e-4 * calls**2)
    few = told(sheet, "Few steps")
    assert "this was expected and does not show, at S=5 (eta 1 has 0.3" in few
    assert "expected to be the worst, but eta 0 has" in told(sheet, "Sigma-hat at S=5")
    assert "expected to be the best, but eta 0 has" in told(sheet, "Sigma-hat at S=T=1000")
    assert told(sheet, "Time").startswith("Time: not shown to be linear in S: it grows with S^b, b = 2.000")


def test_a_gap_that_turns_or_widens_is_not_said_to_close(tmp_path: Path) -> None:
    def turning(draw: Draw, timesteps: int) -> float:
        return {5: 1.5, 1000: 0.5}.get(draw.steps or 0, 1.0) if draw.eta else 1.0

    def widening(draw: Draw, timesteps: int) -> float:
        return {5: 1.1, 1000: 3.0}.get(draw.steps or 0, 1.2) if draw.eta else 1.0

    two = {1000: DRAWS["eta 0"] + DRAWS["eta 1"]}
    told_turning = told(write(tmp_path / "a", turning, two), "Towards")
    assert "turns round: eta 1 is the better one at S=T=1000 only" in told_turning
    assert "the gap does not close, unlike" in told(write(tmp_path / "b", widening, two), "Towards")


def test_what_seeds_cannot_tell_is_not_told(tmp_path: Path) -> None:
    sheet = write(tmp_path, lambda draw, timesteps: 10.0, {1000: every()}, spread=0.3)
    assert "not separable from eta 0" in told(sheet, "Few steps")
    assert "these seeds do not tell" in told(sheet, "Towards")


def test_a_model_trained_with_few_timesteps_is_compared_at_its_own_number(tmp_path: Path) -> None:
    def truth(draw: Draw, timesteps: int) -> float:
        return 8.0 if timesteps == 10 else 20.0 if timesteps == 50 else 10.0

    sheet = write(
        tmp_path, truth, {1000: DRAWS["eta 0"] + DRAWS["eta 1"], 10: [Draw("ddpm")], 50: [Draw("ddpm")]}, spread=0.0
    )
    sentence = told(sheet, "A DDPM trained with T=S")
    assert "against eta 1, the same noise, lower at S=10 (0.800×); higher at S=50 (2.00×)" in sentence
    assert "Against eta 0, which has no noise, lower at S=10 (0.800×); higher at S=50 (2.00×)" in sentence
    assert "the worse one at S=50 and the better one at S=10" in sentence
    line = next(line for line in lines(sheet) if line.label == "DDPM trained with T = S")
    assert [calls for calls, _ in line.rows] == [10, 50, 1000]
    assert {line.label for line in lines(sheet)} == {"DDPM trained with T = S", "DDIM eta 0", "DDIM eta 1"}


def test_what_the_noise_alone_does_is_not_laid_to_the_training(tmp_path: Path) -> None:
    """eta 1 halves the FD, and a training with T = S draws by eta 1: against eta 0 it seems better, and is not."""

    def truth(draw: Draw, timesteps: int) -> float:
        return 5.0 if draw.eta or draw.sampler == "ddpm" else 10.0

    sheet = write(tmp_path, truth, {1000: DRAWS["eta 0"] + DRAWS["eta 1"], 10: [Draw("ddpm")], 50: [Draw("ddpm")]})
    sentence = told(sheet, "A DDPM trained with T=S")
    assert "against eta 1, the same noise, not separable at S=10" in sentence
    assert "Against eta 0, which has no noise, lower at S=10 (0.4" in sentence
    assert "So the seeds do not tell the two trainings apart; what sets it apart from eta 0 at S=10, S=50" in sentence
    assert "is not shown to be more than the noise" in sentence
    assert "1000 / T steps of the schedule" in sentence


@pytest.mark.parametrize("spacing", ["trailing", "quadratic"])
def test_a_spacing_is_told_against_uniform_at_every_number_of_steps(tmp_path: Path, spacing: str) -> None:
    draws = every() + [Draw("ddim", s, spacing=spacing, variance="sigma_hat") for s in (5, 10, 20)]
    factor = {5: 1.02, 10: 0.1, 20: 1.5}  # a hundredth is what seeds differ by

    def truth(draw: Draw, timesteps: int) -> float:
        return as_published(draw, timesteps) * (factor[draw.steps or 0] if draw.spacing == spacing else 1)

    sheet = write(tmp_path, truth, {1000: draws}, spread=0.01)
    sentence = told(sheet, spacing.capitalize())
    assert "lower at S=10 (0.1" in sentence
    assert sentence.count("×") == 3
    assert "higher at S=20 (1.5" in sentence
    assert "not separable at S=5 (" in sentence
    assert f"DDIM sigma-hat, {spacing}" in {line.label for line in lines(sheet)}


def test_sigma_hat_is_told_at_every_number_of_steps(tmp_path: Path) -> None:
    sentence = told(write(tmp_path, as_published, {1000: every()}), "Sigma-hat by steps")
    against_zero = sentence.split("Against eta 1")[0]
    assert "lower at S=1000 (0.7" in against_zero
    assert "higher at S=5 (2" in against_zero
    assert "S=100 (2." in against_zero


# Seeds of a line


def without(sheet: Sheet, steps: int, kept: set[int]) -> Sheet:
    """The sheet with the draws of so many steps by these seeds alone."""

    def fewer(row: Row) -> Row:
        if row.draw is None or row.draw.steps != steps:
            return row
        records = tuple(r for r in row.records if r.cell.seed in kept)
        values = {
            m.metric: [n for r in records for n in r.measured if n.metric == m.metric] for m in records[0].measured
        }
        scores = {metric: aggregate(held) for metric, held in values.items()}
        return replace(row, records=records, seeds=tuple(sorted(kept)), scores=scores)

    return replace(sheet, rows=tuple(fewer(row) for row in sheet.rows))


def test_a_line_joins_means_over_the_same_seeds(tmp_path: Path) -> None:
    whole = write(tmp_path, lambda draw, timesteps: 10.0, {1000: DRAWS["eta 0"]}, spread=0.5)
    metric = whole.quality or ""
    for kept, odd, seeds in (({0, 1}, False, {2}), ({0}, True, {3})):
        [(_, points)] = steps_plots.drawn(lines(sheet := without(whole, 1000, kept)), sheet, metric, False)
        assert [point.x for point in points if point.odd] == ([1000] if odd else [])
        assert {point.score.seeds for point in points if not point.odd} == seeds
        for point in points:
            held = {r.cell.seed: m.value for r in point.row.records for m in r.measured if m.metric == metric}
            over = [held[s] for s in (range(3) if not point.odd and odd else sorted(kept))]
            assert point.score.value == pytest.approx(np.mean(over))
    [(_, points)] = steps_plots.drawn(lines(whole), whole, metric, False)
    assert not any(point.odd for point in points)


def test_an_odd_point_is_marked_in_figure_table_and_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told_at: list[str] = []
    annotate = Axes.annotate
    monkeypatch.setattr(
        Axes, "annotate", lambda self, text, *a, **k: told_at.append(text) or annotate(self, text, *a, **k)
    )
    sheet = without(write(tmp_path, as_published, {1000: every()}), 1000, {0})
    picture = steps_plots.over_steps("x", sheet, time=False)
    assert picture is not None
    assert "is of fewer" in picture.caption
    assert picture.svg, "which paints it"
    assert told_at == ["1 seed"]
    table = steps_table(sheet)
    assert table is not None
    for line in table.lines:
        assert line.data[-1].detail.endswith("1 seed")
        assert not any("seed" in datum.detail for datum in line.data[1:-1])
    gap = told(sheet, "Towards")
    assert "at S=100" in gap.split("(of fewer seeds")[0], "ends of the comparison have the same seeds"
    assert "1 seed] at S=1000" in gap


def test_a_gap_that_one_seed_alone_turns_is_not_told_as_turned(tmp_path: Path) -> None:
    def truth(draw: Draw, timesteps: int) -> float:
        return {5: 2.0, 1000: 0.5}.get(draw.steps or 0, 1.3) if draw.eta else 1.0

    sheet = without(write(tmp_path, truth, {1000: DRAWS["eta 0"] + DRAWS["eta 1"]}), 1000, {0})
    assert "turns round" not in told(sheet, "Towards")


def test_nominal_differences_turn_nothing_round(tmp_path: Path) -> None:
    def truth(draw: Draw, timesteps: int) -> float:
        return {5: 0.998, 1000: 0.5}.get(draw.steps or 0, 1.0) if draw.eta else 1.0

    sentence = told(write(tmp_path, truth, {1000: DRAWS["eta 0"] + DRAWS["eta 1"]}, spread=0.01), "Towards")
    assert "from 1.0" in sentence, "the premise: nominally above"
    assert "turns round" not in sentence
    assert "eta 1 is the better one at S=T=1000 only" in sentence


def test_where_eta_0_stops_falling_far_from_the_floor_is_told(tmp_path: Path) -> None:
    sheet = write(tmp_path, lambda d, t: {5: 40.0, 10: 20.0}.get(d.steps or 0, 12.0), {1000: DRAWS["eta 0"]})
    score = sheet.rows[0].scores["fd[digits-cnn]"]

    def beside(floor: float) -> list[str]:
        real = replace(sheet.rows[0], scores={score.metric: replace(score, value=floor)})
        return [text for text in steps_findings(replace(sheet, floor=real)) if text.startswith("Eta 0")]

    [sentence] = beside(1.0)
    assert sentence.startswith("Eta 0 stops falling, as far as the seeds tell, at S=20: ")
    assert "12× the floor's 1.00" in sentence
    assert "4.04 at 1000" in sentence
    assert beside(11.0) == []


# Time


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_ratio_is_paired_by_seed(tmp_path: Path, count: int) -> None:
    seeds = tuple(range(count))
    sheet = write(tmp_path, as_published, {1000: every()}, seeds, spread=0.2)
    study = study_of(sheet)
    assert study is not None
    one, zero = (study.draws[kind, "uniform"][10] for kind in ("eta 1", "eta 0"))
    logs = [math.log(a.measured[0].value / b.measured[0].value) for a, b in zip(one.records, zero.records, strict=True)]
    found = ratio(one, zero, study.quality)
    assert found is not None
    assert found.seeds == count
    assert found.value == pytest.approx(math.exp(np.mean(logs)))
    if count > 1:
        low, high = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    else:
        assert (found.low, found.high) == pytest.approx((found.value * 0.9 / 1.1, found.value * 1.1 / 0.9))


def test_draws_by_another_protocol_are_compared_with_nothing_and_left_out_of_the_line(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: every()})
    rows = [row for row in sheet.rows if row.draw is not None and row.draw.steps == 10]
    fd = rows[0].scores["fd[digits-cnn]"]
    odd = replace(rows[0], scores={**rows[0].scores, fd.metric: replace(fd, protocol='{"n": 7}')})
    assert ratio(rows[0], rows[1], fd.metric) is not None
    assert ratio(odd, rows[1], fd.metric) is None
    mixed = replace(sheet, rows=tuple(odd if row is rows[0] else row for row in sheet.rows))
    whole, fewer = (steps_plots.over_steps("x", one, time=False) for one in (sheet, mixed))
    assert whole is not None
    assert fewer is not None
    assert "left out" not in whole.caption
    assert "1 draw by another protocol" in fewer.caption


def test_ratios_say_what_lies_on_one_side_only() -> None:
    assert Ratio(2.0, 1.1, 3.0, 3).above
    assert Ratio(0.5, 0.2, 0.9, 3).below
    for unclear in (Ratio(2.0, 0.9, 3.0, 3), Ratio(2.0, None, None, 1)):
        assert not unclear.above
        assert not unclear.below


def test_the_clock_finds_the_line_and_what_leaves_it() -> None:
    straight = fit("x", [(s, 0.5 + 0.01 * s) for s in (5.0, 10.0, 100.0, 1000.0)])
    assert (straight.start, straight.slope) == pytest.approx((0.5, 0.01))
    assert straight.worst < 1e-9
    bent = fit("x", [(s, 0.01 * s * (2.0 if s == 100 else 1.0)) for s in (5.0, 10.0, 100.0, 1000.0)])
    assert bent.worst > 0.2


def test_the_clocks_line_and_power_are_those_of_numpy_and_scipy() -> None:
    """Noisy times: weights 1 / seconds make relative errors; the power's interval is Student's t of the slope."""
    x = np.array([5.0, 10.0, 20.0, 50.0, 100.0, 1000.0])
    y = (0.3 + 0.01 * x) * np.exp(0.1 * np.random.default_rng(0).standard_normal(6))
    found = fit("x", list(zip(x.tolist(), y.tolist(), strict=True)))
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    assert (found.start, found.slope) == pytest.approx((start, slope), rel=1e-6)
    assert found.worst == pytest.approx(float(np.abs((start + slope * x) / y - 1).max()), rel=1e-6)
    line = stats.linregress(np.log(x), np.log(y))
    half = line.stderr * stats.t(4).ppf(0.975)
    assert found.power == pytest.approx((line.slope, line.slope - half, line.slope + half))


def test_speeds_by_another_protocol_are_no_points_of_the_clock(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: every()})
    at = next(i for i, row in enumerate(sheet.rows) if row.draw is not None and row.draw.steps == 10)
    speed = sheet.rows[at].scores["images_per_s"]
    odd = replace(speed, value=speed.value / 100, protocol='{"batch": 7}')
    rows = list(sheet.rows)
    rows[at] = replace(rows[at], scores={**rows[at].scores, "images_per_s": odd})
    (whole,), (fewer,) = clocks(sheet), clocks(replace(sheet, rows=tuple(rows)))
    assert len(fewer.points) == len(whole.points) - 1
    assert fewer.worst < 1e-6


@pytest.mark.parametrize(("power", "noise"), [(1.0, 0.0), (1.0, 0.1), (1.04, 0.0)])
def test_linearity_is_told_by_how_far_time_may_be_off(tmp_path: Path, power: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    factors = {s: math.exp(noise * rng.standard_normal()) for s in STEPS}
    sheet = write(tmp_path, as_published, {1000: every()}, seconds=lambda s: 1e-3 * s**power * factors[s])
    [clock] = clocks(sheet)
    worst = max(abs(bound - 1) for bound in clock.power[1:])
    assert clock.bent == pytest.approx(200**worst - 1)
    assert f"linear in S within {math.ceil(100 * clock.bent) or 1} %" in told(sheet, "Time")
    assert "busy" not in told(sheet, "Time")


def test_a_machine_that_was_not_steady_has_its_times_pooled_by_network_calls(tmp_path: Path) -> None:
    whole = write(tmp_path, as_published, {1000: every()})

    def limited(slow: float) -> Sheet:
        rows = []
        for i, row in enumerate(whole.rows):
            speed = row.scores["images_per_s"]
            slower = slow if i < len(STEPS) else 1.0  # the first line
            limit = replace(speed, metric="limit_s[large]", value=slower / speed.value, unit="s")
            timed = replace(speed, value=speed.value / slower)
            rows.append(replace(row, scores={**row.scores, limit.metric: limit, speed.metric: timed}))
        return replace(whole, rows=tuple(rows))

    for slow, unlike in ((1.05, 2), (1.6, 1)):
        sheet = limited(slow)
        held = steps_plots.drawn(lines(sheet), sheet, sheet.quality, time=True)
        places = [[point.x for point in points][2] for _, points in held]  # S = 20 of three kinds
        assert len({round(x, 9) for x in places}) == unlike
        picture = steps_plots.over_steps("x", sheet, time=True)
        assert picture is not None
        assert ("median time of a call" in picture.caption) == (unlike == 1)


def test_the_clock_marks_each_sampler(tmp_path: Path) -> None:
    [clock] = clocks(write(tmp_path, as_published, {1000: every()}))
    assert set(clock.samplers) == {"DDIM eta 0", "DDIM eta 1", "DDIM sigma-hat"}
    looks = clock_plot._looks([clock])
    assert len(set(looks.values())) == 3


def test_speeds_of_one_number_of_steps_make_no_clock(tmp_path: Path) -> None:
    assert clocks(write(tmp_path, as_published, {1000: [DRAWS["eta 0"][0], DRAWS["eta 1"][0]]})) == []


def test_the_table_has_a_column_a_number_of_calls_and_marks_the_lowest(tmp_path: Path) -> None:
    table = steps_table(write(tmp_path, as_published, {1000: every()}))
    assert table is not None
    assert [column.title for column in table.columns[1:]] == [f"{s} calls" for s in STEPS]
    rows = {line.data[0].text: line.data[1:] for line in table.lines}
    assert [d.best for d in rows["DDIM eta 0"]] == [True] * 5 + [False]
    assert [d.best for d in rows["DDIM sigma-hat"]] == [False] * 5 + [True]


def test_without_draws_over_steps_nothing_is_said(make_results: Make) -> None:
    folder = make_results(models=("real", "vae", "dcgan"))
    assert gather(open_results(folder)).sections[0].steps is None


def test_a_draw_in_one_pass_is_no_point_of_a_line(tmp_path: Path) -> None:
    sheet = write(tmp_path, lambda draw, timesteps: 5.0, {1000: [*DRAWS["eta 0"][:5], Draw("mean"), Draw("heun")]})
    assert "mean of p(x|z)" in {way(row.draw) for row in sheet.rows if row.draw is not None}, "the premise"
    assert [line.label for line in lines(sheet)] == ["DDIM eta 0", "Heun"]


def test_two_checkpoints_have_lines_that_name_them_in_looks_of_their_own(tmp_path: Path) -> None:
    draws = DRAWS["eta 0"][:5]
    sheet = write(tmp_path, lambda draw, timesteps: 5.0, {1000: draws, 500: draws})
    labels = [line.label for line in lines(sheet)]
    assert labels == ["timesteps=1000: DDIM eta 0", "timesteps=500: DDIM eta 0"], "what they have in common is left out"
    looks = looks_of(lines(sheet))
    assert len({(look.hue, look.shape, look.dashes) for look in looks.values()}) == len(labels)


def test_ancestral_draws_leave_ddims_colours_as_they_are(tmp_path: Path) -> None:
    sheet = write(tmp_path, as_published, {1000: [*every(), Draw("ddpm", 1000)]})
    looks = looks_of(lines(sheet))
    assert looks["DDIM eta 1"].hue == "#D55E00"
    assert len(set(looks.values())) == len(looks) == 4


@pytest.mark.parametrize("long", [False, True])
def test_a_legend_is_no_wider_than_its_figure(tmp_path: Path, long: bool) -> None:
    words = "schedule=cosine, prediction=v" if long else ""
    labels = [f"{words} DDIM eta {i}, trailing" for i in range(7)]
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    FigureCanvasAgg(figure)
    canvas = figure.subplots()
    for label in labels:
        canvas.plot([1, 2], [1, 2], label=label)
    with mpl.rc_context(style._SETTINGS):
        legend(figure, canvas)
        figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_captions_name_the_line_styles_that_are_drawn() -> None:
    assert DASHES == {"uniform": "-", "trailing": "--", "quadratic": "-.", "log_snr": ":"}
    assert SPACINGS_TOLD == (
        "solid lines are uniform timesteps, dashed ones trailing, dash-dotted ones quadratic, dotted ones log_snr"
    )
    figure = Figure()
    FigureCanvasAgg(figure)
    canvas = figure.subplots()
    score = aggregate([Measurement("fd[x]", 2.0, "", "lower", 1, "draw")])
    row = Row(ModelInfo("real", "Real", "references"), "", Draw(), (0,), {"fd[x]": score}, {}, ())
    floor_line(canvas, Sheet("digits", (), row, None, "fd[x]", None, None, None, None))
    assert canvas.lines[0].get_linestyle() == ":"
    assert "dotted" in FLOOR_TOLD


@pytest.mark.parametrize("plain", [True, False])
def test_forty_lines_look_unlike_each_other(plain: bool) -> None:
    kinds = ["eta 0", "eta 0.5", "eta 1", "sigma-hat", "ddpm T=S", *(f"solver {i}" for i in range(35))]
    many = [Line(f"line {i}", kind if plain else "eta 0", "uniform", ()) for i, kind in enumerate(kinds)]
    looks = looks_of(many)
    assert len(set(looks.values())) == len(many)


# Terms by timestep

TERMS = {"vlb": {"L_t": {"mean": [1.0, 0.1, 0.01], "low": [0.9, 0.09, 0.0], "high": [1.1, 0.11, 0.02]}}}


def put(folder: Path, data: bytes) -> Artifact:
    return save_artifact(folder, "likelihood_curves", data, "json")


def test_terms_are_read_as_they_were_written_and_other_curves_left(tmp_path: Path) -> None:
    plain = TERMS | {"pf_ode": {"other": {}}}
    assert read_terms(tmp_path, put(tmp_path, json.dumps(plain).encode())) == {
        "vlb": Band((1.0, 0.1, 0.01), (0.9, 0.09, 0.0), (1.1, 0.11, 0.02))
    }


def test_terms_of_a_single_image_have_no_width(tmp_path: Path) -> None:
    data = b'{"vlb": {"L_t": {"mean": [2.0, 1.0], "low": [null, null], "high": [null, null]}}}'
    assert read_terms(tmp_path, put(tmp_path, data)) == {"vlb": Band((2.0, 1.0), (2.0, 1.0), (2.0, 1.0))}


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"vlb": {"L_t": {"mean": [null], "low": [1], "high": [1]}}}',
        b"[]",
        b'{"vlb": 3}',
        b'{"vlb": {"L_t": [1, 2]}}',
        b'{"vlb": {"L_t": {"mean": [], "low": [], "high": []}}}',
        b'{"vlb": {"L_t": {"mean": [1, 2], "low": [1], "high": [1, 2]}}}',
        b'{"vlb": {"L_t": {"mean": [1], "low": [NaN], "high": [1]}}}',
        b'{"vlb": {"L_t": {"mean": ["x"], "low": [1], "high": [1]}}}',
        b'{"vlb": {"L_t": {"mean": [1], "low": [1]}}}',
        b"[" * 100_000,
    ],
)
def test_broken_terms_are_told(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="expected terms by likelihood"):
        read_terms(tmp_path, put(tmp_path, data))


def test_terms_make_a_figure_and_their_absence_none(tmp_path: Path) -> None:
    def names(folder: Path) -> set[str]:
        return {picture.name for picture in gather(open_results(folder)).sections[0].pictures}

    write(tmp_path / "with", as_published, {1000: every()[:2]}, terms=json.dumps(TERMS).encode())
    write(tmp_path / "without", as_published, {1000: every()[:2]})
    assert "terms-digits" in names(tmp_path / "with")
    assert "terms-digits" not in names(tmp_path / "without")
    negative = terms_plot.terms("x", [("a", Band((1.0, -0.1), (0.9, -0.2), (1.1, 0.0)))])
    assert negative is not None
    assert "not above 0 are left out" in negative.caption
    assert terms_plot.terms("x", [("a", Band((-1.0,), (-1.0,), (-1.0,)))]) is None


def test_broken_terms_are_noted_and_the_report_goes_on(tmp_path: Path) -> None:
    write(tmp_path, as_published, {1000: every()[:2]}, terms=b"{}{")
    content = gather(open_results(tmp_path))
    assert any("expected terms by likelihood" in note for note in content.notes)
    assert content.sections[0].steps is not None
