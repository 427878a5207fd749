"""Strict configs: a plain mapping becomes a frozen dataclass, or an error that names key, value and type."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from baselines.errors import UserError

T = TypeVar("T")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known name is close to this one, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


def build_config(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a `kind` (a frozen dataclass, nested ones included) from values, each checked against its type.

    Keys may be dotted: {"training.batch_size": 32} is {"training": {"batch_size": 32}}. What a nested dataclass is not
    given keeps the value that it has in the default of `kind`, which may be another one than its own default.

    Raises:
        UserError: naming the key, the value and what was expected.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in _nested(values, where).items():
        if key not in fields:
            raise UserError(f"{where}.{key}: unknown key{nearest(key, fields)}")
        default = fields[key].default
        if isinstance(value, Mapping) and dataclasses.is_dataclass(default):
            value = {**config_values(default), **_nested(value, f"{where}.{key}")}
        given[key] = _checked(hints[key], value, f"{where}.{key}")
    try:
        return kind(**given)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def config_values(config: Any) -> dict[str, Any]:
    """The config as nested plain values, ready for JSON."""
    plain: dict[str, Any] = dataclasses.asdict(config)
    return plain


def _nested(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        head, dot, rest = key.partition(".")
        if dot:
            inner = out.setdefault(head, {})
            if not isinstance(inner, dict):
                raise UserError(f"{where}.{key}: {head} is given both whole and in part")
            inner[rest] = value
        elif isinstance(value, Mapping) and isinstance(out.get(key), dict):
            out[key].update(value)
        else:
            out[key] = dict(value) if isinstance(value, Mapping) else value
    return out


def _checked(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(args, value, where)
    if origin is typing.Literal:
        if value in args:
            return value
        raise UserError(f"{where}: expected one of {', '.join(map(repr, args))}, got {value!r}")
    if origin is tuple:
        return _tuple(args, value, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return build_config(typing.cast("type[Any]", hint), value, where)
        raise UserError(f"{where}: expected a table of {_say(hint)} keys, got {value!r}")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{where}: expected a finite number, got {value}")
        return float(value)
    if hint is type(None) and value is None:
        return None
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise UserError(f"{where}: expected {_say(hint)}, got {value!r} ({type(value).__name__})")


def _union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    for arm in args:
        try:
            return _checked(arm, value, where)
        except UserError:
            continue
    raise UserError(f"{where}: expected {' or '.join(map(_say, args))}, got {value!r}")


def _tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: expected a list, got {value!r}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_checked(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(args):
        raise UserError(f"{where}: expected {len(args)} items, got {len(value)}: {value!r}")
    return tuple(_checked(arm, item, f"{where}[{i}]") for i, (arm, item) in enumerate(zip(args, value, strict=True)))


def _say(hint: Any) -> str:
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint))
