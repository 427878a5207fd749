"""A generator from noise to images, as torch-fidelity measures them; its module is made by a user's function.

The contract is that of torch-fidelity's GenerativeModelModuleWrapper (Obukhov et al. 2020): a module called with z
(n, z_size), drawn by `z_type`, and of a conditional one with labels (n,), uniform; it answers with images, uint8
0 .. 255 unless `pixels` says otherwise. Image i has the same z and label in any batch.

    trilemma run quick --model baselines.adapters.generator \\
        --set baselines.adapters.generator.factory=my_module.py:make --set baselines.adapters.generator.z_size=64

`my_module.py` holds `def make(): return MyGenerator()`; with `weights=my.safetensors` its state dict is loaded into
that. A TorchScript archive can hold code and is not opened here: a function may load one that its user trusts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from baselines.adapters.factory import checked_hash, fingerprint, keep_apart, make
from baselines.adapters.pixels import Pixels, to_images
from baselines.contract import Draw, GenerativeModel, Given, ImageShape, Model, Noise, Pretrained
from baselines.errors import UserError
from baselines.importing import where_raised


@dataclass(frozen=True)
class Config:
    """sha256: of the module that the factory makes; found out, and compared where it is given."""

    factory: str = ""  # module:FUNCTION or file.py:FUNCTION
    weights: str = ""  # .safetensors, loaded into what the factory makes
    z_size: int = 128
    z_type: Literal["normal", "unit", "uniform_0_1"] = "normal"  # unit: normal, divided by its length
    num_classes: int = 0  # K of a conditional generator, whose second argument is a label 0 .. K - 1
    pixels: Pixels = "bytes"
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.z_size < 1 or self.num_classes < 0:
            raise UserError(
                "generator: expected z_size of 1 or more and num_classes of 0 or more, "
                f"got {self.z_size} and {self.num_classes}"
            )
        found = fingerprint(self.factory, self.weights, "generator")
        object.__setattr__(self, "sha256", checked_hash(self.sha256, found, f"generator {self.factory}"))


class Generator(GenerativeModel, Pretrained):
    """One call of the module draws a batch."""

    network = "module"

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.module = make(config.factory, config.weights, "generator")
        keep_apart(self)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Images of n draws of z, and of n labels where there are classes."""
        self.check_draw(self.config, draw)
        arguments = [self._z(n, noise)]
        if self.config.num_classes:
            place = noise.uniform("label", n, ()) * self.config.num_classes
            arguments.append(place.long().clamp(max=self.config.num_classes - 1))
        try:
            answer = self.module(*arguments)
        except (RuntimeError, TypeError, ValueError) as error:
            told = ", ".join(f"{tuple(argument.shape)} {argument.dtype}" for argument in arguments)
            raise UserError(f"generator: {self.config.factory} fails on {told}: {where_raised(error)}") from error
        return to_images(answer, n, self.shape, self.config.pixels, "generator")

    def _z(self, n: int, noise: Noise) -> Tensor:
        """(n, z_size) in the precision of the module's weights."""
        kind, size = self.config.z_type, (self.config.z_size,)
        z = noise.uniform("z", n, size) if kind == "uniform_0_1" else noise.normal("z", n, size)
        if kind == "unit":
            z = z / z.norm(dim=1, keepdim=True)
        dtypes = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return z.to(next(dtypes, torch.float32))


MODEL = Model("Generator of a user's function", "as torch-fidelity measures; not trained here", Config, Generator)
