"""What conditional models are given: rows that stay together, batches that resume, tasks that data sets offer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from baselines.batches import Batches
from baselines.contract import Given
from baselines.data.dataset import Dataset, Split
from baselines.given import Requests
from baselines.types import ImageShape

SHAPE = ImageShape(1, 4, 4, 256)
N = 12


def numbered(n: int, first: int = 0) -> torch.Tensor:
    """Image i has level first + i everywhere."""
    return (first + torch.arange(n)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE.chw).contiguous()


def dataset_of(requests: Requests) -> Dataset:
    split = Split(numbered(N), torch.arange(N), attributes=torch.arange(N)[:, None], requests=requests)
    return Dataset("toy", SHAPE, split, split, split, "here", "none", tasks=frozenset({"text_to_image"}))


def test_rows_go_round_and_stay_together() -> None:
    given = Given(tokens=torch.arange(5)[:, None], images=numbered(5))
    requests = Requests(given, attributes=torch.arange(5)[:, None])
    rows = requests.at(3, 4)
    assert rows.given.tokens is not None
    assert rows.given.images is not None
    assert rows.attributes is not None
    assert rows.attributes[:, 0].tolist() == rows.given.tokens[:, 0].tolist() == [3, 4, 0, 1]
    assert rows.given.images[:, 0, 0, 0].tolist() == [3, 4, 0, 1]
    assert rows.given.labels is None
    assert len(rows) == 4


def test_rows_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="one number of rows"):
        len(Given(tokens=torch.zeros(2, 3), images=numbered(4)))
    with pytest.raises(ValueError, match="none"):
        len(Given())


def test_aligned_batches_hold_what_belongs_to_their_images() -> None:
    batches = Batches(
        dataset_of(Requests(Given(tokens=torch.arange(N)[:, None]))), "text_to_image", 3, torch.device("cpu")
    )
    batch = batches.at(5, 20)
    assert batch.given is not None
    assert batch.given.tokens is not None
    assert batch.attributes is not None
    assert batch.labels is not None
    level = batch.images[:, 0, 0, 0].long()
    for other in (batch.given.tokens[:, 0], batch.attributes[:, 0], batch.labels):
        assert torch.equal(level, other)


def test_unpaired_batches_are_in_two_orders_that_hang_on_the_position_alone() -> None:
    data = dataset_of(Requests(Given(images=numbered(30, first=100)), aligned=False))
    batches = Batches(data, "translation", 3, torch.device("cpu"))
    sources = []
    for position in range(0, 60, 10):
        batch = batches.at(position, 10)
        again = Batches(data, "translation", 3, torch.device("cpu")).at(position, 10)
        assert batch.given is not None
        assert again.given is not None
        assert batch.given.images is not None
        assert again.given.images is not None
        assert torch.equal(batch.given.images, again.given.images)
        assert torch.equal(batch.images, again.images)
        sources += (batch.given.images[:, 0, 0, 0].int() - 100).tolist()
    assert sorted(sources[:30]) == sorted(sources[30:]) == list(range(30))
    assert sources[:N] != list(range(N))


def test_an_unconditional_model_is_given_nothing() -> None:
    data = dataset_of(Requests(Given(tokens=torch.arange(N)[:, None])))
    assert Batches(data, "unconditional", 3, torch.device("cpu")).at(0, 4).given is None


@pytest.mark.parametrize(
    "change",
    [
        lambda r: dataclasses.replace(r, given=Given(tokens=r.given.tokens + 1)),
        lambda r: dataclasses.replace(r, attributes=r.attributes + 1),
        lambda r: dataclasses.replace(r, unseen=torch.ones(N, dtype=torch.bool)),
    ],
)
def test_the_fingerprint_covers_requests(change: object) -> None:
    requests = Requests(Given(tokens=torch.arange(N)[:, None]), attributes=torch.zeros(N, 1, dtype=torch.int64))
    assert callable(change)
    assert dataset_of(requests).fingerprint() != dataset_of(change(requests)).fingerprint()


def test_data_without_conditions_keeps_the_fingerprint_it_had() -> None:
    from baselines.data import digits

    manifest = Path("bench/metrics/weights/digits-cnn.json")
    assert digits.load().fingerprint() in manifest.read_text(encoding="utf-8")
