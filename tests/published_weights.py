"""The weights that the authors published, for tests of agreement; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.metrics.weights_file import Published, sha256_of


def published_file(published: Published) -> Path:
    """The file in torch's cache; without it the test is skipped, and says where it belongs."""
    path = published.cached()
    if not path.is_file():
        pytest.skip(f"{published.network}: to run with the real weights, put {published.url} at {path}")
    assert sha256_of(path).startswith(published.sha256), f"{path} is not the file that was published"
    return path
