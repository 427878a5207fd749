"""Numbers as the report prints them."""

from __future__ import annotations

import pytest

from bench.record import Measurement
from bench.report.grouping import aggregate
from bench.report.numbers import interval_text, number, score_text


def seeds(*values: float) -> list[Measurement]:
    return [Measurement("fd[x]", v, "", "lower", 100, "draw") for v in values]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "", "0"),
        (2.3749, "", "2.37"),
        (0.9999, "", "1.00"),
        (41_234.0, "", "41,200"),
        (1_437.0, "", "1,440"),
        (2_500_000.0, "", "2.50 M"),
        (0.0123, "s", "12.3 ms"),
        (75.04, "s", "75.0 s"),
        (3 * 2**20, "B", "3.00 MiB"),
        (1.3e-5, "", "1.30e-05"),
        (-0.01234, "", "-0.0123"),
    ],
)
def test_numbers_have_three_significant_digits_and_a_unit_that_fits(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_intervals_that_round_alike_are_given_more_digits() -> None:
    score = aggregate(seeds(1.9081, 1.9109))
    assert (score_text(score), interval_text(score)) == ("1.91", "1.908 – 1.911")
    assert interval_text(aggregate(seeds(1.9, 1.9))) == ""
    assert interval_text(aggregate(seeds(0.1, 0.1, 0.1))) == ""  # whatever rounding leaves of a zero deviation
