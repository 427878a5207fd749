"""Maps of pixels and the two directions of a model, in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.errors import UserError
from bench.record import Artifact, Measurement, Record
from bench.report import write_report
from bench.report.directions import directions
from bench.report.pixel_maps import PixelMap, bits, contexts, read_maps
from bench.report.published import published_likelihoods
from bench.report.side_tables import likelihood_table
from tests.report.conftest import save_artifact
from tests.report.test_rows import sheet_of

Make = Callable[..., Path]


def put(folder: Path, content: Any) -> Artifact:
    return save_artifact(folder, "maps", json.dumps(content).encode(), "json")


def test_maps_are_read_and_their_colours_summed(tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    held = put(
        tmp_path, {"bits[exact:pixels]": {"values": values.tolist()}, "context": {"values": [[1]], "place": [0, 0]}}
    )
    read = read_maps(tmp_path, held)
    np.testing.assert_array_equal(read["bits[exact:pixels]"].values, values.sum(0))
    assert read["bits[exact:pixels]"].place is None
    assert read["context"].place == (0, 0)


@pytest.mark.parametrize(
    "content",
    [
        {"a": {"values": [[1.0, float("nan")]]}},
        {"a": {"values": [1.0]}},
        {"a": {"values": []}},
        {"a": {"values": [[0.0] * 2000]}},
        {"a": {"values": [["x"]]}},
        {"a": {"values": [[1.0]], "place": [0, 1]}},
        {"a": {"values": [[1.0]], "place": "here"}},
        {"a": 3},
        [1],
    ],
    ids=str,
)
def test_maps_of_something_else_are_told(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="expected maps of pixels"):
        read_maps(tmp_path, put(tmp_path, content))


def test_pictures_are_made_of_the_trainings_that_have_maps() -> None:
    ramp = PixelMap(np.linspace(0, 2, 64).reshape(8, 8))
    around = PixelMap(np.triu(np.ones((8, 8))), (4, 4))
    maps = [("One", {"bits[exact:pixels]": ramp}), ("Two", {"bits[exact:pixels]": ramp, "context": around})]
    assert bits("bits", [("Three", {"context": around})]) is None
    assert contexts("context", [("Three", {"bits[exact:pixels]": ramp})], {}) is None
    assert contexts("context", [("Blind", {"context": PixelMap(np.zeros((8, 8)))})], {}) is None
    costs, seen = bits("bits", maps), contexts("context", maps, {"Two": 0.9999})
    assert costs is not None
    assert seen is not None
    assert costs.width > seen.width, "a canvas for each training that has a map"
    assert contexts("context", maps, {"Two": 0.9999}) == seen, "the same bytes each time"


def with_maps(folder: Path) -> Callable[[Record], Record]:
    content = {"bits[exact:pixels]": {"values": np.ones((1, 8, 8)).tolist()}}
    context = {"context": {"values": np.triu(np.ones((8, 8))).tolist(), "place": [4, 4]}}

    def change(record: Record) -> Record:
        rates = {"pixelcnn": 3000.0, "realnvp": 8000.0}
        if record.cell.model not in rates:
            return record
        if record.cell.draw is not None:
            name = "exact" if record.cell.model == "pixelcnn" else "dequantised"
            speed = Measurement(
                f"likelihood_images_per_s[{name}]", rates[record.cell.model], "images/s", "higher", 1, "train"
            )
            return replace(record, measured=(*record.measured, speed))
        measured = (
            *record.measured,
            Measurement("context_fraction", 0.875, "", "higher", 64, "train"),
            Measurement("kl_gap[exact]", 0.0123, "bits/dim", "lower", 64, "train", 0.01, 0.02, "exact"),
            Measurement("nats[exact]", 81.3, "nats", "lower", 64, "train", 80.0, 82.0, "exact"),
        )
        return (
            replace(record, measured=measured, artifacts=(*record.artifacts, put(folder, {**content, **context})))
            if record.cell.model == "pixelcnn"
            else record
        )

    return change


def test_the_page_shows_maps_and_directions_and_the_table_nats_and_the_gap(make_results: Make, tmp_path: Path) -> None:
    folder = make_results(models=("real", "pixelcnn", "realnvp", "vae"), change=with_maps(tmp_path / "results"))
    sheet = sheet_of(folder)
    table = likelihood_table(sheet)
    assert [c.title for c in table.columns][4:6] == ["nats an image", "above the truth, bits/dim"]
    texts = {line.data[0].text: [datum.text for datum in line.data] for line in table.lines}
    assert texts["PixelCNN"][4:6] == ["= 81.3", "= 0.0123"]
    assert texts["VAE"][4:6] == ["–", "–"]
    assert directions("directions", sheet) is not None
    out = write_report(folder, tmp_path / "out")
    markdown = (out.parent / "report.md").read_text(encoding="utf-8")
    for title in ("What each pixel costs", "The context of the middle pixel", "Two directions, two speeds"):
        assert title in markdown
        assert title in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("dataset", "shown", "other"), [("mnist-static", "79.20", "79.10"), ("mnist-dynamic", "79.10", "79.20")]
)
def test_published_nats_of_the_same_binarisation_stand_beside_the_measured_ones(
    dataset: str, shown: str, other: str
) -> None:
    table = published_likelihoods(dataset)
    assert table is not None
    texts = [datum.text for line in table.lines for datum in line.data]
    assert any(shown in text for text in texts)
    assert not any(other in text for text in texts)
    assert published_likelihoods("digits") is None


def test_one_model_alone_has_no_directions_to_compare(make_results: Make, tmp_path: Path) -> None:
    folder = make_results(models=("real", "pixelcnn", "vae"), change=with_maps(tmp_path / "results"))
    assert directions("directions", sheet_of(folder)) is None


def test_a_damaged_map_is_noted_and_the_report_is_made(make_results: Make, tmp_path: Path) -> None:
    folder = make_results(models=("real", "pixelcnn"), change=with_maps(tmp_path / "results"))
    for path in (folder / "artifacts").glob("maps-*"):
        path.write_bytes(b"{}")
    markdown = (write_report(folder, tmp_path / "out").parent / "report.md").read_text(encoding="utf-8")
    assert "damaged" in markdown
    assert "What each pixel costs" not in markdown
