"""Keys change with what a number depends on, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import keys


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose `model` imports `layer`, which imports `deep`; `other` stands alone."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "model.py").write_text('"""A model."""\nfrom zoo.layer import Layer\nx = Layer\n')
    (folder / "layer.py").write_text("from .deep import DEPTH\nclass Layer:\n    depth = DEPTH\n")
    (folder / "deep.py").write_text("DEPTH = 3\n")
    (folder / "other.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        del sys.modules[name]


def key() -> str:
    keys._read.cache_clear()
    keys._module_file.cache_clear()
    return keys.source_key(["zoo.model"], ("zoo",))


def append(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text((folder / file).read_text() + text) and None


@pytest.mark.parametrize(
    "change",
    [
        append("other.py", "z = 2\n"),
        append("model.py", "# a comment\n"),
        append("layer.py", "\n\n"),
        lambda folder: (folder / "model.py").write_text('"""Other words."""\nfrom zoo.layer import Layer\nx = Layer\n'),
        lambda folder: (folder / "README.md").write_text("words"),
    ],
    ids=["another model", "a comment", "blank lines", "a docstring", "a document"],
)
def test_what_does_not_matter_keeps_the_key(package: Path, change: Callable[[Path], None]) -> None:
    before = key()
    change(package)
    assert key() == before


@pytest.mark.parametrize(
    "change",
    [
        append("model.py", "z = 2\n"),
        append("layer.py", "z = 2\n"),
        lambda folder: (folder / "deep.py").write_text("DEPTH = 4\n"),
    ],
    ids=["the model", "a layer it imports", "what that imports, by a relative import"],
)
def test_what_matters_changes_the_key(package: Path, change: Callable[[Path], None]) -> None:
    before = key()
    change(package)
    assert key() != before


def test_every_input_of_a_training_enters_its_key() -> None:
    base = ("src", {"width": 1}, "data", {"images": 5}, 0, "cpu")
    changed = [
        ("other", *base[1:]),
        (base[0], {"width": 2}, *base[2:]),
        (*base[:2], "more", *base[3:]),
        (*base[:3], {"images": 6}, *base[4:]),
        (*base[:4], 1, base[5]),
        (*base[:5], "cuda"),
        (*base, "the key of a teacher"),
        (*base, "the key of another teacher"),
    ]
    found = {keys.train_key(*parts) for parts in (base, *changed)}
    assert len(found) == 9


def test_the_draw_enters_the_cell_key_only() -> None:
    train = keys.train_key("src", {}, "data", {}, 0, "cpu")
    draws = [None, {"steps": 5}, {"steps": 6}]
    assert len({keys.cell_key(train, draw, {}) for draw in draws}) == 3
    assert keys.cell_key(train, {"steps": 5}, {"samples": 1}) != keys.cell_key(train, {"steps": 5}, {"samples": 2})
