"""Generated binary images whose exact log-probability is known: a causal Markov mesh (Abend et al. 1965).

In raster order each pixel is drawn given its left, upper and upper-left neighbours (0 beyond the border), so
log P(x) is a sum of looked-up terms (Abend, Harley and Kanal 1965, IEEE Trans. Inf. Theory 11(4)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.data.dataset import Dataset, Split
from baselines.errors import UserError
from baselines.types import ImageShape

# P(pixel = 1) at 4 left + 2 up + upleft. Strokes and patches go on (.92, .95), but two strokes that meet stop
# (.06, as an exclusive or does): no model that is linear in the neighbours comes near.
TABLE = (0.12, 0.05, 0.92, 0.20, 0.92, 0.20, 0.06, 0.95)

SIZES = {"train": 4_000, "val": 500, "test": 2_000}
_SEED = 20_260_119


@dataclass(frozen=True)
class MarkovMesh:
    """The source for images of any size. table: eight probabilities inside (0, 1), see TABLE."""

    height: int
    width: int
    table: tuple[float, ...] = TABLE

    def __post_init__(self) -> None:
        if len(self.table) != 8 or not all(0 < p < 1 for p in self.table):
            raise UserError(f"markov-mesh: expected a table of 8 probabilities inside (0, 1), got {self.table}")

    def nats(self, x: Tensor) -> Tensor:
        """-log P(x), exactly, of uint8 x (B, 1, height, width) with levels 0 and 1; float64 (B,)."""
        if tuple(x.shape[1:]) != (1, self.height, self.width):
            raise ValueError(f"expected images (B, 1, {self.height}, {self.width}), got {tuple(x.shape)}")
        padded = F.pad(x, (1, 0, 1, 0)).long()
        left, up, corner = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
        table = torch.tensor(self.table, dtype=torch.float64, device=x.device)
        one = table[4 * left + 2 * up + corner]
        return -torch.where(x == 1, one.log(), torch.log1p(-one)).flatten(1).sum(1)

    def sample(self, n: int, seed: int) -> Tensor:
        """n independent images, uint8 (n, 1, height, width), by ancestral sampling.

        The uniforms are raw PCG64 words, a stream that NumPy promises for all versions and platforms.
        """
        words = np.random.PCG64(seed).random_raw(n * self.height * self.width)
        uniform = (words >> np.uint64(11)).astype(np.float64).reshape(n, self.height, self.width) * 2.0**-53
        table = np.asarray(self.table)
        x = np.zeros((n, self.height + 1, self.width + 1), dtype=np.uint8)
        for i in range(1, self.height + 1):
            for j in range(1, self.width + 1):
                state = 4 * x[:, i, j - 1] + 2 * x[:, i - 1, j] + x[:, i - 1, j - 1]
                x[:, i, j] = uniform[:, i - 1, j - 1] < table[state]
        return torch.from_numpy(np.ascontiguousarray(x[:, None, 1:, 1:]))


def load() -> Dataset:
    """6,500 images (1, 8, 8) with 2 levels; `truth` is exact, so a model's gap to it is a true KL divergence."""
    mesh = MarkovMesh(8, 8)
    splits = torch.split(mesh.sample(sum(SIZES.values()), _SEED), list(SIZES.values()))
    train, val, test = (Split(images.clone()) for images in splits)
    return Dataset(
        name="markov-mesh",
        shape=ImageShape(1, 8, 8, 2),
        train=train,
        val=val,
        test=test,
        source="generated: a causal Markov mesh of 8x8 binary pixels (Abend, Harley and Kanal 1965)",
        note=f"independent draws, PCG64 seed {_SEED}: train {len(train)}, val {len(val)}, test {len(test)}; "
        "log P(x) of every image is known exactly",
        truth=mesh.nats,
    )
