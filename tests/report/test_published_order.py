"""The published order of exact likelihoods: where it shows, where intervals hide it, and where it is turned round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines.types import Budget
from bench.record import Cell, Record
from bench.report.published_order import published_order
from bench.report.rows import Row, Score, Sheet
from bench.report.source import ModelInfo

TITLES = {
    "pixelrnn_diagonal": "Diagonal BiLSTM",
    "pixelrnn_row": "Row LSTM",
    "pixelcnn": "PixelCNN",
    "nade": "NADE",
    "made": "MADE",
}


def score(metric: str, value: float, half: float | None) -> Score:
    low, high = (None, None) if half is None else (value - half, value + half)
    kind = "exact" if metric == "bits_per_dim[exact]" else None
    return Score(metric, value, low, high, "own", 1, "", "lower", kind, "", False, "")  # type: ignore[arg-type]


def row(name: str, bits: float, half: float, images: int) -> Row:
    cell = Cell(name, "mnist", Budget(images=images), 0, {})
    scores = {s.metric: s for s in (score("bits_per_dim[exact]", bits, half), score("training_cpu_s", 120.0, None))}
    info = ModelInfo(name, TITLES[name], "autoregressive")
    return Row(info, "", None, (0,), scores, {}, (Record("k", "k", "ok", cell),))


def sheet(bits: dict[str, float], half: float = 0.01, images: int = 5000) -> Sheet:
    rows = tuple(row(name, value, half, images) for name, value in bits.items())
    return Sheet("mnist", rows, None, None, None, None, None, None, None)


def test_the_papers_own_numbers_show_their_order() -> None:
    told = published_order(sheet({"pixelrnn_diagonal": 3.0, "pixelrnn_row": 3.07, "pixelcnn": 3.14, "made": 4.0}))
    assert told.endswith("shows in Diagonal BiLSTM < Row LSTM, Row LSTM < PixelCNN, PixelCNN < MADE."), (
        "NADE was not measured and is not named as a pair"
    )


def test_what_intervals_hide_is_neither_shown_nor_turned_round() -> None:
    told = published_order(sheet({"pixelrnn_row": 3.08, "pixelcnn": 3.07}, half=0.02))
    assert "lies within the intervals in Row LSTM > PixelCNN (3.08 and 3.07)" in told
    assert "shows" not in told
    assert "does not" not in told


def test_an_order_that_is_turned_round_is_told_with_what_each_was_given() -> None:
    told = published_order(sheet({"pixelrnn_row": 3.3, "pixelcnn": 3.1, "nade": 3.5}))
    assert "it does not show where Row LSTM (3.30; 5,000 images in 120 CPU s) is behind PixelCNN (3.10; 5,000" in told
    assert "shows in PixelCNN < NADE" in told


@pytest.mark.parametrize("bits", [{}, {"pixelcnn": 3.0}, {"nade": 2.0, "made": 2.1}])
def test_without_a_pair_nothing_is_said(bits: dict[str, float]) -> None:
    assert published_order(sheet(bits)) == ""


def test_the_best_of_a_models_configs_stands_for_it() -> None:
    base = sheet({"pixelcnn": 3.0, "nade": 3.2})
    worse = replace(row("pixelcnn", 3.6, 0.01, 10), variant="width=1")
    assert "shows in PixelCNN < NADE" in published_order(replace(base, rows=(*base.rows, worse)))
