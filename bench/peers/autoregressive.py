"""Exact sampling of autoregressive models beside the naive loop: one pass of the whole network for each pixel.

Public implementations of PixelCNN sample by the naive loop. Ours computes what is new of each layer. Both get the same
uniform numbers, one for each pixel, and must draw the same images bit for bit. The naive loop is timed for some of the
last pixels, the ones before being given, since every one of its passes is the same work.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.contest import Agreement, Contender, Contest, Entry

GROUP = "Autoregressive models"
TITLES = {"pixelcnn": "PixelCNN", "gated_pixelcnn": "Gated PixelCNN", "pixelcnnpp": "PixelCNN++"}
PIXELS = {1: 40, 16: 4}  # that the naive loop is timed for, by batch
NAIVE = "the naive loop"


def _name(model: str, batch: int) -> str:
    images = "one image" if batch == 1 else f"{batch} images"
    return f"{TITLES[model]} sampling, {images} of 28x28 pixels with 256 levels"


def make(folder: Path, model: str, batch: int) -> Contest:
    """The two samplers of one model of random weights, in its default size."""
    from baselines.types import ImageShape
    from bench.measure.memory import keep_freed_memory

    keep_freed_memory()
    return contest(_name(model, batch), model, batch, ImageShape(1, 28, 28, 256), PIXELS[batch])


def contest(name: str, model: str, batch: int, shape: Any, part: int) -> Contest:
    """The naive loop for the last `part` dimensions of images of `shape`."""
    import torch

    from baselines import registry
    from baselines.autoregression import Autoregressive, Known
    from baselines.contract import Draw, Noise
    from bench.measure.workload import capture_calls

    entry = registry.load(model).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = entry.build(shape, entry.config()).eval()
    assert isinstance(made, Autoregressive)
    uniform = Noise(0).uniform("pixels", batch, shape.chw)
    images = made.sample(batch, Draw(), Noise(0))
    with capture_calls(made) as calls:
        made.sample(batch, Draw(), Noise(0))
    known = Known(images, shape.dims - part)
    drawn = f"of {batch * part} that the naive loop drew"
    return Contest(
        name,
        GROUP,
        Contender("trilemma", lambda: made.sample(batch, Draw(), Noise(0)), "trilemma-bench"),
        (
            Contender(
                NAIVE,
                lambda: made.draw_naively(uniform, known),
                "trilemma-bench",
                share=part / shape.dims,
                note=f"{shape.dims} passes against {calls.count} calls of parts; timed for the last {part} pixels",
            ),
        ),
        {NAIVE: lambda ours, naive: Agreement(f"pixels that differ, {drawn}", float((ours != naive).sum()), 0)},
        rounds=9 if batch == 1 else 6,
    )


ENTRIES: tuple[Entry, ...] = tuple(
    Entry(_name(model, batch), GROUP, partial(make, model=model, batch=batch)) for model in TITLES for batch in PIXELS
)
