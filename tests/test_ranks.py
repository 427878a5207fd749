"""`torchrun -m bench evaluate`: really launched, two ranks and more on the CPU, against one process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import bench
from baselines.data import catalogue
from bench import cli
from bench.metrics.ranks import Ranks
from tests.command import trilemma_here

ROOT = Path(__file__).parents[1]
MINE = '''
import os
import signal
from pathlib import Path

import torch
from torch import nn

RANK = os.environ.get("RANK", "")
HARM = os.environ.get(f"HARM{RANK}", "")
HERE = Path(__file__).parent
if RANK:
    os.environ["TRILEMMA_CACHE"] = str(HERE / f"cache{RANK}")  # each rank would keep its own


class Mine(nn.Module):
    """Ten pixels; keeps what it is shown."""

    name = "mine"

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor(float(HARM == "weights")))

    def forward(self, x):
        with open(HERE / f"seen{RANK}", "ab") as file:
            file.write(x[:, 0].numpy().tobytes())
        if HARM == "raise":
            raise ValueError("a bad day")
        if HARM == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return x[:, 0].double().flatten(1)[:, 10:20]


NET = Mine()
'''


@pytest.fixture
def digits() -> Tensor:
    return catalogue.load("digits").train.images


@pytest.fixture
def mine(tmp_path: Path, digits: Tensor) -> Path:
    """A folder with an extractor in mine.py and 1,234 samples: batches of 500, 500 and 234."""
    (tmp_path / "mine.py").write_text(MINE)
    np.savez_compressed(tmp_path / "fake.npz", images=digits[:1234].numpy(), levels=17)
    return tmp_path


def torchrun(folder: Path, ranks: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)),
            *("-m", "bench", "evaluate", "--reference", "digits", "--json", "out.json", *arguments),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=100,  # far more than it takes: a hang is a failure
    )


def scores(folder: Path) -> dict[str, tuple[float, float, int]]:
    measured: list[dict[str, Any]] = json.loads((folder / "out.json").read_text())["measured"]
    return {m["metric"]: (m["value"], -1 if m["floor"] is None else m["floor"], m["n"]) for m in measured}


def seen(folder: Path, rank: str = "") -> list[bytes]:
    path = folder / f"seen{rank}"
    data = path.read_bytes() if path.exists() else b""
    return [data[i : i + 64] for i in range(0, len(data), 64)]


def test_two_ranks_see_each_image_once_and_give_the_numbers_of_one_process(mine: Path) -> None:
    arguments = ("--samples", "fake.npz", "--extractor", "mine.py:NET")
    one = trilemma_here(
        mine, "evaluate", "--reference", "digits", "--json", "out.json", *arguments, TRILEMMA_CACHE=str(mine / "cache")
    )
    assert one.returncode == 0, one.stderr
    expected = scores(mine)
    two = torchrun(mine, 2, *arguments)
    assert two.returncode == 0, two.stderr
    assert two.stdout == one.stdout, "printed once, by rank 0"
    found = scores(mine)
    assert found.keys() == expected.keys()
    assert len(found) >= 10
    for metric, values in expected.items():
        assert found[metric] == pytest.approx(values, rel=1e-10, abs=1e-12), metric
    shared = [seen(mine, rank) for rank in "01"]
    assert sorted(shared[0] + shared[1]) == sorted(seen(mine))
    assert min(map(len, shared)) >= 500
    assert (mine / "cache0").is_dir()
    assert not (mine / "cache1").exists(), "only rank 0 keeps features"


def test_what_rank_0_finds_in_its_cache_no_rank_extracts(mine: Path) -> None:
    before = bench.evaluate(
        mine / "fake.npz", "digits", metrics=["fd"], extractor=f"{mine / 'mine.py'}:NET", cache=mine / "cache0"
    )
    kept = sorted((mine / "cache0").iterdir())
    assert len(kept) == 3  # samples, reference, floor
    (kept[0]).unlink()  # so that one of the sets is to be extracted, the others are not
    done = torchrun(mine, 2, "--samples", "fake.npz", "--extractor", "mine.py:NET", "--metric", "fd")
    assert done.returncode == 0, done.stderr
    value, floor, _ = scores(mine)["fd[mine]"]
    assert (value, floor) == (before.value("fd[mine]"), before.floor["fd[mine]"])
    assert len(seen(mine, "0") + seen(mine, "1")) in (360, 1234)
    assert sorted((mine / "cache0").iterdir()) == kept


def zipped(path: Path, images: Tensor) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images.numpy()):
            buffer = io.BytesIO()
            Image.fromarray(15 * image[0]).save(buffer, "png")
            archive.writestr(f"{i:04d}.png", buffer.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_agree_through_a_network_even_if_there_are_more_than_batches(
    ranks: int, tmp_path: Path, digits: Tensor
) -> None:
    zipped(tmp_path / "fake.zip", digits[:701])
    arguments = ("--samples", "fake.zip", "--metric", "fd", "--metric", "kid", "--metric", "is", "--no-cache")
    one = bench.evaluate(tmp_path / "fake.zip", "digits", metrics=["fd", "kid", "is"], cache=False)
    done = torchrun(tmp_path, ranks, *arguments)
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path)
    assert len(found) == len(one.measured) == 3
    for m in one.measured:
        expected = (m.value, one.floor[m.metric], m.n)
        assert found[m.metric] == pytest.approx(expected, rel=1e-5, abs=1e-5), m.metric


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ({"HARM1": "raise"}, "error: rank 1: extractor mine: its module fails on"),
        pytest.param({"HARM0": "raise"}, "error: extractor mine: its module fails on", marks=pytest.mark.slow),
        pytest.param({"HARM1": "weights"}, "error: rank 1: extractor mine: expected rank 0's", marks=pytest.mark.slow),
        pytest.param({"HARM1": "kill"}, "", marks=pytest.mark.slow),  # torchrun may end rank 0 before it can tell
        pytest.param({"HARM0": "kill"}, "", marks=pytest.mark.slow),
    ],
)
def test_what_goes_wrong_on_one_rank_ends_all_with_one_message(harm: dict[str, str], told: str, mine: Path) -> None:
    done = torchrun(mine, 2, "--samples", "fake.npz", "--extractor", "mine.py:NET", **harm)
    assert done.returncode != 0
    assert done.stdout.strip() == ""
    assert told in done.stderr
    assert done.stderr.count("error: ") == bool(told) or not told
    assert "bench/cli.py" not in done.stderr, "no traceback but torchrun's own"
    assert not (mine / "out.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--samples", "fake.npz", "--processes", "2"), "error: --processes 2: torchrun shares the extraction out"),
        (("--samples", "nothing"), "error: samples: nothing is no folder and no file"),
        (("--samples", "fake.npz", "--bogus"), "No such option"),
    ],
)
def test_wrong_input_is_told_once_for_all_ranks(arguments: tuple[str, ...], told: str, mine: Path) -> None:
    done = torchrun(mine, 2, *arguments)
    assert done.returncode != 0
    assert done.stdout.strip() == ""
    assert done.stderr.count(told) == 1


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("WORLD_SIZE", "6")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(3 + rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert Ranks().take_device("auto") == "cuda"
        assert Ranks().take_device("cpu") == "cpu"
    assert taken == [0, 1, 0]


def test_a_process_alone_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not cli._is_a_rank(), "a cluster may set these four for a pod of one process"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli._is_a_rank()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not cli._is_a_rank()
