"""What two rows are said to differ in: how often chance alone is taken for a difference, and what is never compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from baselines.types import Budget, Draw
from bench.record import Cell, Measurement, Record
from bench.report.apart import SPEED_TOLERANCE, told_apart
from bench.report.findings import findings
from bench.report.grouping import aggregate, make_sheet
from bench.report.ratios import ratio
from bench.report.rows import Row, Sheet
from bench.report.source import ModelInfo, open_results

Make = Callable[..., Path]
FD = "fd[digits-cnn]"


def row(values: Sequence[float], name: str = "a", metric: str = FD, unit: str = "") -> Row:
    """A row whose seeds 0, 1, ... have these values."""
    made = []
    for seed, value in enumerate(values):
        measured = Measurement(metric, value, unit, "lower", 100, "draw")
        cell = Cell(name, "digits", Budget(images=1), seed, {}, Draw())
        made.append(Record(f"{name}{seed}", name, "ok", cell, (measured,)))
    score = aggregate([r.measured[0] for r in made])
    return Row(ModelInfo(name, name, "gans"), "", Draw(), tuple(range(len(values))), {metric: score}, {}, tuple(made))


def sheet_of(folder: Path) -> Sheet:
    source = open_results(folder)
    return make_sheet(source, source.datasets[0])


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_chance_alone_tells_two_rows_apart_in_one_of_twenty(seeds: int) -> None:
    rng, trials = np.random.default_rng(seeds), 600
    drawn = np.exp(0.3 * rng.standard_normal((trials, 2, seeds)))
    pairs = [(row(list(a)), row(list(b), "b")) for a, b in drawn]
    apart = sum(told_apart(a, b, FD) for a, b in pairs)
    low, high = stats.binom.interval(0.999, trials, 0.05)
    assert low <= apart <= high
    ratios = [ratio(a, b, FD) for a, b in pairs]
    assert sum(r is not None and not r.unclear for r in ratios) == apart, "sentences on steps go by the same rule"


def test_two_seeds_ratio_has_the_t_interval_that_scipy_gives() -> None:
    found = ratio(row([4.0, 5.0]), row([2.0, 2.2], "b"), FD)
    logs = np.log([4.0 / 2.0, 5.0 / 2.2])
    assert found is not None
    assert (found.low, found.high) == pytest.approx(np.exp(stats.t.interval(0.95, 1, logs.mean(), stats.sem(logs))))


@pytest.mark.parametrize("pair", [((3.0, 3.2), (3.3, 3.5)), ((1.0, 1.5), (1.51, 9.0))])
def test_ranges_of_two_seeds_that_do_not_meet_show_no_difference(pair: tuple[Sequence[float], Sequence[float]]) -> None:
    a, b = (aggregate([Measurement("bits_per_dim[x]", v, "", "lower", 1, "train") for v in side]) for side in pair)
    assert a.high is not None
    assert b.low is not None
    assert a.high < b.low, "the premise"
    assert a.overlaps(b, 0.0)
    assert b.overlaps(a, 0.0)
    far = aggregate([Measurement("bits_per_dim[x]", v, "", "lower", 1, "train") for v in (90.0, 90.1)])
    assert not far.overlaps(a)


def test_what_seeds_have_in_common_does_not_hide_a_difference() -> None:
    base = np.array([1.0, 3.0, 9.0])
    a, b = row(list(base)), row(list(1.2 * base * np.array([1.0, 1.01, 0.99])), "b")
    assert a.scores[FD].overlaps(b.scores[FD]), "the premise: the intervals overlap"
    assert told_apart(a, b, FD)


def test_speeds_within_a_tenth_are_not_told_apart_whatever_their_intervals() -> None:
    speeds = [row([v, 1.001 * v], n, "images_per_s", "images/s") for v, n in ((100.0, "a"), (108.0, "b"), (150.0, "c"))]
    assert told_apart(speeds[0], speeds[1], "images_per_s"), "the premise"
    assert not told_apart(speeds[0], speeds[1], "images_per_s", least=SPEED_TOLERANCE)
    assert told_apart(speeds[0], speeds[2], "images_per_s", least=SPEED_TOLERANCE)


def change_fd(values: dict[str, Callable[[Record], float]]) -> Callable[[Record], Record]:
    """Set the FD of these models' draws, without an interval."""

    def change(record: Record) -> Record:
        if record.cell.model not in values or record.cell.draw is None:
            return record
        value = values[record.cell.model](record)
        kept = (replace(m, value=value, low=None, high=None) if m.metric == FD else m for m in record.measured)
        return replace(record, measured=tuple(kept))

    return change


