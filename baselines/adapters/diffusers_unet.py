"""A pretrained diffusers `UNet2DModel` in a local folder: not trained here, drawn from by every sampler of diffusion.

The folder is what diffusers' `save_pretrained` writes of a DDPM or DDIM pipeline: unet/config.json with
unet/*.safetensors, and scheduler/scheduler_config.json, which says the chain (Ho et al. 2020, arXiv:2006.11239; Nichol
and Dhariwal 2021, arXiv:2102.09672) and what the network predicts. Nothing is downloaded, nothing is unpickled. How to
step, clip and space timesteps is the draw's to say, not the scheduler's.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.adapters.diffusers_folder import files_of, fingerprint, network, read_json
from baselines.contract import ImageShape, Model, Pretrained
from baselines.diffusion.chain_model import no_network
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import Diffusion
from baselines.diffusion.prediction import Prediction, check_prediction
from baselines.diffusion.process import Process, with_zero_terminal
from baselines.errors import UserError

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_SCHEDULERS = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)  # those of diffusers whose chain is that of their betas, and whose networks are shown its timesteps
_CHAIN = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
_LARGEST_BETA = 0.999  # of squaredcos_cap_v2, as diffusers has it


@dataclass(frozen=True)
class Config:
    """folder: of the pipeline. sha256: of the files that are read; found out, and compared where it is given."""

    folder: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        found = fingerprint(files_of(self.folder, "diffusers_unet"))
        if self.sha256 not in ("", found):
            raise UserError(
                f"diffusers_unet.sha256: expected {self.sha256} of the files in {self.folder}, got {found}; "
                "they are others than they were"
            )
        object.__setattr__(self, "sha256", found)


class DiffusersUNet(Diffusion, Pretrained):
    """The network of a folder with the chain of its scheduler; the bound is that of variance beta."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        self.shape = shape
        self._times_per_step = 1.0  # diffusers counts 0 .. T - 1 for every T
        self.unet = _Answer(network(Path(config.folder) / "unet", shape, "diffusers_unet"))

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The scheduler's process, read as its prediction."""
        process, prediction = _scheduler(config.folder, config.sha256)
        return Denoiser(no_network, process, prediction)

    def reverse(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The predicted x_0 and beta."""
        return self.denoiser.x_0(x_t, t), torch.tensor(self.process.variance(t, "beta"), device=x_t.device)


class _Answer(nn.Module):
    """The network called with x_t (B, C, H, W) and times (1,) or (B,), answering with a tensor of x_t's shape."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.network(x_t, time, return_dict=False)[0]
        return out


# The chain


@functools.lru_cache(maxsize=8)
def _scheduler(folder: str, sha256: str) -> tuple[Process, Prediction]:
    """The chain and what the network predicts; one object for one content, so that step lists are made once.

    Raises:
        UserError: for a chain or a prediction that there is not here.
    """
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    values = read_json(path, "diffusers_unet")
    predicts = values.get("prediction_type", "epsilon")
    if not isinstance(predicts, str) or predicts not in _PREDICTIONS:
        raise UserError(f"{path}: prediction_type: expected {', '.join(_PREDICTIONS)}, got {predicts!r}")
    _check_kind(path, values)
    try:
        process = Process(betas_of(values))
        if values.get("rescale_betas_zero_snr"):
            process = with_zero_terminal(process)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: no chain follows from it: {error}") from None
    prediction = _PREDICTIONS[predicts]
    check_prediction(prediction, process)
    return process, prediction


def _check_kind(path: Path, values: dict[str, Any]) -> None:
    """Refuse a scheduler whose networks are shown other noise, other times, or answer in more than one thing."""
    kind = values.get("_class_name")
    if kind not in _SCHEDULERS:
        raise UserError(
            f"{path}: _class_name: expected a scheduler of a discrete chain of betas "
            f"({', '.join(name.removesuffix('Scheduler') for name in _SCHEDULERS)}), got {kind!r}"
        )
    if values.get("variance_type") in ("learned", "learned_range"):
        raise UserError(f"{path}: variance_type: expected a fixed one, got {values['variance_type']!r}")
    if values.get("use_flow_sigmas"):
        raise UserError(f"{path}: use_flow_sigmas: expected false, got {values['use_flow_sigmas']!r}")
    if values.get("timestep_type", "discrete") != "discrete":
        raise UserError(f"{path}: timestep_type: expected 'discrete', got {values['timestep_type']!r}")


def betas_of(values: dict[str, Any]) -> Tensor:
    """The betas of a scheduler's config, float64 (T,); as diffusers, but not rounded to float32.

    linear rises linearly; scaled_linear rises linearly in sqrt(beta); squaredcos_cap_v2 is the cosine schedule.

    Raises:
        UserError: for another schedule, or where something of it is not said.
    """
    if values.get("trained_betas") is not None:
        return torch.tensor(values["trained_betas"], dtype=torch.float64)
    absent = [name for name in _CHAIN if name not in values]
    if absent:
        raise UserError(f"expected {', '.join(_CHAIN)} (or trained_betas), got no {', '.join(absent)}")
    total, schedule = values["num_train_timesteps"], values["beta_schedule"]
    if type(total) is not int or total < 2:
        raise UserError(f"num_train_timesteps: expected a whole number of 2 or more, got {total!r}")
    for name in ("beta_start", "beta_end"):
        if type(values[name]) not in (int, float) or not 0 < values[name] < 1:
            raise UserError(f"{name}: expected a number above 0 and below 1, got {values[name]!r}")
    first, last = float(values["beta_start"]), float(values["beta_end"])
    if schedule == "linear":
        return torch.linspace(first, last, total, dtype=torch.float64)
    if schedule == "scaled_linear":
        return torch.linspace(math.sqrt(first), math.sqrt(last), total, dtype=torch.float64).square()
    if schedule == "squaredcos_cap_v2":
        place = torch.linspace(0, 1, total + 1, dtype=torch.float64)
        abar = torch.cos((place + 0.008) / 1.008 * (math.pi / 2)).square()
        return (1 - abar[1:] / abar[:-1]).clamp(max=_LARGEST_BETA)
    raise UserError(f"beta_schedule: expected {', '.join(_SCHEDULES)}, got {schedule!r}")


MODEL = Model("diffusers UNet2DModel", "a local folder; not trained here", Config, DiffusersUNet)
