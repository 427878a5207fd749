"""A normalizing flow of zuko over the pixels, not trained here: drawn from, and asked for its density.

It is made by a user's function, or by `flow`, the name of a class of `zuko.flows`, with `transforms` and
`hidden_features` and the weights of a safetensors file. `space` says what it was trained on, with y = (x + u) / levels
of a uniform u in [0, 1): y itself (unit), 2 y - 1 (signed), or logit(alpha + (1 - 2 alpha) y) (Dinh et al. 2017,
arXiv:1605.08803, sec. 4.1). Its log-density is brought to y by the Jacobian of that map. Image i has the same draw of
the base in any batch.

    trilemma run quick --model baselines.adapters.zuko_flow --set baselines.adapters.zuko_flow.flow=MAF \\
        --set baselines.adapters.zuko_flow.weights=maf.safetensors --set baselines.adapters.zuko_flow.space=logit

`factory=my_module.py:make` in place of `flow` takes a function that returns a `zuko.flows.Flow`. Needs the
extra `peers`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from baselines.adapters.factory import checked_hash, fingerprint, keep_apart, load_weights, make, weights_file
from baselines.config import nearest
from baselines.contract import Draw, GenerativeModel, Given, HasDensity, ImageShape, Model, Noise, Pretrained
from baselines.data.likelihood import logit, quantise, unlogit
from baselines.errors import DivergedError, UserError
from baselines.noise import derive_seed, seed_dropout


@dataclass(frozen=True)
class Config:
    """sha256: of weights and source; found out, and compared where it is given."""

    factory: str = ""  # module:FUNCTION or file.py:FUNCTION; instead of `flow`
    flow: str = ""  # MAF, NSF, ...: a class of zuko.flows
    transforms: int = 3
    hidden_features: tuple[int, ...] = (64, 64)
    weights: str = ""  # .safetensors
    space: Literal["unit", "signed", "logit"] = "unit"
    alpha: float = 1e-6  # of the logit
    sha256: str = ""

    def __post_init__(self) -> None:
        if bool(self.factory) == bool(self.flow):
            raise UserError(
                "zuko_flow: expected either factory (a function that returns the flow) or flow (a class of "
                f"zuko.flows), got {'both' if self.flow else 'neither'}"
            )
        if not 0 < self.alpha < 0.5:
            raise UserError(f"zuko_flow.alpha: expected a number above 0 and below 0.5, got {self.alpha}")
        check_installed()
        if self.factory:
            found = fingerprint(self.factory, self.weights, "zuko_flow")
        elif self.weights:
            with weights_file(self.weights, "zuko_flow").open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            raise UserError("zuko_flow.weights: expected a .safetensors file of the flow's state dict, got none")
        object.__setattr__(self, "sha256", checked_hash(self.sha256, found, f"zuko_flow {self.factory or self.flow}"))


class ZukoFlow(GenerativeModel, Pretrained, HasDensity):
    """A flow with the map from its space to pixels."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.flow = _named(shape, config) if config.flow else make(config.factory, config.weights, "zuko_flow")
        keep_apart(self)
        from zuko.flows import Flow

        if not isinstance(self.flow, Flow):
            raise UserError(f"zuko_flow.factory: expected a zuko.flows.Flow, got {type(self.flow).__name__}")
        features = self._distribution().event_shape
        if tuple(features) != (shape.dims,):
            raise UserError(
                f"zuko_flow: expected a flow over {shape.dims} features, {shape.channels}x{shape.height}x{shape.width} "
                f"pixels as the data set has them, got {tuple(features)}"
            )

    def _distribution(self) -> Any:
        try:
            return self.flow()
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(f"zuko_flow: expected a flow without a context, got: {error}") from None

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Draws of the base, each of its own image, through the inverse, to the levels whose bins hold them."""
        self.check_draw(self.config, draw)
        found = self._distribution()
        device = torch.device(noise.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            z = []
            for i in range(noise.first, noise.first + n):
                seed_dropout(derive_seed(noise.seed, "base", i), device)
                z.append(found.base.sample())
        y = self._from_space(found.transform.inv(torch.stack(z)))
        if not bool(torch.isfinite(y).all()):
            raise DivergedError("zuko_flow: NaN or infinity among the pixels that it drew")
        return quantise(y, self.shape.levels).view(n, *self.shape.chw)

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y) in nats (B,), by the flow's density and the Jacobian of its space."""
        flat = y.flatten(1).to(next((p.dtype for p in self.flow.parameters()), y.dtype))
        if self.config.space == "logit":
            z, log_det = logit(flat, self.config.alpha)
        elif self.config.space == "signed":
            z, log_det = 2 * flat - 1, flat.new_full((len(flat),), self.shape.dims * math.log(2))
        else:
            z, log_det = flat, flat.new_zeros(len(flat))
        found: Tensor = self._distribution().log_prob(z)
        return found + log_det

    def _from_space(self, z: Tensor) -> Tensor:
        if self.config.space == "logit":
            return unlogit(z, self.config.alpha)
        return (z + 1) / 2 if self.config.space == "signed" else z


def check_installed() -> None:
    """Refuse to go on without zuko.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec("zuko") is None:
        raise UserError("zuko_flow: needs zuko, which is not installed: pip install 'trilemma-bench[peers]'")


def _named(shape: ImageShape, config: Config) -> nn.Module:
    """A class of `zuko.flows` over all pixels, with its weights."""
    import zuko

    known = [name for name in dir(zuko.flows) if name.isupper()]
    if config.flow not in known:
        raise UserError(f"zuko_flow.flow: no flow {config.flow!r} in zuko.flows{nearest(config.flow, known)}")
    try:
        flow: nn.Module = getattr(zuko.flows, config.flow)(
            shape.dims, transforms=config.transforms, hidden_features=config.hidden_features
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"zuko_flow.flow: {config.flow} takes no transforms and hidden_features ({error}); name a function that "
            "makes it by factory"
        ) from None
    load_weights(flow, config.weights, "zuko_flow")
    return flow.eval().requires_grad_(False)


MODEL = Model("zuko flow", "a user's weights; not trained here", Config, ZukoFlow)
