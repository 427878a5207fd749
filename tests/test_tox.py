"""Every shipped matrix, and every model of the large ones, has a tox environment that runs it."""

from __future__ import annotations

import configparser
import itertools
import re
from pathlib import Path

import pytest

from bench import matrix

TOX = Path(__file__).parents[1] / "tox.ini"


def expanded(name: str) -> list[str]:
    """`bench-{a,b}-c` as bench-a-c and bench-b-c."""
    parts = [part.split(",") if i % 2 else [part] for i, part in enumerate(re.split(r"[{}]", name))]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def environments() -> dict[str, str]:
    """Each environment's commands, as the file has them."""
    read = configparser.ConfigParser(interpolation=None)
    read.read(TOX)
    sections = [name for name in read.sections() if name.startswith("testenv:")]
    return {
        name: read[section].get("commands", "") + read[section].get("set_env", "")
        for section in sections
        for name in expanded(section.removeprefix("testenv:"))
    }


@pytest.mark.parametrize("name", matrix.shipped())
def test_every_shipped_matrix_has_an_environment_that_runs_it(name: str) -> None:
    commands = environments()[name]
    assert "trilemma run {env_name}" in commands or f"trilemma run {name} " in commands


@pytest.mark.parametrize("name", ["digits", "cifar10", "gpu"])
def test_every_model_of_a_large_matrix_has_an_environment_of_its_own(name: str) -> None:
    references = {"gmm", "gaussian", *matrix.ENDPOINTS}
    pairs = {(w.model, w.dataset) for w in matrix.expand(matrix.load(name)[1]) if w.model not in references}
    known = environments()
    missing = [pair for pair in sorted(pairs) if "bench-{}-{}".format(*pair) not in known and pair[1] != "mnist"]
    assert not missing
    assert len(pairs) > 5


def test_every_environment_of_a_model_sets_or_names_it() -> None:
    for name, content in environments().items():
        found = re.match(r"bench-(\w+)-", name)
        if found is None or ("diffusion" in name and "progressive" not in name):
            continue
        model = found[1]
        assert f"{model}: MODEL = {model}\n" in f"{content}\n" or f"--model {model} " in content, name
