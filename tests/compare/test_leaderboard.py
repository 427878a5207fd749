"""The leaderboard: what may stand on one board, who is told apart from whom, and who measured it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from baselines.errors import UserError
from baselines.types import Draw
from bench.compare import ranks, standings
from bench.compare.boards import Board, Entry
from bench.compare.ranks import Place, p_other_order
from bench.compare.standings import Standings, document, rank
from bench.record import Measurement, Record
from bench.report.document import as_markdown, html
from tests.command import trilemma_here
from tests.compare.made import bits, coverage, fd, folder, rate, record
from tests.report.conftest import write_results

NOISE = (0.0, 0.01, -0.02)
EVIL = "<script>alert(1)</script> | [red]`\x1b[31m"


def several(model: str, value: float, seeds: Sequence[int] = (0, 1, 2), **other: object) -> list[Record]:
    own = np.random.default_rng(len(model)).normal(0, 0.003, 10)  # what seeds do not share
    return [record(model, s, fd(value + NOISE[s % 3] + float(own[s])), **other) for s in seeds]  # type: ignore[arg-type]


def only(found: Standings) -> tuple[Board, list[Place]]:
    (held,) = found.boards
    return held


def told(places: Sequence[Place]) -> list[tuple[str, int, int]]:
    return [(p.entry.row.model.name, p.low, p.high) for p in places]


def test_paired_seeds_tell_apart_what_intervals_do_not(tmp_path: Path) -> None:
    wide = [record("wide", s, fd(2.1 + x)) for s, x in enumerate((0.5, -0.5, 0.0))]
    same = [record("same", s, fd(2.0 + x)) for s, x in enumerate((0.5, -0.51, 0.01))]
    board, places = only(rank([folder(tmp_path, "a", *wide, *same, *several("far", 9.0))], ["fd"]))
    assert told(places) == [("same", 1, 1), ("wide", 2, 2), ("far", 3, 3)]
    low, high = (entry.score for entry in sorted(board.entries, key=lambda e: e.score.value)[:2])
    assert low.overlaps(high), "the premise"


def test_ranks_are_those_that_the_seeds_leave_possible(tmp_path: Path) -> None:
    records = [*several("a", 2.0), *several("bb", 2.001), *several("ccc", 5.0)]
    _, places = only(rank([folder(tmp_path, "a", *records)], ["fd"]))
    assert [p[1:] for p in told(places)] == [(1, 2), (1, 2), (3, 3)]
    assert [p.ties for p in places] == [(2,), (1,), ()]
    table = document(rank([tmp_path / "a"], ["fd"])).tables[0]
    assert [line.data[0].text for line in table.lines] == ["1 – 2", "1 – 2", "3"]
    assert table.lines[0].data[5].text == table.lines[1].data[1].text, "each names the other"


def test_behind_the_entries_that_are_tested_there_is_no_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [*several("a", 2.0), *several("bb", 3.0), *several("ccc", 5.0), *several("dddd", 6.0)]
    monkeypatch.setattr(ranks, "MOST", 2)
    monkeypatch.setattr(standings, "MOST", 2)
    found = rank([folder(tmp_path, "a", *records)], ["fd"])
    _, places = only(found)
    assert told(places) == [("a", 1, 1), ("bb", 2, 2), ("ccc", 0, 0), ("dddd", 0, 0)]
    assert [p.position for p in places] == [1, 2, 3, 4]
    shown = document(found)
    assert [line.data[0].text for line in shown.tables[0].lines] == ["1", "2", "–", "–"]
    assert any("the first 2 are tested" in note for note in shown.notes)


def test_the_order_is_turned_where_higher_is_better(tmp_path: Path) -> None:
    records = [record(m, s, coverage(v + x)) for m, v in (("low", 0.2), ("high", 0.8)) for s, x in enumerate(NOISE)]
    _, places = only(rank([folder(tmp_path, "a", *records)], ["coverage"]))
    assert told(places) == [("high", 1, 1), ("low", 2, 2)]


def entry(values: Sequence[float], seeds: Sequence[int]) -> Entry:
    measured: dict[int, Measurement] = {
        s: replace(fd(v), metric="kid[cnn]") for s, v in zip(seeds, values, strict=True)
    }
    score = type("Score", (), {"metric": "kid[cnn]", "unit": ""})()
    return Entry(None, score, None, measured)  # type: ignore[arg-type]


def test_the_p_of_a_pair_is_scipys(tmp_path: Path) -> None:
    first, second = [1.0, 1.2, 0.9], [1.3, 1.6, 1.1]
    p = p_other_order(entry(first, (0, 1, 2)), entry(second, (0, 1, 2)))
    assert p == pytest.approx((scipy_stats.ttest_rel(first, second).pvalue / 2, False))
    other = p_other_order(entry(second, (0, 1, 2)), entry(first, (3, 4, 5)))
    welch = scipy_stats.ttest_ind(first, second, equal_var=False).pvalue / 2
    assert other == pytest.approx((welch, True)), "no seed in common, and the second is better"
    assert p_other_order(entry(second, (0, 1, 2)), entry(first, (2, 3, 4))) == other, "one in common pairs nothing"
    assert p_other_order(entry([1.0], (0,)), entry([2.0], (0,))) is None, "one seed without an interval"
    assert p_other_order(entry([1.0], (0,)), entry([2.0, 2.1], (1, 2))) is None


def test_only_one_protocol_stands_on_a_board(tmp_path: Path) -> None:
    mine = folder(tmp_path, "mine", *several("a", 2.0), *several("bb", 3.0))
    fewer = [record(m, s, fd(v + x, n=500)) for m, v in (("a", 1.0), ("bb", 4.0)) for s, x in enumerate(NOISE)]
    train = [record("a", s, fd(0.1, split="train")) for s in range(3)]
    found = rank([mine, folder(tmp_path, "few", *fewer), folder(tmp_path, "train", *train)], ["fd"])
    sizes = [{next(iter(e.seeds.values())).n for e in board.entries} for board, _ in found.boards]
    assert sizes == [{1000}, {500}]
    (odd,) = found.unranked
    assert (odd.entry.group.name, odd.why[:25]) == ("train", "alone under its protocol:")
    assert "split train" in odd.why
    assert "n 500" in document(found).tables[1].title


def test_speeds_have_a_board_for_each_device_and_close_ones_tie(tmp_path: Path) -> None:
    speeds = (("a", 100.0), ("bb", 95.0), ("ccc", 50.0))
    here = folder(tmp_path, "here", *(record(m, 0, rate(v)) for m, v in speeds))
    gpu = {"device": "H100", "torch": "2.16.0"}
    there = folder(tmp_path, "there", *(record(m, 0, rate(50 * v, **gpu), device="H100") for m, v in speeds))
    found = rank([here, there], ["images_per_s"])
    assert [len(board.entries) for board, _ in found.boards] == [3, 3]
    assert ["H100" in table.title for table in document(found).tables] == [False, True]
    assert [p[1:] for p in told(found.boards[0][1])] == [(1, 2), (1, 2), (3, 3)]
    other = folder(tmp_path, "other", record("dddd", 0, rate(70.0, torch="2.16.0"), commit="b" * 40))
    board, _ = only(rank([here, other], ["images_per_s"]))
    assert len(board.entries) == 4, "the library is part of what is measured"


def test_likelihoods_are_ranked_within_their_kind(tmp_path: Path) -> None:
    records = [
        record(model, s, bits(value + x, name, kind), draw=None)
        for model, value, name, kind in (
            ("vae", 1.9, "elbo", "upper_bound"),
            ("flow", 2.1, "dequantised", "upper_bound"),
            ("rnn", 2.5, "exact", "exact"),
            ("nade", 1.0, "exact", "exact"),
        )
        for s, x in enumerate(NOISE)
    ]
    found = rank([folder(tmp_path, "a", *records)], ["bits"])
    assert [board.kind for board, _ in found.boards] == ["exact", "upper_bound"]
    assert [[p.entry.row.model.name for p in places] for _, places in found.boards] == [
        ["nade", "rnn"],
        ["vae", "flow"],
    ]
    said = [record("flow", 0, bits(2.0, "dequantised", dequantisation="uniform"), draw=None, budget=9)]
    both = rank([tmp_path / "a", folder(tmp_path, "b", *said)], ["bits"])
    (odd,) = both.unranked
    assert "dequantisation: uniform, others not told" in odd.why


def test_a_training_has_one_line_whatever_its_draws(tmp_path: Path) -> None:
    draws = [record("ddpm", 0, fd(3.0), draw=Draw("ddim", n)) for n in (5, 10)]
    other = [record("vae", 0, bits(1.9), draw=None), record("vae", 0, fd(3.0))]
    a = folder(tmp_path, "a", record("ddpm", 0, bits(2.0), draw=None), *draws, *other)
    board, _ = only(rank([a], ["bits"], all_draws=True))
    assert [e.label for e in board.entries] == ["ddpm", "vae"]
    few, many = (only(rank([a], ["fd"], all_draws=every))[0] for every in (False, True))
    assert (len(few.entries), len(many.entries)) == (2, 3)


def test_one_clean_commit_on_one_device_is_pooled_and_others_are_not(tmp_path: Path) -> None:
    one, two = folder(tmp_path, "one", *several("a", 2.0, (0, 1))), folder(tmp_path, "two", *several("a", 2.0, (2,)))
    base = folder(tmp_path, "base", *several("bb", 3.0, commit="b" * 40))
    board, _ = only(rank([one, two, base], ["fd"]))
    assert {(e.group.name, tuple(sorted(e.seeds))) for e in board.entries} == {
        ("one, two", (0, 1, 2)),
        ("base", (0, 1, 2)),
    }
    for other in ({"commit": "c" * 40}, {"dirty": True}, {"device": "H100"}, {"commit": None}):
        three = folder(tmp_path, str(other), *several("a", 2.0, (2,), **other))
        board, _ = only(rank([one, three, base], ["fd"]))
        assert len(board.entries) == 3, other
    for unsure in ({"dirty": True}, {"commit": None}):  # of two such folders nobody knows that the code was one
        mine = folder(tmp_path, f"mine {unsure}", *several("a", 2.0, (0, 1), **unsure))
        yours = folder(tmp_path, f"yours {unsure}", *several("a", 2.0, (2,), **unsure))
        board, _ = only(rank([mine, yours, base], ["fd"]))
        assert len(board.entries) == 3, unsure


def test_what_was_measured_twice_counts_once_and_the_newest(tmp_path: Path) -> None:
    one = folder(tmp_path, "one", *several("a", 2.0), *several("bb", 3.0))
    copy = folder(tmp_path, "copy", *several("a", 2.0))
    found = rank([one, copy], ["fd"])
    assert found.copies == 3
    assert {e.group.name for e in only(found)[0].entries} == {"one"}
    odd = folder(tmp_path, "odd", *several("a", 2.0, time=["no", "time"]), *several("bb", 3.0, time={"no": 1}))
    assert rank([odd, odd], ["fd"]).copies == 6
    later = folder(tmp_path, "later", *(replace(r, key=f"{r.key}!") for r in several("a", 7.0, time="2026-02-01")))
    again = rank([one, later], ["fd"])
    assert [g.repeated for g in again.groups] == [3]
    assert told(only(again)[1]) == [("bb", 1, 1), ("a", 2, 2)]


def test_the_floor_stands_above_and_has_no_rank(tmp_path: Path) -> None:
    write_results(tmp_path / "a", ("vae", "dcgan", "ddpm", "histogram", "real"), seeds=(0, 1, 2))
    document_ = document(rank([tmp_path / "a"]))
    fd_table = next(t for t in document_.tables if "FD" in t.title)
    assert [line.part for line in fd_table.lines].count("floor") == 1
    assert fd_table.lines[0].data[0].text == "floor"
    titles = [t.title for t in document_.tables]
    assert [any(word in t for t in titles) for word in ("FD", "coverage", "images/s", "bits/dim")] == [True] * 4
    assert "Synthetic CPU" in html(document_)


def test_the_command_writes_a_page_and_markdown(tmp_path: Path) -> None:
    folder(tmp_path, "a", *several("a", 2.0), *several("bb", 3.0))
    folder(tmp_path, "b", *several("a", 2.0, commit="b" * 40), *several("bb", 3.0, commit="b" * 40))
    done = trilemma_here(tmp_path, "leaderboard", "a", "b", "--by", "fd", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "aaaaaaaaaaaa, Synthetic CPU" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["leaderboard.html", "leaderboard.md"]
    piped = trilemma_here(tmp_path, "leaderboard", "a", "b", "--by", "fd", "--markdown", "-")
    assert piped.stdout == (tmp_path / "out" / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "--by", "coverge"), "--by: expected a metric family of these folders, got 'coverge'; did you mean"),
        (("a", "--dataset", "mnist"), "--dataset: expected a data set of these folders, got 'mnist'; known: digits"),
        (("a", "missing"), "expected a folder with records"),
        (("a", "--by", "bits"), "expected scores of bits_per_dim in a, got none"),
        (("a", "-o", "file"), "expected a folder that can be made"),
        (("a", "--markdown", "no/where"), "expected a file in an existing folder"),
    ],
)
def test_bad_input_is_a_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    folder(tmp_path, "a", *several("a", 2.0), *several("bb", 3.0))
    (tmp_path / "file").write_text("")
    done = trilemma_here(tmp_path, "leaderboard", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    records = [record(m, 0, fd(2.0), dataset=EVIL, commit=EVIL, cpu=EVIL) for m in (EVIL, "b")]
    held = folder(tmp_path, "a", *records)
    page = html(document(rank([held])))
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<script>" not in as_markdown(document(rank([held])))
    assert "\x1b[31m" not in trilemma_here(tmp_path, "leaderboard", "a").stdout


def test_what_lies_beside_results_folders_is_left_out_and_told(tmp_path: Path) -> None:
    held = folder(tmp_path, "a", *several("a", 2.0), *several("bb", 3.0))
    (tmp_path / "README.md").write_text("")
    (tmp_path / "perf").mkdir()
    found = rank([held, tmp_path / "README.md", tmp_path / "perf"], ["fd"])
    assert [f.name for f in found.folders] == ["a"]
    assert f"Left out, without records: {tmp_path / 'README.md'}, {tmp_path / 'perf'}." in document(found).notes
    with pytest.raises(UserError, match="which is not a folder"):
        rank([tmp_path / "README.md"])


def test_shares_of_few_images_that_do_not_vary_do_not_decide(tmp_path: Path) -> None:
    """One rounded step of 1/1000 apart, on seeds of their own: no deviation is seen, and none is proven to be 0."""
    one = [record("one", s, coverage(0.500)) for s in (0, 1)]
    other = [record("other", s, coverage(0.5005)) for s in (2, 3)]
    _, places = only(rank([folder(tmp_path, "a", *one, *other)], ["coverage"]))
    assert [p[1:] for p in told(places)] == [(1, 2), (1, 2)]


def test_nothing_to_rank_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected scores of fd, fid"):
        rank([folder(tmp_path, "a", record("a", 0, coverage(0.5)))], ["fd"])


def test_a_narrow_terminal_gets_fewer_columns_and_is_told(tmp_path: Path) -> None:
    folder(tmp_path, "a", *several("a", 2.0), *several("bb", 3.0))
    wide, narrow = (trilemma_here(tmp_path, "leaderboard", "a", COLUMNS=width).stdout for width in ("160", "80"))
    assert "not separable from" in wide.splitlines()[4]
    assert "not separable from" not in narrow.splitlines()[4]
    assert "without: not separable from." in narrow
    assert max(map(len, narrow.splitlines())) <= 80
