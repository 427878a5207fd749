"""Record lines of older schemas as lines of this one; apart from `record`, whose code keys every measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.record import SCHEMA

MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""How a line of schema n becomes one of n + 1. Whoever raises SCHEMA adds the step from the one before."""


def migrated(plain: dict[str, Any]) -> dict[str, Any]:
    """A record line of an older schema as one of SCHEMA, step by step; one of SCHEMA, or of no schema, as it is.

    Raises:
        ValueError: if there is no way from its schema to this one.
    """
    for schema in range(plain.get("schema", SCHEMA), SCHEMA):
        if schema not in MIGRATIONS:
            raise ValueError(f"schema {schema} is older than any that this version reads")
        plain = {**MIGRATIONS[schema](plain), "schema": schema + 1}
    return plain
