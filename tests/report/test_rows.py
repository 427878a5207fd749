"""Rows, marks and sentences: seeds, last and stale records, protocols, references, kinds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from baselines.errors import UserError
from bench import store
from bench.record import Measurement, Record
from bench.report.findings import findings
from bench.report.grouping import NEAR_BEST, aggregate, make_sheet
from bench.report.marks import Footnotes, difference, protocol_marks, unbeaten_fd, unbeaten_likelihood
from bench.report.numbers import number
from bench.report.rows import Row, Score, Sheet, likelihoods
from bench.report.side_tables import cost_table, likelihood_table, other_table, skipped_table
from bench.report.source import open_results
from bench.report.tables import main_table

Make = Callable[..., Path]
FD = "fd[digits-cnn]"


def sheet_of(folder: Path) -> Sheet:
    source = open_results(folder)
    return make_sheet(source, source.datasets[0])


def row_of(sheet: Sheet, model: str, draw: str = "native") -> Row:
    return next(r for r in sheet.all if r.model.name == model and r.draw is not None and r.draw.label() == draw)


def seeds(*values: float, low: float | None = None, high: float | None = None) -> list[Measurement]:
    return [Measurement("fd[x]", v, "", "lower", 100, "draw", low, high) for v in values]


def scaled(model: str, metric: str, value: float) -> Callable[[Record], Record]:
    """A change that sets one metric of one model."""

    def change(record: Record) -> Record:
        if record.cell.model != model:
            return record
        return replace(
            record, measured=tuple(replace(m, value=value) if m.metric == metric else m for m in record.measured)
        )

    return change


def test_three_seeds_have_the_t_interval_that_scipy_gives() -> None:
    values = (2.0, 2.5, 4.0, 3.1)
    logs = [math.log(v) for v in values]
    score = aggregate(seeds(*values))
    low, high = stats.t.interval(0.95, 3, statistics.mean(logs), stats.sem(logs))
    assert (score.value, score.low, score.high) == pytest.approx(
        (statistics.mean(values), math.exp(low), math.exp(high))
    )
    assert (score.spread, score.seeds) == ("t", 4)
    bits = aggregate([replace(m, metric="bits_per_dim[vlb]") for m in seeds(*values)])
    low, high = stats.t.interval(0.95, 3, statistics.mean(values), stats.sem(values))
    assert (bits.low, bits.high) == pytest.approx((low, high)), "of what may be below 0"


@pytest.mark.parametrize(
    ("metric", "unit", "low", "high"),
    [
        ("fd[x]", "", 0.0, math.inf),
        ("latency_s[p50]", "s", 0.0, math.inf),
        ("images_per_s", "images/s", 0.0, math.inf),
        ("host_peak_bytes", "B", 0.0, math.inf),
        ("coverage[x]", "", 0.0, 1.0),
        ("recall[x]", "", 0.0, 1.0),
        ("attribute_accuracy[digit]", "", 0.0, 1.0),
        ("r_precision[all]", "", 0.0, 1.0),
        ("paired_error[source]", "", 0.0, 1.0),
        ("cycle_l1", "", 0.0, 1.0),
    ],
)
def test_no_interval_leaves_what_the_quantity_can_be(metric: str, unit: str, low: float, high: float) -> None:
    values = (0.9, 0.05, 0.02) if high == 1 else (90.0, 5.0, 2.0)
    plain = stats.t.interval(0.95, 2, statistics.mean(values), stats.sem(values))
    assert plain[0] < low, "the premise"
    score = aggregate([Measurement(metric, v, unit, "none", 1, "draw") for v in values])
    assert score.low is not None
    assert score.high is not None
    assert low <= score.low < score.high <= high
    assert score.low > 0 or high == 1


def test_shares_end_at_one_and_a_share_of_other_requests_is_another_protocol() -> None:
    values = (1.0, 0.96, 0.99)
    plain = stats.t.interval(0.95, 2, statistics.mean(values), stats.sem(values))
    assert plain[1] > 1, "the premise"
    made = [Measurement("attribute_accuracy[ink]", v, "", "higher", 360, "draw") for v in values]
    score = aggregate(made)
    assert (score.low, score.high) == (pytest.approx(plain[0]), 1.0)
    assert not score.mixed
    assert aggregate([*made, replace(made[0], n=180)]).mixed


def test_two_seeds_have_their_range_and_one_its_own_interval() -> None:
    two = aggregate(seeds(3.0, 2.0, low=1.0, high=9.0))
    assert (two.value, two.low, two.high, two.spread) == (2.5, 2.0, 3.0, "range")
    far = aggregate(seeds(1.0, 1e60))
    assert (far.low, far.high) == (1.0, 1e60), "one has diverged, and its page is made all the same"
    one = aggregate(seeds(3.0, low=1.0, high=9.0))
    assert (one.value, one.low, one.high, one.spread) == (3.0, 1.0, 9.0, "own")
    bare = aggregate(seeds(3.0))
    assert (bare.low, bare.high, bare.spread) == (None, None, "")


def test_the_last_record_of_a_key_is_the_one_reported(make_results: Make) -> None:
    folder = make_results(models=("real", "vae", "histogram"), seeds=(0,))
    drawn = next(r for r in store.load(folder).records if r.cell.model == "vae" and r.cell.draw is not None)
    again = replace(drawn, measured=tuple(replace(m, value=77.0) if m.metric == FD else m for m in drawn.measured))
    store.append(folder, again)
    assert row_of(sheet_of(folder), "vae").value(FD) == 77.0


def test_records_that_the_matrix_no_longer_wants_are_stale_and_left_out(make_results: Make) -> None:
    folder = make_results(models=("real", "vae", "dcgan"), seeds=(0,))
    info = store.read_run(folder)
    store.write_run(folder, {**info, "keys": [key for key in info["keys"] if "dcgan" not in key]})
    source = open_results(folder)
    assert {r.cell.model for r in source.stale} == {"dcgan"}
    assert {r.cell.model for r in source.records} == {"real", "vae"}
    store.write_run(folder, {**info, "keys": []})
    with pytest.raises(UserError, match="stale"):
        open_results(folder)


def test_records_follow_the_order_of_the_matrix(make_results: Make) -> None:
    folder = make_results(models=("real", "vae"), seeds=(0, 1))
    info = store.read_run(folder)
    store.write_run(folder, {**info, "keys": info["keys"][::-1]})
    assert [r.key for r in open_results(folder).records] == info["keys"][::-1]


def test_a_row_has_the_training_numbers_of_all_its_seeds(make_results: Make) -> None:
    row = row_of(sheet_of(make_results(models=("real", "ddpm"))), "ddpm", "ddpm")
    assert row.scores[FD].seeds == 1  # ancestral sampling was drawn with seed 0 alone
    assert row.scores["bits_per_dim[vlb]"].seeds == 2


def test_configs_of_one_model_are_rows_of_their_own_named_by_what_differs(make_results: Make) -> None:
    def tuned(record: Record) -> Record:
        if record.cell.seed == 0:
            return record
        return replace(record, cell=replace(record.cell, config={"lr": 0.5}))

    sheet = sheet_of(make_results(models=("real", "vae"), change=tuned))
    assert [row.title for row in sheet.rows] == ["VAE (lr=0.002)", "VAE (lr=0.5)"]


def test_the_picture_has_the_fastest_draw_that_seeds_do_not_tell_from_the_best(make_results: Make) -> None:
    """FD 1.5 times the best at S=20, but by seeds that disagree; 3 times at S=10, by seeds that agree."""

    def noisy(record: Record) -> Record:
        draw = record.cell.draw
        if record.cell.model != "ddpm" or draw is None or draw.sampler != "ddim":
            return record
        fd = {5: 8.0, 10: 3.0, 20: (0.5, 3.0, 1.0)[record.cell.seed], 50: 2.0, 100: 1.0}[draw.steps or 0] + draw.eta
        kept = tuple(replace(m, value=fd, low=None, high=None) if m.metric == FD else m for m in record.measured)
        return replace(record, measured=kept)

    sheet = sheet_of(make_results(models=("real", "ddpm"), seeds=(0, 1, 2), change=noisy))
    ddim = [r for r in sheet.rows if r.draw is not None and r.draw.sampler == "ddim"]
    values = {(r.draw.steps, r.draw.eta): r.scores[FD].value for r in ddim if r.draw is not None}
    assert min(values, key=lambda key: values[key]) == (100, 0.0)
    assert values[20, 0.0] > NEAR_BEST * values[100, 0.0], "the premise: not within a tenth of the best"
    assert [r.short for r in ddim if r.shown] == ["DDPM · DDIM 20 eta 0"]


def test_one_draw_a_sampler_stands_in_the_picture_the_fewest_steps_near_the_best(results: Path) -> None:
    sheet = sheet_of(results)
    ddim = [r for r in sheet.rows if r.draw is not None and r.draw.sampler == "ddim"]
    shown = [r for r in ddim if r.shown]
    assert len(shown) == 1
    best = min(r.scores[FD].value for r in ddim)
    near = [r.draw.steps for r in ddim if r.draw is not None and r.scores[FD].value <= NEAR_BEST * best]
    assert shown[0].draw is not None
    assert shown[0].draw.steps == min(s for s in near if s is not None)
    assert row_of(sheet, "ddpm", "ddpm").shown


def test_a_model_that_does_not_beat_a_reference_is_marked(make_results: Make) -> None:
    folder = make_results(seeds=(0,), change=scaled("vae", FD, 70.0))
    sheet = sheet_of(folder)
    fds = {r.title: r.scores[FD].value for r in sheet.references}
    expected = sorted((t for t, v in fds.items() if v <= 70.0), key=lambda t: fds[t])
    assert expected == ["GMM", "Gaussian"]  # the premise: two references below, one above
    assert unbeaten_fd(row_of(sheet, "vae"), sheet) == expected
    assert unbeaten_fd(row_of(sheet, "ddpm", "ddpm"), sheet) == []
    assert unbeaten_fd(row_of(sheet, "gaussian"), sheet) == []  # a reference need not beat the others
    datum = next(line.data[1] for line in main_table(sheet).lines if line.data[0].text == "VAE")
    assert datum.flags == tuple(expected)
    assert any("do not beat the best reference model, GMM" in text for text in findings(sheet))


def test_a_bound_above_a_reference_is_marked_as_not_below_it(results: Path) -> None:
    sheet = sheet_of(results)
    ddpm = row_of(sheet, "ddpm", "ddpm")
    assert likelihoods(ddpm)[0].value > 3.0  # above histogram 2.43, gmm 2.68, gaussian 2.94
    assert unbeaten_likelihood(ddpm, sheet) == ["Histogram", "GMM", "Gaussian"]
    assert unbeaten_likelihood(row_of(sheet, "pixelcnn"), sheet) == []


def test_likelihoods_of_different_kinds_are_sorted_apart_and_each_kind_has_its_own_best(results: Path) -> None:
    table = main_table(sheet_of(results))
    at = next(i for i, c in enumerate(table.columns) if c.title == "bits/dim")
    data = {line.data[0].text: line.data[at] for line in table.lines}
    assert data["PixelCNN"].text == "= 1.76"
    assert data["VAE"].text == "≤ 1.91"
    exact, bound = data["Histogram"].sort, data["VAE"].sort
    assert isinstance(exact, float)
    assert isinstance(bound, float)
    assert exact < bound  # 2.43 exact comes before 1.91 bound: by kind first
    assert data["PixelCNN"].best
    assert data["VAE"].best
    assert not data["Histogram"].best


def test_a_score_of_another_protocol_is_marked_with_what_differs(make_results: Make) -> None:
    def fewer(record: Record) -> Record:
        if record.cell.model != "dcgan":
            return record
        return replace(record, measured=tuple(replace(m, n=360) if m.metric == FD else m for m in record.measured))

    sheet = sheet_of(make_results(seeds=(0,), change=fewer))
    notes = Footnotes()
    marks = protocol_marks(sheet.all, [FD, "coverage[digits-cnn]"], notes)
    marked = [(sheet.all[i].model.name, metric) for i, metric in marks]
    assert marked == [("dcgan", FD)]
    assert notes.listed() == [("a", "other protocol: n: 360, most rows 1437")]
    datum = next(line.data[1] for line in main_table(sheet).lines if line.data[0].text == "DCGAN")
    assert datum.mark == "a"


def test_a_score_of_another_protocol_is_neither_best_nor_first_without_a_word(make_results: Make) -> None:
    def lucky(record: Record) -> Record:
        if record.cell.model != "dcgan":
            return record
        few = (replace(m, n=360, value=1.1) if m.metric == FD else m for m in record.measured)
        return replace(record, measured=tuple(few))

    sheet = sheet_of(make_results(seeds=(0,), change=lucky))
    best = [line.data[0].text for line in main_table(sheet).lines if line.data[1].best]
    assert len(best) == 1
    assert best != ["DCGAN"]
    assert "DCGAN is first in quality (FD 1.10, under a protocol unlike most)" in findings(sheet)[0]


def test_seeds_and_the_state_of_the_model_are_never_another_protocol() -> None:
    a, b = (replace(m, protocol={"seed": i, "split": "test"}) for i, m in enumerate(seeds(1.0, 2.0)))
    assert not aggregate([a, b]).mixed
    raw, averaged = (replace(a, protocol={"subject": {"weights": w}, "split": "test"}) for w in ("raw", "EMA"))
    assert aggregate([raw]).protocol == aggregate([averaged]).protocol  # a property of the row, not of the ruler
    c = replace(b, protocol={"seed": 1, "split": "train"})
    assert aggregate([a, c]).mixed


def test_protocol_differences_name_nested_fields_and_missing_ones() -> None:
    told = difference('{"extractor": {"hash": "b"}, "n": 5}', '{"extractor": {"hash": "a"}, "n": 5, "ema": true}')
    assert told == "other protocol: ema: not told, most rows true; extractor.hash: b, most rows a"


def test_footnote_letters_go_on_after_z() -> None:
    notes = Footnotes()
    letters = [notes.letter(str(i)) for i in range(28)]
    assert (letters[0], letters[25], letters[26], letters[27]) == ("a", "z", "aa", "ab")


def test_floor_and_ceiling_stand_first_and_last_and_in_every_head(results: Path) -> None:
    table = main_table(sheet_of(results))
    assert [table.lines[0].part, table.lines[-1].part] == ["floor", "ceiling"]
    assert {line.part for line in table.lines[1:-1]} == {"body"}
    assert table.columns[1].ends.startswith("floor 1.00\nceiling 1")


def test_findings_name_the_corners_and_what_ddim_buys(results: Path) -> None:
    sheet = sheet_of(results)
    corners, steps, *_ = findings(sheet)
    fastest = max(
        (r for r in sheet.rows if not r.model.is_reference and r.shown), key=lambda r: r.value(sheet.speed) or 0
    )
    assert f"{fastest.short} is first in speed ({number(fastest.scores['images_per_s'].value)} images/s)" in corners
    slow = row_of(sheet, "ddpm", "ddpm")
    quick = row_of(sheet, "ddpm", "ddim S=20 eta=0")
    assert quick.scores[FD].value <= 1.1 * slow.scores[FD].value  # the premise
    assert "DDIM with 20 steps (eta 0) makes images 50× as fast" in steps
    [paired] = [m.value for r in quick.records if r.cell.seed == 0 for m in r.measured if m.metric == FD]
    assert paired != quick.scores[FD].value  # ancestral sampling has seed 0 alone
    assert (
        f"FD {number(paired)} against {number(slow.scores[FD].value)} ({number(paired / slow.scores[FD].value)}×"
        in steps
    )
    assert "; seed 0)" in steps


def test_a_score_without_an_interval_wins_nothing_that_its_rivals_interval_reaches() -> None:
    def score(value: float, half: float | None) -> Score:
        low, high = (None, None) if half is None else (value - half, value + half)
        return Score(FD, value, low, high, "", 1, "", "lower", None, "", False, "")

    assert score(1.0, None).overlaps(score(1.15, 0.1), 0.1)
    assert score(1.15, 0.1).overlaps(score(1.0, None), 0.1)
    assert not score(1.0, None).overlaps(score(1.3, 0.1), 0.1)
    assert score(1.0, None).overlaps(score(9.0, None))
    assert not score(1.0, 0.1).overlaps(score(1.3, 0.1))


@pytest.mark.parametrize(("slowdown", "warned"), [(1.05, False), (1.5, True)])
def test_a_network_that_slowed_down_between_draws_is_told(make_results: Make, slowdown: float, warned: bool) -> None:
    def timed(record: Record) -> Record:
        calls = next((m for m in record.measured if m.metric == "nfe" and m.value), None)
        if calls is None or record.cell.draw is None:
            return record
        forward_s = 0.01 * (slowdown if record.cell.draw.sampler == "ddpm" else 1)
        limit = replace(calls, metric="limit_s[large]", value=calls.value * forward_s, unit="s")
        return replace(record, measured=(*record.measured, limit))

    told = [line for line in findings(sheet_of(make_results(change=timed))) if "not steady" in line]
    assert bool(told) == warned
    if told:
        assert "DDPM's network took between 10.0 ms and 15.0 ms a call" in told[0]


def test_overlapping_intervals_are_told_in_the_findings(make_results: Make) -> None:
    def tie(record: Record) -> Record:
        low = 2.0 + 0.01 * record.cell.seed
        value = {"vae": low, "dcgan": 2.02 - 0.01 * record.cell.seed, "real": 1.0, "histogram": 90.0}[record.cell.model]
        return replace(
            record, measured=tuple(replace(m, value=value) if m.metric == FD else m for m in record.measured)
        )

    sheet = sheet_of(make_results(models=("real", "vae", "dcgan", "histogram"), change=tie))
    assert "quality (FD 2.00, not separable from DCGAN at these seeds)" in findings(sheet)[0]


def test_a_tie_between_two_trainings_of_one_model_is_told(make_results: Make) -> None:
    def tuned(record: Record) -> Record:
        lr = 0.002 if record.cell.seed < 2 else 0.5
        value = 2.0 + 0.1 * (record.cell.seed % 2) + (0.05 if lr == 0.5 else 0.0)
        measured = tuple(replace(m, value=value) if m.metric == FD else m for m in record.measured)
        changed = record if record.cell.model != "vae" else replace(record, measured=measured)
        return replace(changed, cell=replace(record.cell, config={"lr": lr}))

    sheet = sheet_of(make_results(models=("real", "vae"), seeds=(0, 1, 2, 3), change=tuned))
    assert "quality (FD 2.05, not separable from VAE (lr=0.5) at these seeds)" in findings(sheet)[0]


def test_a_likelihood_no_better_than_independent_pixels_is_told(results: Path, make_results: Make) -> None:
    [told] = [text for text in findings(sheet_of(results)) if "bits/dim" in text]
    assert "Worse than Histogram (= 2.4" in told
    assert "DDPM ≈ 2.81" in told
    assert "VAE" not in told.split("Worse than")[1]


def test_a_likelihood_whose_seeds_lie_on_both_sides_of_independent_pixels_is_not_separable(make_results: Make) -> None:
    def near(record: Record) -> Record:
        value = 2.3 + 0.3 * record.cell.seed
        changed = scaled("realnvp", "bits_per_dim[dequantised]", value)(record)
        return scaled("histogram", "bits_per_dim[exact]", 2.43)(changed)

    [told] = [text for text in findings(sheet_of(make_results(change=near))) if "bits/dim" in text]
    assert "Not separable from Histogram (= 2.43): RealNVP ≤ 2.45." in told


def test_skipped_metrics_keep_their_reasons_and_gpu_columns_say_so(results: Path) -> None:
    source = open_results(results)
    sheet = make_sheet(source, "digits")
    told = skipped_table([sheet])
    assert told is not None
    texts = [[datum.text for datum in line.data] for line in told.lines]
    assert ["bits_per_dim", "an implicit model has no likelihood", "Real images, DCGAN", "digits"] in texts
    cost = cost_table(sheet)
    gpu = [i for i, column in enumerate(cost.columns) if column.title.startswith("gpu")]
    assert len(gpu) == 3
    assert {line.data[i].text for line in cost.lines for i in gpu} == {"no GPU"}


def test_the_likelihood_table_lists_every_kind_with_its_parts(results: Path) -> None:
    lines = likelihood_table(sheet_of(results)).lines
    ddpm = {line.data[1].text: line for line in lines if line.data[0].text == "DDPM"}
    assert set(ddpm) == {"vlb", "pf_ode"}
    assert ddpm["vlb"].data[5].text == "L_T 0.00100, L_t 2.75, L_0 0.299"
    assert ddpm["pf_ode"].data[2].text == "estimate"


def test_every_metric_of_a_record_stands_in_some_table(make_results: Make) -> None:
    def more(record: Record) -> Record:
        extra = Measurement("mode_count", 9.0, "", "higher", 10, "draw", protocol={"judge": "cnn"})
        return record if record.cell.draw is None else replace(record, measured=(*record.measured, extra))

    sheet = sheet_of(make_results(models=("real", "vae", "ddpm", "histogram"), change=more))
    other = other_table(sheet)
    assert other is not None
    assert [column.title for column in other.columns] == ["Model", "mode count"]
    hints = {column.hint for table in (main_table(sheet), cost_table(sheet), other) for column in table.columns}
    told = {line.data[1].text for line in likelihood_table(sheet).lines}
    for metric in {m for row in sheet.models for m in row.scores}:
        base, _, rest = metric.partition("[")
        assert metric in hints or (base == "bits_per_dim" and rest.rstrip("]").split(":")[0] in told), metric


def test_further_measurements_show_the_real_images_own_where_they_were_taken(make_results: Make) -> None:
    def more(models: tuple[str, ...]) -> Callable[[Record], Record]:
        extra = Measurement("sharpness", 0.5, "", "none", 10, "draw")
        return lambda r: (
            replace(r, measured=(*r.measured, extra)) if r.cell.draw is not None and r.cell.model in models else r
        )

    for models in (("real", "vae"), ("vae",)):
        sheet = sheet_of(make_results(str(len(models)), models=("real", "vae", "histogram"), change=more(models)))
        other = other_table(sheet)
        assert other is not None
        assert [len(other.part(part)) for part in ("floor", "body", "ceiling")] == [int("real" in models), 1, 1]
        assert other.columns[1].detail == ""
        assert next(line.data[1].text for line in other.part("body")) == "0.500"
