"""Questions to a results folder: conditions on what was measured, and the rows and files that answer them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from baselines.config import nearest
from baselines.errors import UserError
from bench import store
from bench.plain_text import printable
from bench.record import Record

FORMATS = ("table", "csv", "json", "parquet")
_ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*(?P<column>[^=!<>~]+?)\s*(?P<sign>!=|<=|>=|=|<|>|~)\s*(?P<value>.*?)\s*")
_SHOWN = ("model", "dataset", "seed", "draw", "status")
_HEADLINES = ("fd", "coverage", "images_per_s", "bits_per_dim")  # metrics that a table shows unasked


@dataclass(frozen=True)
class Condition:
    """A column of the table of draws, how it is compared, and with what."""

    column: str
    sign: str  # = != < <= > >= ~
    values: tuple[str, ...]  # one, or for = and != any of several


def parse(text: str) -> Condition:
    """Read `model=ddpm`, `seed=0,1`, `fd[digits-cnn]<5`, `draw~ddim`, `config.lr>=0.001`.

    Raises:
        UserError: if it is none of these.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UserError(f"--where: expected COLUMN=VALUE (or != < <= > >= ~), got {text!r}")
    sign, value = found["sign"], found["value"]
    values = tuple(part.strip() for part in value.split(",")) if sign in ("=", "!=") else (value,)
    if sign in _ORDERED and _number(value) is None:
        raise UserError(f"--where {text}: expected a number after {sign}, got {value!r}")
    return Condition(found["column"], sign, values)


def matching(wide: pd.DataFrame, conditions: Sequence[Condition]) -> pd.DataFrame:
    """The rows that meet all conditions; one without a value in a column meets none but !=.

    wide: as `store.table` makes it, perhaps with columns `config.KEY`.

    Raises:
        UserError: for a column that there is not, or that holds no numbers where numbers are compared.
    """
    kept = pd.Series(True, index=wide.index)
    for condition in conditions:
        if condition.column not in wide:
            raise UserError(f"--where: no column {condition.column!r}{_known(condition.column, wide)}")
        kept &= _meets(wide[condition.column], condition)
    return wide[kept]


def _meets(column: pd.Series[Any], condition: Condition) -> pd.Series[bool]:
    if condition.sign == "~":
        return column.astype(str).str.contains(condition.values[0], regex=False) & column.notna()
    if condition.sign in _ORDERED:
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().sum() < column.notna().sum():
            raise UserError(
                f"--where: {condition.column} holds no numbers; expected = or != or ~, got {condition.sign}"
            )
        met: pd.Series[bool] = _ORDERED[condition.sign](numbers, _number(condition.values[0]))
        return met
    equal = pd.Series(False, index=column.index)
    numbers, texts = pd.to_numeric(column, errors="coerce"), column.astype(str)
    for value in condition.values:
        number = _number(value)
        said = value.capitalize() if value in ("true", "false") else value  # as TOML and JSON have them
        equal |= column.notna() & ((texts == said) | (numbers == number if number is not None else False))
    return ~equal if condition.sign == "!=" else equal


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def with_config(wide: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """The table with a column `config.KEY` for each key of a model's config, nested ones as `config.training.KEY`."""
    configs = {record.key: _flat(record.cell.config, "config") for record in records}
    told = pd.DataFrame([configs[key] for key in wide["key"]], index=wide.index)
    return pd.concat([wide, told], axis=1)


def _flat(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: found for part, inner in value.items() for key, found in _flat(inner, f"{name}.{part}").items()}


@dataclass(frozen=True)
class Answer:
    """What meets the conditions: rows of draws, and the records behind them, trainings included."""

    rows: pd.DataFrame
    records: tuple[Record, ...]


def ask(records: Sequence[Record], conditions: Sequence[Condition]) -> Answer:
    """The draws that meet all conditions (a training counts as one where nothing was drawn from it).

    Raises:
        UserError: for a condition that does not fit the table.
    """
    wide = store.table(records)
    if any(condition.column.startswith("config.") for condition in conditions):
        wide = with_config(wide, records)
    rows = matching(wide, conditions)
    keys, trained = set(rows["key"]), set(rows["train_key"])
    kept = tuple(r for r in records if r.key in keys or (r.cell.draw is None and r.train_key in trained))
    return Answer(rows, kept)


def rich_table(rows: pd.DataFrame, columns: Sequence[str], asked: Sequence[str] = ()) -> Table:
    """Rows for a terminal.

    Args:
        rows: of draws.
        columns: to show; none: what the cell is, what was asked for, and the headline metrics.
        asked: columns of conditions.

    Raises:
        UserError: for a column that there is not.
    """
    shown = list(columns) or _columns(rows, asked)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for name in shown:
        if name not in rows:
            raise UserError(f"--columns: no column {name!r}{_known(name, rows)}")
        table.add_column(
            Text(printable(name)),
            justify="right" if pd.api.types.is_numeric_dtype(rows[name]) else "left",
            overflow="fold",
        )
    for row in rows[shown].itertuples(index=False):
        table.add_row(*(Text(printable(_cell(value))) for value in row))
    return table


def _columns(rows: pd.DataFrame, asked: Sequence[str]) -> list[str]:
    """What the cell is, what was asked for, and of each headline metric the variant that most rows have."""
    failed = bool(rows["status"].ne("ok").any())
    cell = [name for name in _SHOWN if name != "status" or failed]
    counts = {name: int(rows[name].notna().sum()) for name in _metrics(rows)}
    headline = []
    for stem in _HEADLINES:
        variants = [name for name in counts if name.split("[")[0] == stem and ":" not in name and counts[name]]
        headline += [max(variants, key=lambda name: counts[name])] if variants else []
    told = [name for name in asked if name not in cell and not name.startswith(tuple(f"{n} " for n in headline))]
    return list(dict.fromkeys([*cell, *told, *headline]))


def _metrics(rows: pd.DataFrame) -> list[str]:
    extras = tuple(f" {name}" for name in ("low", "high", "kind"))
    columns = [str(name) for name in rows.columns if name not in store.CELL_COLUMNS]
    return [name for name in columns if not name.endswith(extras) and not name.startswith("config.")]


def _known(name: str, rows: pd.DataFrame) -> str:
    hint = nearest(name, map(str, rows.columns))
    if "did you mean" in hint:
        return hint
    some = ", ".join(_metrics(rows)[:3])
    return f"; expected {', '.join(store.CELL_COLUMNS)}, config.KEY, or a metric, such as {some}"


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as a Parquet file.

    Raises:
        UserError: if pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError("parquet: needs pyarrow: python -m pip install 'trilemma-bench[parquet]'") from None
    try:
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); name another with --out") from None
