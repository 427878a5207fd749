"""Any torch module with a method `sample(n)` that returns n images; it is made by a user's function.

Its randomness is its own, so torch's generators are seeded before each call, by the seed and the first image's number,
and put back after it: a run repeats itself, but image i depends on the batch size, and what a module draws by NumPy or
by a generator of its own is not seeded. `network` names the submodule whose calls are counted (NFE) and timed alone.

    trilemma run quick --model baselines.adapters.sampler --set baselines.adapters.sampler.factory=my_module.py:make \\
        --set baselines.adapters.sampler.pixels=signed

`my_module.py` holds `def make(): return MyModel()`; with `weights=my.safetensors` its state dict is loaded into that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.adapters.factory import checked_hash, fingerprint, keep_apart, make
from baselines.adapters.pixels import Pixels, to_images
from baselines.contract import Draw, GenerativeModel, Given, ImageShape, Model, Noise, Pretrained
from baselines.errors import DivergedError, UserError
from baselines.importing import where_raised
from baselines.noise import derive_seed, seed_dropout


@dataclass(frozen=True)
class Config:
    """sha256: of the module that the factory makes; found out, and compared where it is given."""

    factory: str = ""  # module:FUNCTION or file.py:FUNCTION
    weights: str = ""  # .safetensors, loaded into what the factory makes
    pixels: Pixels = "signed"
    network: str = ""  # dotted name of the submodule whose calls are counted; empty: none is
    sha256: str = ""

    def __post_init__(self) -> None:
        found = fingerprint(self.factory, self.weights, "sampler")
        object.__setattr__(self, "sha256", checked_hash(self.sha256, found, f"sampler {self.factory}"))


class Sampler(GenerativeModel, Pretrained):
    """Asks the module for each batch."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.module = make(config.factory, config.weights, "sampler")
        keep_apart(self)
        self._draw = getattr(self.module, "sample", None)
        if not callable(self._draw):
            raise UserError(
                f"sampler.factory: expected a module with a method sample(n), got {type(self.module).__name__} "
                "without one; a module from noise to images is baselines.adapters.generator's"
            )
        if config.network:
            if config.network not in dict(self.module.named_modules()):
                known = ", ".join(name for name, _ in self.module.named_children()) or "none"
                raise UserError(f"sampler.network: expected a submodule, got {config.network!r}; it has {known}")
            vars(self)["network"] = f"module.{config.network}"

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """What `module.sample(n)` returns, seeded by (noise.seed, noise.first)."""
        self.check_draw(self.config, draw)
        assert self._draw is not None
        device = torch.device(noise.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_dropout(derive_seed(noise.seed, "sample", noise.first), device)
            try:
                answer = self._draw(n)
            except (UserError, DivergedError):
                raise
            except Exception as error:
                raise UserError(
                    f"sampler: sample({n}) of {self.config.factory} fails: {where_raised(error)}"
                ) from error
        return to_images(answer, n, self.shape, self.config.pixels, "sampler")


MODEL = Model("A user's module with sample(n)", "a user's function; not trained here", Config, Sampler)
