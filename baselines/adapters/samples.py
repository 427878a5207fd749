"""A folder of samples that another program drew, as a row of a matrix: quality only, since nothing is left to time.

Image files of the data set's size anywhere below the folder, hidden ones left out; their 256 levels go to the nearest
of the data set's. Every seed shows them in an order of its own, each file once; with as many images as are asked for,
all seeds show the same ones, so that a spread over seeds tells nothing: take one seed. `trilemma evaluate` scores a
folder without a matrix.

    trilemma run quick --seeds 0 --model baselines.adapters.samples --set baselines.adapters.samples.folder=DIR
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from baselines.adapters.factory import checked_hash
from baselines.adapters.pixels import of_bytes
from baselines.contract import Draw, GenerativeModel, Given, ImageShape, Model, Noise, Pretrained, Replays
from baselines.data.decoding import decode, look, one_size
from baselines.data.folder import find
from baselines.errors import UserError


@dataclass(frozen=True)
class Config:
    """folder: of images. sha256: of their files; found out, and compared where it is given."""

    folder: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        paths = _paths(self.folder)
        stats = (path.stat() for path in paths)
        found = _fingerprint(tuple(paths), tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))
        object.__setattr__(self, "sha256", checked_hash(self.sha256, found, f"samples {self.folder}"))


class Samples(GenerativeModel, Pretrained, Replays):
    """Decodes the files that are asked for."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.paths = _paths(config.folder)
        looks = [look(path, path) for path in self.paths]
        size = one_size(looks, "samples")
        if size != (shape.width, shape.height):
            raise UserError(
                f"samples: expected images of {shape.width}x{shape.height} pixels, as the data set has them, got "
                f"{size[0]}x{size[1]} in {config.folder}; resize them, or score them by trilemma evaluate with an "
                "extractor that takes both"
            )
        coloured = next((seen.name for seen in looks if not seen.grey), None)
        if shape.channels == 1 and coloured is not None:
            raise UserError(f"samples: expected grey images, as the data set has them, got colours in {coloured}")

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Files number noise.first, ..., noise.first + n - 1 of the permutation of noise.seed; none comes twice."""
        self.check_draw(self.config, draw)
        if noise.first + n > len(self.paths):
            raise UserError(
                f"samples: {self.config.folder} has {len(self.paths)} images, and image {noise.first + n} is asked "
                f"for; take samples = {len(self.paths)} or fewer in the matrix, since copies would spoil every score"
            )
        order = torch.randperm(len(self.paths), generator=torch.Generator().manual_seed(noise.seed))
        chosen = [self.paths[i] for i in order[noise.first : noise.first + n].tolist()]
        mode = "L" if self.shape.channels == 1 else "RGB"
        images = torch.stack([torch.tensor(decode(path, path, mode)) for path in chosen])
        return of_bytes(images, self.shape.levels).to(noise.device)


def _paths(folder: str) -> list[Path]:
    """Its image files, sorted.

    Raises:
        UserError: if it is no folder, or holds none.
    """
    if not folder:
        raise UserError("samples.folder: expected a folder of images, got none")
    if not Path(folder).is_dir():
        raise UserError(f"samples.folder: no such folder: {folder}")
    paths, _ = find(Path(folder))
    if not paths:
        raise UserError(f"samples.folder: expected image files in {folder}, found none")
    return paths


@functools.lru_cache(maxsize=4)
def _fingerprint(paths: Sequence[Path], stats: Sequence[tuple[int, int]]) -> str:
    """SHA-256 over the files' content in their order; taken again where a size or a time has changed."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


MODEL = Model("A folder of samples", "another program; not trained here", Config, Samples)
