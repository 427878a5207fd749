"""A user's own torch module or object as extractor, from the command line and from Python."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics.base import Features
from bench.metrics.extractors import choose_extractor, names, own_extractor
from bench.metrics.frechet import frechet_distance
from bench.metrics.own_extractor import open_named
from tests.command import trilemma_here

SHAPE = ImageShape(1, 8, 8)

MODULE = """
    import torch
    from torch import nn

    class Means(nn.Module):
        name = "means"

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(0.5, 1, 12).view(12, 1))
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            y = nn.functional.adaptive_avg_pool2d(x.float() / 255, 2).flatten(1)
            return {"features": self.drop(y) * self.weight.T, "logits": y[:, :4]}

    EXTRACTOR = Means()
"""


class Means(nn.Module):
    """Block means times a weight; ill-behaved on purpose where a test asks for it."""

    def __init__(self, weight: float = 1.0, wrong: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.inner = nn.Dropout(0.9)
        self.wrong = wrong

    def forward(self, x: Tensor) -> Any:
        y = self.weight * self.inner(nn.functional.adaptive_avg_pool2d(x.double(), 2).flatten(1))
        wrong: dict[str, Any] = {
            "": y,
            "rows": y[:1],
            "rank": y[:, :, None],
            "key": {"values": y},
            "kind": y.detach().numpy(),
            "logits": {"features": y, "logits": y[0]},
            "nan": y * float("nan"),
        }
        if self.wrong == "raises":
            raise IndexError("out of its depth")
        return wrong[self.wrong]


class Sums:
    """An extractor object."""

    def __init__(self, name: str = "sums", wrong: str = "") -> None:
        self.name, self.wrong = name, wrong

    def identity(self) -> Mapping[str, Any]:
        return [1] if self.wrong == "identity" else {"sums": 1}  # type: ignore

    def extract(self, images: Tensor, levels: int) -> Features:
        values = images.double().sum(2).flatten(1).numpy()
        wrong: dict[str, Any] = {"array": values, "rows": Features(values[1:]), "rank": Features(values[:, 0])}
        return wrong.get(self.wrong, Features(values))


def images(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)


def score(extractor: Any, **options: Any) -> Any:
    settings = {"metrics": ["fd"], "cache": False, **options}
    return bench.evaluate(images(30, 0), images(40, 1), extractor=extractor, **settings)


def file(folder: Path, name: str, text: str = MODULE) -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return str(folder / name)


def test_a_module_in_a_file_is_an_extractor_of_the_command_line(tmp_path: Path) -> None:
    file(tmp_path, "my_means.py")
    for name, seed in (("fake", 0), ("real", 1)):
        np.save(tmp_path / f"{name}.npy", images(40, seed)[:, 0].numpy())
    found = []
    for named in ("my_means.py:EXTRACTOR", "my_means:EXTRACTOR"):
        arguments = ["--samples", "fake.npy", "--reference", "real.npy", "--extractor", named, "--json", "out.json"]
        done = trilemma_here(tmp_path, "evaluate", *arguments, "--cache", "cache")
        assert done.returncode == 0, done.stderr
        told = json.loads((tmp_path / "out.json").read_text())
        assert {"fd[means]", "is[means]", "kid[means]"} <= {m["metric"] for m in told["measured"]}
        found.append(next(m["value"] for m in told["measured"] if m["metric"] == "fd[means]"))
    weight = np.linspace(0.5, 1, 12)
    real, generated = (
        images(40, seed).double().view(40, 1, 2, 4, 2, 4).mean((3, 5)).flatten(1).repeat(1, 3).numpy() / 255 * weight
        for seed in (1, 0)
    )
    assert found[0] == found[1]
    assert found[0] == pytest.approx(frechet_distance(real=real, generated=generated), rel=1e-4)


def test_a_module_from_python_is_measured_in_evaluation_mode_and_left_as_it_was() -> None:
    module = Means().train()
    module.inner.eval()
    module.wrong = ""
    found = score(module)
    assert [m.metric for m in found.measured] == ["fd[Means]"]
    assert (module.training, module.inner.training) == (True, False)
    pools = [
        nn.functional.adaptive_avg_pool2d(x.double().expand(-1, 3, -1, -1), 2).flatten(1)
        for x in (images(40, 1), images(30, 0))
    ]
    expected = frechet_distance(real=pools[0].numpy(), generated=pools[1].numpy())
    assert found.value("fd[Means]") == pytest.approx(expected, rel=1e-9)


def test_the_identity_follows_weights_layers_and_source(tmp_path: Path) -> None:
    same = [own_extractor(Means()).identity() for _ in range(2)]
    assert same[0] == same[1]
    assert own_extractor(Means(2.0)).identity() != same[0]
    layers = [own_extractor(nn.Sequential(nn.Flatten(), nn.Identity(), layer)) for layer in (nn.ReLU(), nn.GELU())]
    assert layers[0].identity() != layers[1].identity()
    text = textwrap.dedent(MODULE)
    sources = {"first": text, "second": text.replace("/ 255", "/ 256"), "third": text + "# a remark\n"}
    keys = {
        name: open_named(f"{file(tmp_path, f'{name}_source.py', source)}:EXTRACTOR", names()).identity()
        for name, source in sources.items()
    }
    assert keys["first"] != keys["second"]
    assert keys["first"] == keys["third"]


def test_an_object_is_an_extractor_and_its_source_joins_its_identity(tmp_path: Path) -> None:
    found = score(Sums())
    assert [m.metric for m in found.measured] == ["fd[sums]"]
    told = found.about["extractor"]
    assert told["sums"] == 1
    assert told["source_key"]


@pytest.mark.parametrize("wrong", ["rows", "rank", "key", "kind", "logits", "raises"])
def test_a_module_that_gives_something_else_is_told_what_it_must_give(wrong: str) -> None:
    with pytest.raises(UserError, match=r"extractor Means: .*\(N, 3, H, W\)") as error:
        score(Means(wrong=wrong))
    if wrong == "raises":
        assert "test_own_extractor.py:" in str(error.value)
        assert "out of its depth" in str(error.value)


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        score(Means(wrong="nan"))


@pytest.mark.parametrize("wrong", ["identity", "array", "rows", "rank"])
def test_an_object_that_gives_something_else_is_told(wrong: str) -> None:
    with pytest.raises(UserError, match="extractor sums: expected"):
        score(Sums(wrong=wrong))


@pytest.mark.parametrize("given", [3, Sums, Means, object(), len])
def test_what_is_no_extractor_is_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"expected a torch module from uint8 RGB"):
        score(given)


@pytest.mark.parametrize("name", ["inception", "digits-cnn", "clip-vit-b-32", "a]b", ""])
def test_the_programs_own_names_and_odd_ones_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="no other extractor bears"):
        score(Sums(name))


@pytest.mark.parametrize(
    ("text", "named", "match"),
    [
        (MODULE, "{}:NOTHING", r"has no NOTHING"),
        (MODULE, "{}:", r"expected module:VARIABLE"),
        (MODULE, "{}:two words", r"expected module:VARIABLE"),
        ("import no_such_module\n", "{}:EXTRACTOR", r"imports 'no_such_module', which is not installed"),
        ("x = 1\ny = x / 0\n", "{}:EXTRACTOR", r"broken\.py:2: ZeroDivisionError"),
        ("x = (\n", "{}:EXTRACTOR", r"broken\.py:1: "),
        ("EXTRACTOR = 3\n", "{}:EXTRACTOR", r"expected a torch module"),
        (MODULE, "no_such_file.py:EXTRACTOR", r"no such file"),
        (MODULE, "no_such.module:EXTRACTOR", r"unknown extractor .*PYTHONPATH"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(text: str, named: str, match: str, tmp_path: Path) -> None:
    path = file(tmp_path, "broken.py", text)
    with pytest.raises(UserError, match=match):
        choose_extractor("digits", SHAPE, named.format(path))
    sys.modules.pop("broken", None)


def test_weights_are_the_modules_own_affair(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="load them where it is made"):
        choose_extractor("digits", SHAPE, "mine.py:EXTRACTOR", tmp_path / "weights.pth")
