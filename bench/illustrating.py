"""What a trained model shows of its own workings: strips of pictures and charts, as artifacts."""

from __future__ import annotations

import dataclasses

from baselines.contract import GenerativeModel, HasCharts, Illustrates, IllustratesRequests, Noise, Strip
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.given import Requests
from baselines.noise import derive_seed
from bench.artifacts import save_json, save_strip
from bench.job import Setup
from bench.record import Artifact

_ILLUSTRATED = 16  # test images, or requests, that a model may show its workings on


def illustrate(
    model: GenerativeModel, dataset: Dataset, requests: Requests | None, seed: int, setup: Setup
) -> tuple[tuple[Artifact, ...], dict[str, str]]:
    """The artifacts of a model in evaluation mode; none where it refuses, with its reason."""
    shown = dataset.test.images[:_ILLUSTRATED].to(setup.device)
    noise = Noise(derive_seed(seed, "pictures"), device=setup.device)
    strips: tuple[Strip, ...] = ()
    try:
        if isinstance(model, Illustrates):
            strips += model.pictures(shown, noise)
        if isinstance(model, IllustratesRequests) and requests is not None:
            strips += model.pictures_of(requests.at(0, _ILLUSTRATED), noise)
        charts = model.charts(shown, noise) if isinstance(model, HasCharts) else ()
    except UserError as error:
        return (), {"pictures": str(error)}
    artifacts = [save_strip(setup.results, strip, dataset.shape.levels) for strip in strips]
    artifacts += [save_json(setup.results, "chart", dataclasses.asdict(chart)) for chart in charts]
    return tuple(artifacts), {}
