"""A pretrained diffusers `UNet2DModel` in a local folder: not trained here, drawn from by every sampler of diffusion.

The folder is what diffusers' `save_pretrained` writes of a DDPM or DDIM pipeline: unet/config.json with
unet/*.safetensors, and scheduler/scheduler_config.json, which says the chain (Ho et al. 2020, arXiv:2006.11239; Nichol
and Dhariwal 2021, arXiv:2102.09672) and what the network predicts. Nothing is downloaded, nothing is unpickled. How to
step, clip and space timesteps is the draw's to say, not the scheduler's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
        found = _fingerprint(_files(self.folder))
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
        self.unet = _Answer(_network(Path(config.folder) / "unet", shape))

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


# The folder


def _files(folder: str) -> dict[str, Path]:
    """Its files by their path inside it.

    Raises:
        UserError: for a folder that is none, lacks a file, or has its weights as pickles.
    """
    if not folder:
        raise UserError("diffusers_unet.folder: expected the folder of a diffusers pipeline, got none")
    root = Path(folder)
    wanted = {name: root / name for name in ("unet/config.json", "scheduler/scheduler_config.json")}
    for name, path in wanted.items():
        if not path.is_file():
            raise UserError(f"diffusers_unet.folder: expected {name} in {folder}, as save_pretrained writes it")
    weights = {f"unet/{path.name}": path for path in sorted((root / "unet").glob("*.safetensors"))}
    if not weights:
        pickled = [path.name for path in (root / "unet").iterdir() if path.suffix in (".bin", ".pt", ".ckpt")]
        got = f"got {', '.join(pickled)}, a pickle, which is never opened" if pickled else "got no weights"
        raise UserError(
            f"diffusers_unet.folder: expected unet/*.safetensors in {folder}, {got}; save the pipeline again by "
            "save_pretrained(folder, safe_serialization=True)"
        )
    return wanted | weights


def _fingerprint(files: dict[str, Path]) -> str:
    """SHA-256 over names and content: the model's content is its data."""
    total = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"diffusers_unet.folder: cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"diffusers_unet.folder: expected a table in {path}, got {type(content).__name__}")
    return content


# The chain


@functools.lru_cache(maxsize=8)
def _scheduler(folder: str, sha256: str) -> tuple[Process, Prediction]:
    """The chain and what the network predicts; one object for one content, so that step lists are made once.

    Raises:
        UserError: for a chain or a prediction that there is not here.
    """
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    values = _json(path)
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


# The network


def _network(folder: Path, shape: ImageShape) -> nn.Module:
    """The network of a folder, in float32 and evaluation mode.

    Raises:
        UserError: where diffusers is not installed, the folder holds another class, or its images are others.
    """
    values = _json(folder / "config.json")
    if values.get("_class_name") != "UNet2DModel":
        raise UserError(f"{folder}: expected a UNet2DModel, got {values.get('_class_name')!r}")
    if values.get("class_embed_type") is not None or values.get("num_class_embeds") is not None:
        raise UserError(f"{folder}: expected an unconditional model, got one with class embeddings")
    size = values.get("sample_size")
    height, width = size if isinstance(size, list) else (size or shape.height, size or shape.width)
    got = values.get("in_channels"), values.get("out_channels"), height, width
    if got != (shape.channels, shape.channels, shape.height, shape.width):
        raise UserError(
            f"{folder}: expected a network of {shape.channels} channels, {shape.height}x{shape.width} pixels, "
            f"as the data set has them; got {got[0]} in, {got[1]} out, {height}x{width}"
        )
    if importlib.util.find_spec("diffusers") is None:
        raise UserError(
            "diffusers_unet: needs diffusers, which is not installed: pip install 'trilemma-bench[diffusers]'"
        )
    from diffusers import UNet2DModel

    try:
        network, loaded = UNet2DModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: diffusers cannot load it: {' '.join(str(error).split())[:300]}") from None
    wrong = [*loaded["missing_keys"], *loaded["unexpected_keys"], *loaded["mismatched_keys"]]
    if wrong:
        raise UserError(f"{folder}: config and weights do not belong together: {', '.join(map(str, wrong[:3]))}, ...")
    made: nn.Module = network.float().eval()
    return made


MODEL = Model("diffusers UNet2DModel", "a local folder; not trained here", Config, DiffusersUNet)
