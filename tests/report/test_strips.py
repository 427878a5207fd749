"""Strips: what a run stores is what the page shows, pixel for pixel, and nothing else gets in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.contract import Strip
from baselines.errors import UserError
from bench.artifacts import save_strip
from bench.record import Artifact, Record
from bench.report import page as pages
from bench.report import write_report
from bench.report.artifacts import StripImages, read_strip
from bench.report.strips import strip
from tests.report.conftest import save_artifact
from tests.report.test_report import EVIL, Page

Make = Callable[..., Path]
WORDS = {"title": "A title", "caption": "What to see.", "rows": ["", ""], "columns": ["a", "b", "c"]}


def pixels(rows: int = 2, columns: int = 3, channels: int = 1, size: int = 8) -> Any:
    return np.random.default_rng(0).integers(0, 17, (rows, columns, channels, size, size)).astype(np.uint8)


def npz(told: Any = WORDS, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    held = {"images": pixels(), "levels": np.array(17), "words": np.array(json.dumps(told))} | arrays
    np.savez(buffer, **held)
    return buffer.getvalue()


def put(folder: Path, data: bytes) -> Artifact:
    return save_artifact(folder, "strip", data, "npz")


def test_what_the_run_stores_is_what_the_report_reads(tmp_path: Path) -> None:
    images = torch.from_numpy(pixels())
    stored = save_strip(tmp_path, Strip("Title ä", "Caption", ("", "r"), ("a", "b", "c"), images), 17)
    assert stored.role == "strip"
    assert stored.sha256 == hashlib.sha256((tmp_path / stored.path).read_bytes()).hexdigest()
    read = read_strip(tmp_path, stored)
    assert (read.title, read.caption, read.rows, read.columns) == ("Title ä", "Caption", ("", "r"), ("a", "b", "c"))
    np.testing.assert_array_equal(read.pixels, pixels())
    assert read.levels == 17


@pytest.mark.parametrize(
    "data",
    [
        b"no npz",
        npz(images=pixels().astype(np.float32)),
        npz(images=pixels()[0]),
        npz(images=pixels(columns=2)),
        npz(images=pixels(channels=2)),
        npz(images=pixels()[..., :0]),
        npz(levels=np.array(1)),
        npz(words=np.array([{"pickled": 1}], dtype=object)),
        npz(words=np.array("{")),
        npz(words=np.array("[1]")),
        npz({k: v for k, v in WORDS.items() if k != "caption"}),
        npz({**WORDS, "title": 3}),
        npz({**WORDS, "title": "x" * 1000}),
        npz({**WORDS, "columns": ["a", "b", "x" * 100]}),
        npz({**WORDS, "columns": ["a", "b", 3]}),
        npz({**WORDS, "rows": []}, images=pixels()[:0]),
        npz({**WORDS, "columns": ["x"] * 2000}, images=np.zeros((2, 2000, 1, 1, 1), np.uint8)),
    ],
)
def test_a_strip_of_something_else_is_told_and_never_unpickled(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="expected"):
        read_strip(tmp_path, put(tmp_path, data))


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16), (1, 28), (1, 64)])
def test_a_drawing_scales_by_whole_pixels_and_labels_stand_over_their_columns(channels: int, size: int) -> None:
    held = StripImages("t", "c", ("", ""), ("a", "b", "c"), pixels(channels=channels, size=size), 17)
    drawn = strip(held)
    mode = "LA" if channels == 1 else "RGBA"
    canvas = np.asarray(Image.open(io.BytesIO(drawn.picture.png)).convert(mode))
    assert canvas.shape[:2] == (2 * (size + 1) - 1, 3 * (size + 1) - 1)
    scale = drawn.picture.width // canvas.shape[1]
    assert (drawn.picture.width, drawn.picture.height) == (scale * canvas.shape[1], scale * canvas.shape[0])
    for i, label in enumerate(drawn.columns):
        assert drawn.left + scale * i * (size + 1) < label.x < drawn.left + scale * (i * (size + 1) + size)
    second = canvas[size + 1 :, size + 1 : 2 * size + 1]
    wanted = np.rint(held.pixels[1, 1].transpose(1, 2, 0) * (255 / 16)).astype(np.uint8)
    np.testing.assert_array_equal(second[..., :channels], wanted)
    assert (second[..., channels] == 255).all()
    assert not canvas[size, :, channels].any(), "between images it is transparent"
    assert not drawn.slanted


def test_long_labels_are_slanted_and_row_labels_have_room() -> None:
    held = StripImages("t", "c", ("a row", ""), ("a long column", "b", "c"), pixels(), 17)
    drawn = strip(held)
    assert drawn.slanted
    assert drawn.top > 40
    assert drawn.left > 25
    assert drawn.width > drawn.left + drawn.picture.width
    assert "a row" in drawn.told


def with_strips(folder: Path, make: Callable[[Path, Record], tuple[Artifact, ...]]) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        if record.cell.draw is not None or record.cell.model != "dcgan":
            return record
        return replace(record, artifacts=record.artifacts + make(folder, record))

    return change


def shown(page: str) -> list[Any]:
    """The pictures of all strips of a page, as arrays."""
    found = re.findall(r'<image class="exact" href="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("LA")) for data in found]


def test_the_page_shows_the_lowest_seeds_strips_pixel_for_pixel(make_results: Make, tmp_path: Path) -> None:
    def make(folder: Path, record: Record) -> tuple[Artifact, ...]:
        images = (pixels() + record.cell.seed) % 17
        return (put(folder, npz(images=images)), put(folder, npz({**WORDS, "title": "Another"}, images=images)))

    folder = make_results(models=("real", "dcgan"), change=with_strips(tmp_path / "results", make))
    out = write_report(folder, tmp_path / "out")
    text = out.read_text(encoding="utf-8")
    canvases = shown(text)
    assert len(canvases) == 2
    for canvas in canvases:
        for row in range(2):
            for column in range(3):
                tile = canvas[9 * row : 9 * row + 8, 9 * column : 9 * column + 8, 0]
                wanted = np.rint(pixels()[row, column, 0] * (255 / 16))
                np.testing.assert_array_equal(tile, wanted)
    page = Page(text)
    assert "How the models work, in pictures" in page.text
    assert "DCGAN , seed 0" in page.text
    assert re.findall(r"<text[^>]*>([abc])</text>", text) == ["a", "b", "c"] * 2
    markdown = (out.parent / "report.md").read_text(encoding="utf-8")
    for name in re.findall(r"\((figures/strip-[^)]+)\)", markdown):
        assert (out.parent / name).is_file()
    assert markdown.count("figures/strip-digits-0-") == 2


def test_words_of_a_strip_are_escaped(make_results: Make, tmp_path: Path) -> None:
    words = {"title": EVIL, "caption": EVIL, "rows": ["<b>r", ""], "columns": ["</text><script>1</script>", "&", '"']}

    def make(folder: Path, record: Record) -> tuple[Artifact, ...]:
        return (put(folder, npz(words)),)

    folder = make_results(models=("real", "dcgan"), change=with_strips(tmp_path / "results", make))
    out = write_report(folder, tmp_path / "out")
    page = Page(out.read_text(encoding="utf-8"))
    assert len(page.of("script")) == 1
    assert not [a for _, a in page.elements if "onerror" in a]
    assert "</text><script>1</script>" in page.text
    assert EVIL in unescape(page.text)
    markdown = (out.parent / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown


def test_damaged_strips_are_told_and_the_others_shown(make_results: Make, tmp_path: Path) -> None:
    def make(folder: Path, record: Record) -> tuple[Artifact, ...]:
        broken = put(folder, npz({**WORDS, "title": f"broken {record.cell.seed}"}))
        return (broken, put(folder, npz()))

    folder = make_results(models=("real", "dcgan"), change=with_strips(tmp_path / "results", make))
    whole = shown(write_report(folder, tmp_path / "out").read_text(encoding="utf-8"))
    for path in (folder / "artifacts").glob("strip-*.npz"):
        if b"broken 0" in np.load(path)["words"].item().encode():
            path.write_bytes(b"damaged")
    page = write_report(folder, tmp_path / "out").read_text(encoding="utf-8")
    assert (len(whole), len(shown(page))) == (2, 1)
    assert re.search(r"dcgan-digits seed 0: artifact artifacts/strip-\w+\.npz: damaged", page)


def test_pictures_beyond_the_pages_room_are_in_files_and_the_page_says_so(
    make_results: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = with_strips(tmp_path / "results", lambda folder, _: (put(folder, npz()),))
    made = make_results(models=("real", "dcgan"), change=change)
    whole = write_report(made, tmp_path / "whole").read_text(encoding="utf-8")
    assert len(shown(whole)) == 1
    monkeypatch.setattr(pages, "_STRIPS_ROOM", 10)
    text = write_report(made, tmp_path / "out").read_text(encoding="utf-8")
    assert shown(text) == []
    assert "figures/strip-digits-*.png" in text
    assert (tmp_path / "out" / "figures" / "strip-digits-0-0.png").stat().st_size > 100