def few_steps(sheet: Sheet) -> str:
    return next(text for text in findings(sheet) if text.startswith("On the same"))


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((1.04, 1.05, 1.06), "higher beyond noise; seeds 0, 1 and 2)"),
        ((0.80, 1.0, 1.25), "not separable; seeds 0, 1 and 2)"),
        ((0.50, 0.51, 0.52), "lower beyond noise; seeds 0, 1 and 2)"),
    ],
)
def test_what_ddim_costs_is_told_with_its_ratio_by_seed_and_whether_it_is_noise(
    make_results: Make, factors: Sequence[float], words: str
) -> None:
    def fd(record: Record) -> float:
        draw, seed = record.cell.draw, record.cell.seed
        assert draw is not None
        if draw.sampler == "ddpm":
            return (2.0, 6.0, 18.0)[seed]
        return (2.0, 6.0, 18.0)[seed] * (factors[seed] if (draw.steps, draw.eta) == (20, 0.0) else 3.0)

    def everywhere(record: Record) -> Record:
        return change_fd({"ddpm": fd})(record)

    folder = make_results(models=("real", "ddpm", "histogram"), seeds=(0, 1, 2), change=everywhere, ancestral=True)
    told = few_steps(sheet_of(folder))
    assert "DDIM with 20 steps (eta 0)" in told
    logs = np.log(factors)
    assert f"({math.exp(logs.mean()):.3g}".rstrip("0") in told.replace("×", "")
    assert words in told


def test_one_draw_that_failed_leaves_the_sentence_on_ddim_standing(make_results: Make) -> None:
    def failing(record: Record) -> Record:
        draw = record.cell.draw
        if draw is None or (draw.steps, draw.eta) != (5, 1.0):
            return record
        return replace(record, status="failed", error="NaN", measured=(), artifacts=())

    whole, broken = (sheet_of(make_results(n, change=c)) for n, c in (("a", lambda r: r), ("b", failing)))
    assert any(row.failed and not row.seeds for row in broken.rows), "the premise"
    assert few_steps(broken).split("; at")[0] == few_steps(whole).split("; at")[0]


def test_ddim_is_not_held_against_an_fd_of_another_protocol(make_results: Make) -> None:
    def few(record: Record) -> Record:
        draw = record.cell.draw
        if draw is None or draw.sampler != "ddim" or draw.steps == 100:
            return record
        return replace(record, measured=tuple(replace(m, n=60) if m.metric == FD else m for m in record.measured))

    assert "DDIM with 100 steps" in few_steps(sheet_of(make_results(change=few)))


def test_rivals_under_another_protocol_are_no_ties(make_results: Make) -> None:
    def tied(record: Record) -> Record:
        changed = change_fd({"dcgan": lambda r: 1.2 + 0.1 * r.cell.seed, "vae": lambda r: 1.25 + 0.05 * r.cell.seed})
        record = changed(record)
        if record.cell.model != "vae" or not few:
            return record
        return replace(record, measured=tuple(replace(m, n=60) if m.metric == FD else m for m in record.measured))

    models = ("real", "vae", "dcgan", "gmm", "histogram")
    for few, ties in ((False, True), (True, False)):
        told = findings(sheet_of(make_results(str(few), models=models, change=tied)))[0]
        assert ("not separable from VAE" in told.split(";")[0]) == ties


def test_a_deep_model_that_seeds_do_not_tell_from_the_best_reference_is_neither_behind_nor_ahead(
    make_results: Make,
) -> None:
    values = {
        "gmm": lambda r: (2.0, 3.0, 2.5)[r.cell.seed],
        "vae": lambda r: (3.0, 2.0, 2.4)[r.cell.seed],
        "dcgan": lambda r: (8.0, 9.0, 8.5)[r.cell.seed],
        "realnvp": lambda r: (0.1, 0.11, 0.105)[r.cell.seed],
    }
    models = ("real", "vae", "dcgan", "realnvp", "gmm", "histogram")
    sheet = sheet_of(make_results(models=models, seeds=(0, 1, 2), change=change_fd(values)))
    [told] = [text for text in findings(sheet) if "best reference model" in text]
    assert told.startswith("1 of 3 deep models does not beat the best reference model, GMM")
    assert "DCGAN (8.5" in told.split("Not separable")[0]
    assert told.endswith("Not separable from it at these seeds: VAE (2.47).")


def test_likelihoods_that_are_not_told_from_the_lowest_of_their_kind_are_named(make_results: Make) -> None:
    def close(record: Record) -> Record:
        values = {"vae": 1.9 + 0.02 * record.cell.seed, "realnvp": 1.91 + 0.02 * record.cell.seed, "ddpm": 3.05}
        if record.cell.model not in values:
            return record
        own = values[record.cell.model]
        kept = (replace(m, value=own) if m.kind == "upper_bound" else m for m in record.measured)
        return replace(record, measured=tuple(kept))

    sheet = sheet_of(make_results(models=("real", "vae", "realnvp", "ddpm"), seeds=(0, 1, 2), change=close))
    [told] = [text for text in findings(sheet) if text.startswith("Lowest")]
    assert "VAE ≤ 1.92 (upper bound, not separable from RealNVP)" in told


def test_what_two_seeds_cannot_tell_is_said_where_there_are_two(make_results: Make) -> None:
    values = {"vae": lambda r: 8.0 + r.cell.seed, "dcgan": lambda r: 9.0 - r.cell.seed}
    for seeds in ((0,), (0, 1), (0, 1, 2)):
        folder = make_results(str(seeds), models=("real", "vae", "dcgan"), seeds=seeds, change=change_fd(values))
        told = [text for text in findings(sheet_of(folder)) if text.startswith("With two seeds")]
        assert len(told) == (len(seeds) == 2)
        if told:
            assert f"{stats.t.ppf(0.975, 1):.1f}" in told[0]
            assert f"{stats.t.ppf(0.975, 2):.2f}" in told[0]
