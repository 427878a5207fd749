"""What holds for all tests: how two workers share them, and what no search for garbage looks at."""

from __future__ import annotations

import gc
from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbours go to one worker, so that what a module's tests share is made once; who is done takes from others."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_finish() -> None:
    """Thousands of collected tests and all modules stay: searched again and again, they would take a third of all."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """They may go at the end."""
    gc.unfreeze()
