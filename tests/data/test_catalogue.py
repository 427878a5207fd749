"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from baselines.data import catalogue
from baselines.errors import UserError


def test_a_data_set_bears_the_name_it_was_asked_by(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8))
    for name in ("digits", "markov-mesh", f"npz:{tmp_path}/x.npy"):
        assert catalogue.load(name).name == name


def test_every_listed_name_is_known_to_load(tmp_path: Path) -> None:
    listed = [info.name for info in catalogue.names()]
    assert len(set(listed)) == len(listed) >= 8
    embedded = [name for name in listed if name.startswith(("digits", "markov-mesh")) and "mnist" not in name]
    assert len(embedded) >= 2
    for name in embedded:
        assert catalogue.load(name).name == name
    for name in set(listed) - set(embedded):
        with pytest.raises(UserError, match=r"expected an existing folder|cannot be read \(No such file"):
            catalogue.load(name.replace("PATH", str(tmp_path / "absent")), data_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digts", "unknown name 'digts'; did you mean 'digits'"),
        ("mnist-statik", "did you mean 'mnist-static'"),
        ("foldr:/somewhere", "did you mean 'folder'"),
        ("folder:", "expected folder:PATH, got 'folder:'"),
        ("npz", "expected npz:PATH, got 'npz'"),
        ("", "unknown name ''; known: celeba"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        catalogue.load(name)


def test_the_data_folder_comes_from_the_environment_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILEMMA_DATA", str(tmp_path / "from-environment"))
    with pytest.raises(UserError, match="from-environment"):
        catalogue.load("mnist")
    with pytest.raises(UserError, match="by-hand"):
        catalogue.load("mnist", tmp_path / "by-hand")
