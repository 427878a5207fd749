"""Strict configs, draws and budgets: what is accepted, and that every refusal names key, value and expectation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from baselines.config import build_config, config_values
from baselines.contract import Training
from baselines.errors import UserError
from baselines.types import Budget


@dataclass(frozen=True)
class Config:
    width: int = 8
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.9, 0.99)
    limit: float | None = None
    flag: bool = False
    training: Training = Training()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width: expected at least 1, got {self.width}")


def test_values_survive_the_way_to_json_and_back() -> None:
    config = build_config(
        Config, {"width": 3, "rate": 1, "sizes": [4], "limit": 2, "training.batch_size": 5, "pair": [0, 1]}, "m"
    )
    assert config.rate == 1.0
    assert isinstance(config.rate, float)
    assert config.training == Training(batch_size=5)
    assert build_config(Config, config_values(config), "m") == config


def test_a_dotted_key_joins_a_table() -> None:
    values = {"training": {"batch_size": 5}, "training.clip_norm": 1.0}
    assert build_config(Config, values, "m").training == Training(batch_size=5, clip_norm=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 1}, r"m\.widht: unknown key; did you mean 'width'"),
        ({"width": "3"}, r"m\.width: expected int, got '3' \(str\)"),
        ({"width": True}, r"m\.width: expected int, got True"),
        ({"width": 1.5}, r"m\.width: expected int, got 1\.5"),
        ({"width": 0}, r"m: width: expected at least 1, got 0"),
        ({"rate": "x"}, r"m\.rate: expected float"),
        ({"kind": "c"}, r"m\.kind: expected one of 'a', 'b', got 'c'"),
        ({"sizes": 3}, r"m\.sizes: expected a list, got 3"),
        ({"sizes": [1, "b"]}, r"m\.sizes\[1\]: expected int"),
        ({"pair": [1.0]}, r"m\.pair: expected 2 items, got 1"),
        ({"limit": "x"}, r"m\.limit: expected float or null"),
        ({"flag": 1}, r"m\.flag: expected bool"),
        ({"training": 3}, r"m\.training: expected a table"),
        ({"training.batch": 3}, r"m\.training\.batch: unknown key; did you mean 'batch_size'"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_config(Config, values, "m")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("400000", Budget(images=400_000)),
        ("400k", Budget(images=400_000)),
        ("1.5M", Budget(images=1_500_000)),
        ("60s", Budget(seconds=60)),
        ("5m", Budget(seconds=300)),
        ("2h", Budget(seconds=7200)),
    ],
)
def test_budgets_are_images_or_seconds(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert budget.reproducible == (budget.images is not None)


@pytest.mark.parametrize("text", ["", "k", "many", "-5", "0", "0s", "3d", "1e999k", "nans", "infs"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="budget"):
        Budget.parse(text)


@dataclass(frozen=True)
class Tuned:
    training: Training = Training(batch_size=7, ema_decay=0.5, clip_norm=2.0)


def test_what_a_nested_table_does_not_name_keeps_the_models_own_default() -> None:
    built = build_config(Tuned, {"training": {"batch_size": 5}}, "m")
    assert built.training == Training(batch_size=5, ema_decay=0.5, clip_norm=2.0)
    dotted = build_config(Tuned, {"training.clip_norm": 0}, "m")
    assert dotted.training == Training(batch_size=7, ema_decay=0.5, clip_norm=None), "0 stands for none"
    with pytest.raises(UserError, match=r"m\.training\.batch: unknown key"):
        build_config(Tuned, {"training": {"batch": 5}}, "m")
