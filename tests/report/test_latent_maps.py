"""Maps of codes in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.errors import UserError
from bench.record import Artifact, Record
from bench.report import write_report
from bench.report.latent_maps import LatentMap, _glyph, picture, read_latent_map
from tests.report.conftest import save_artifact

Make = Callable[..., Path]
RNG = np.random.default_rng(0)
HELD = {
    "points": RNG.standard_normal((60, 2)).tolist(),
    "prior": RNG.standard_normal((50, 2)).tolist(),
    "labels": [i % 10 for i in range(60)],
    "latent": 16,
    "share": 0.42,
}


def put(folder: Path, content: Any) -> Artifact:
    return save_artifact(folder, "latent_map", json.dumps(content).encode(), "json")


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    held = read_latent_map(tmp_path, put(tmp_path, HELD))
    np.testing.assert_array_equal(held.points, HELD["points"])
    np.testing.assert_array_equal(held.prior, HELD["prior"])
    assert held.labels is not None
    np.testing.assert_array_equal(held.labels, HELD["labels"])
    assert (held.latent, held.share) == (16, 0.42)
    assert read_latent_map(tmp_path, put(tmp_path, {**HELD, "labels": None, "share": None})).labels is None


@pytest.mark.parametrize(
    "change",
    [
        {"points": [[0.0, float("nan")]]},
        {"points": [[1.0, 2.0, 3.0]]},
        {"prior": []},
        {"prior": [[1.0, 2.0]] * 20_001},
        {"labels": [1, 2]},
        {"labels": "seven"},
        {"share": 7.0},
        {"share": "all"},
        {"latent": None},
    ],
    ids=lambda change: str(change)[:40],
)
def test_something_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected a latent map"):
        read_latent_map(tmp_path, put(tmp_path, {**HELD, **change}))
    with pytest.raises(UserError, match="expected a latent map"):
        read_latent_map(tmp_path, put(tmp_path, [1]))


def a_map(labels: Any, share: float | None = 0.4) -> LatentMap:
    points, prior = (np.asarray(HELD[name], float) for name in ("points", "prior"))
    return LatentMap(points, prior, None if labels is None else np.asarray(labels), 2 if share is None else 16, share)


def test_a_picture_has_a_canvas_a_training_and_the_same_bytes_each_time() -> None:
    assert picture("latent", []) is None
    few, many = (picture("latent", [("AE", a_map(HELD["labels"]))] * n) for n in (1, 4))
    assert few is not None
    assert many is not None
    assert many.width > few.width
    assert many.height > few.height
    assert picture("latent", [("AE", a_map(HELD["labels"]))]) == few
    for labels in (None, list(range(60))):  # no classes, or more than have a glyph
        other = picture("latent", [("AE", a_map(labels, None))])
        assert other is not None
        assert other.png != few.png


def test_glyphs_are_as_high_as_each_other_and_stand_about_their_point() -> None:
    for text in "0123456789":
        box = _glyph(text).get_extents()
        assert box.height == pytest.approx(1)
        assert (box.x0 + box.x1, box.y0 + box.y1) == pytest.approx((0, 0), abs=1e-9)


def test_the_page_has_a_section_of_latent_spaces_and_tells_a_damaged_map(make_results: Make, tmp_path: Path) -> None:
    folder = tmp_path / "results"

    def change(record: Record) -> Record:
        if record.cell.draw is not None or record.cell.model not in ("vae", "dcgan"):
            return record
        content = HELD if record.cell.model == "vae" else {"points": 3}
        return replace(record, artifacts=(*record.artifacts, put(folder, content)))

    made = make_results(models=("real", "vae", "dcgan"), change=change)
    page = write_report(made, tmp_path / "out").read_text(encoding="utf-8")
    assert ">Latent spaces</h3>" in page
    assert "Where codes of test images lie" in page
    assert "expected a latent map" in page
    assert "Where codes of test images lie" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
