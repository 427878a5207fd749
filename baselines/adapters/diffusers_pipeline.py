"""A local diffusers pipeline (DDPMPipeline, DDIMPipeline), drawn from by its own scheduler's steps; not trained here.

The folder is what `save_pretrained(folder, safe_serialization=True)` writes. What diffusers does is measured as it is,
with the steps and the spacing that its scheduler takes (Ho et al. 2020, arXiv:2006.11239; Song et al. 2020,
arXiv:2010.02502); the same weights under this suite's samplers are `baselines.adapters.diffusers_unet`. Each image has
a generator of its own, so that image i is the same in any batch. Nothing is downloaded or unpickled, no code is run
from the folder.

    trilemma run quick --model baselines.adapters.diffusers_pipeline \\
        --set baselines.adapters.diffusers_pipeline.folder=DIR --set baselines.adapters.diffusers_pipeline.steps=50

In a matrix, `draws = [{ steps = [10, 50], eta = [0.0] }]` asks for other steps; clipping is the scheduler's, and a draw
must say the same as it does (`clip = false` where scheduler_config.json says `"clip_sample": false`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.adapters.diffusers_folder import check_installed, files_of, fingerprint, network, read_json
from baselines.adapters.factory import checked_hash
from baselines.adapters.pixels import to_images
from baselines.contract import Draw, GenerativeModel, Given, ImageShape, Model, Noise, Pretrained
from baselines.errors import UserError
from baselines.noise import derive_seed

_WHO = "diffusers_pipeline"
_INDEX = "model_index.json"
_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")  # whose steps take a generator an image
_STEPS = {"DDPMPipeline": 1000, "DDIMPipeline": 50}  # what the pipelines take where none are asked for


@dataclass(frozen=True)
class Config:
    """folder: of the pipeline. sha256: of the files that are read; found out, and compared where it is given."""

    folder: str = ""
    steps: int | None = None  # where the draw says none; None: the pipeline's own number, at most T
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UserError(f"{_WHO}.steps: expected 1 or more, got {self.steps}")
        found = fingerprint(files_of(self.folder, _WHO, (_INDEX,)))
        object.__setattr__(self, "sha256", checked_hash(self.sha256, found, f"{_WHO} {self.folder}"))


class DiffusersPipeline(GenerativeModel, Pretrained):
    """The pipeline of a folder with its own scheduler."""

    network = "unet"
    draw_keys: ClassVar[tuple[str, ...]] = ("steps", "eta", "clip")

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        kind, scheduler, values = _kinds(config.folder)
        if not read_json(Path(config.folder) / "unet" / "config.json", _WHO).get("sample_size"):
            raise UserError(f"{_WHO}: expected sample_size in unet/config.json of {config.folder}, got none")
        self.unet = network(Path(config.folder) / "unet", shape, _WHO)
        import diffusers

        self.kind = kind
        try:
            made = getattr(diffusers, scheduler).from_config(values)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise UserError(f"{_WHO}: diffusers cannot make the scheduler of {config.folder}: {error}") from None
        self.pipeline: Any = getattr(diffusers, kind)(unet=self.unet, scheduler=made)
        self.pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def check_draw(cls, config: Config, draw: Draw) -> None:
        """Refuse what the pipeline of this folder does not take."""
        super().check_draw(config, draw)
        kind, _, values = _kinds(config.folder)
        total = values.get("num_train_timesteps", 1000)
        steps = _steps(kind, config, draw, total)
        if not 1 <= steps <= total:
            raise UserError(f"expected steps from 1 to the chain's {total}, got {steps}")
        if kind == "DDPMPipeline" and draw.eta != 0:
            raise UserError(f"DDPMPipeline takes no eta, got {draw.eta}; leave it out")
        if not 0 <= draw.eta <= 1:
            raise UserError(f"expected eta from 0 to 1, got {draw.eta}")
        clips = values.get("clip_sample", True)
        if draw.clip != clips:
            raise UserError(
                f"its scheduler says clip_sample {str(clips).lower()}, and the draw clip {str(draw.clip).lower()}; "
                f"write clip = {str(clips).lower()} into the draw"
            )

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """What the pipeline draws, its real numbers to the nearest level."""
        self.check_draw(self.config, draw)
        seeds = (derive_seed(noise.seed, "pipeline", noise.first + i) for i in range(n))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        more = {"eta": float(draw.eta)} if self.kind == "DDIMPipeline" else {}
        steps = _steps(self.kind, self.config, draw, self.pipeline.scheduler.config.num_train_timesteps)
        (images,) = self.pipeline(
            batch_size=n,
            generator=generators,
            num_inference_steps=steps,
            output_type="pt",
            return_dict=False,
            **more,
        )
        return to_images(images, n, self.shape, "unit", _WHO)


def _steps(kind: str, config: Config, draw: Draw, total: int) -> int:
    return draw.steps or config.steps or min(_STEPS[kind], total)


def _kinds(folder: str) -> tuple[str, str, dict[str, Any]]:
    """The classes of pipeline and scheduler, and the scheduler's config.

    Raises:
        UserError: for other classes, or without diffusers.
    """
    kind = read_json(Path(folder) / _INDEX, _WHO).get("_class_name")
    if kind not in _PIPELINES:
        raise UserError(f"{_WHO}: expected a folder of {' or '.join(_PIPELINES)}, got {kind!r} in {folder}/{_INDEX}")
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    values = read_json(path, _WHO)
    scheduler = values.get("_class_name")
    if scheduler not in _SCHEDULERS:
        raise UserError(
            f"{path}: _class_name: expected {' or '.join(_SCHEDULERS)}, got {scheduler!r}; "
            "baselines.adapters.diffusers_unet takes more of them"
        )
    if type(values.get("num_train_timesteps", 1000)) is not int:
        raise UserError(f"{path}: num_train_timesteps: expected a whole number, got {values['num_train_timesteps']!r}")
    check_installed(_WHO)
    return kind, scheduler, values


MODEL = Model("diffusers pipeline", "a local folder; not trained here", Config, DiffusersPipeline)
