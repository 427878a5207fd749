"""What holds for all tests."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Thousands of collected tests and all modules stay: no later search for garbage has to look at them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """They may go at the end."""
    gc.unfreeze()
