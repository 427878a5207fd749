"""What holds for the tests of races."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_old_rubbish() -> None:
    """Every round of a race looks for garbage: not among all that earlier tests have left."""
    gc.collect()
    gc.freeze()
