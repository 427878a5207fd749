"""A plugin that pytest loads on both sides: which tests failed, a JSON line [name, why] each. Standard library alone.

It is loaded from a copy in a folder of its own (`-p trilemma_gate_failures`), as the base has none.
"""

from __future__ import annotations

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Of a test's set-up, call and end."""
    _tell(report)


def pytest_collectreport(report: Any) -> None:
    """Of a file that could not be read."""
    _tell(report)


def _tell(report: Any) -> None:
    if not report.failed:
        return
    lines = report.longreprtext.strip().splitlines() or ["failed without a word"]
    why = next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1])
    with open(os.environ["TRILEMMA_GATE_FAILURES"], "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps([report.nodeid, why]) + "\n")
