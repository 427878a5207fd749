"""Sampling by DDIM and DDPM beside the pipelines of diffusers, on the same weights from the same first noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.contest import Agreement, Contender, Contest, Entry

GROUP = "Diffusion"
T = 1000  # timesteps of the chain
PIXEL = "largest difference of a pixel, in levels of 255"
OTHER_STEPS = (
    "for S that does not divide T = 1000 diffusers goes in strides of floor(T / S) from t = 0, so that it begins at a "
    "lower t than floor(i T / S): other timesteps, and the first of them does not belong to pure noise"
)
CLIPPED = "use_clipped_model_output=True, as the paper's eps belongs to the clamped x_0"


def _name(sampler: str, steps: int, network: str, batch: int) -> str:
    images = "one 28x28 image" if batch == 1 else f"{batch} 28x28 images"
    return f"{sampler.upper()}, {steps} steps, {network}, {images}"


def _apart(ours: Any, theirs: Any) -> float:
    """Largest difference of uint8 images and images in [0, 1], in levels."""
    return float((ours.double() - (theirs.double() * 255).round()).abs().max())


def random_pipeline(folder: Path) -> Path:
    """A UNet2DModel of 0.65 million random weights with a linear chain, as `save_pretrained` writes it."""
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
        )
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(T)).save_pretrained(folder)
    return folder


def adapted(folder: Path) -> Any:
    """The pipeline's network under our samplers, by the adapter."""
    from baselines import registry
    from baselines.types import ImageShape

    entry = registry.load("baselines.adapters.diffusers_unet").model
    return entry.build(ImageShape(1, 28, 28, 256), entry.config(str(folder))).eval()


def generators(batch: int) -> list[Any]:
    """One for each image, whose first numbers are the x_T of `Noise(0)`."""
    import torch

    from baselines.noise import derive_seed

    return [torch.Generator().manual_seed(derive_seed(0, "x_T", i)) for i in range(batch)]


def as_a_pipeline_draws(batch: int) -> Any:
    """Noise(0) whose numbers of an image all come from one generator, in the order that a pipeline asks for them."""
    import torch

    from baselines.contract import Noise

    made = generators(batch)

    class InOneRow(Noise):
        def normal(self, purpose: str, n: int, shape: tuple[int, ...]) -> torch.Tensor:
            assert n == batch
            return torch.stack([torch.randn(shape, generator=generator) for generator in made])

        def normals(self, purpose: str, n: int, shape: tuple[int, ...], steps: int) -> Iterator[torch.Tensor]:
            while True:
                yield self.normal(purpose, n, shape)

    return InOneRow(0)


def beside_pipelines(folder: Path, sampler: str, steps: int, batch: int) -> Contest:
    """Our sampler and the pipeline of diffusers, the weights in their layout and in that of the channels last."""
    import copy

    import diffusers
    import torch

    from baselines.contract import Noise
    from baselines.types import Draw
    from bench.measure.memory import keep_freed_memory

    keep_freed_memory()
    ours = adapted(random_pipeline(folder))
    kind, scheduler, how = {
        "ddim": (diffusers.DDIMPipeline, diffusers.DDIMScheduler(T), {"use_clipped_model_output": True}),
        "ddpm": (diffusers.DDPMPipeline, diffusers.DDPMScheduler(T), {}),
    }[sampler]

    def pipeline(layout: torch.memory_format) -> Any:
        network = copy.deepcopy(ours.unet.network).to(memory_format=layout)
        made = kind(network, scheduler)
        made.set_progress_bar_config(disable=True)
        return made

    def drawn(made: Any) -> Any:
        given = generators(batch)
        return made(batch, generator=given, num_inference_steps=steps, output_type="pt", **how).images

    def agree(_: Any, theirs: Any) -> Agreement:
        # in one order of noise; DDIM asks for none after x_T, so that this is the image that was timed
        mine = ours.sample(batch, Draw(sampler, steps), as_a_pipeline_draws(batch))
        return Agreement(PIXEL, _apart(mine, theirs), 1, OTHER_STEPS if T % steps else "")

    note = f"a generator for each image{'; ' + CLIPPED if sampler == 'ddim' else ''}"
    layouts = {"": torch.contiguous_format, ", channels last": torch.channels_last}
    made = {f"diffusers {kind.__name__}{name}": pipeline(layout) for name, layout in layouts.items()}
    peers = tuple(Contender(name, partial(drawn, each), "diffusers", note=note) for name, each in made.items())
    return Contest(
        _name(sampler, steps, "UNet2DModel of 0.65M weights", batch),
        GROUP,
        Contender("trilemma", lambda: ours.sample(batch, Draw(sampler, steps), Noise(0)), "trilemma-bench"),
        peers,
        dict.fromkeys(made, agree),
    )


def own_network() -> Any:
    """Our DDPM with a U-Net of 0.7 million random weights and the linear chain."""
    import torch

    from baselines.diffusion.ddpm import Config, Ddpm
    from baselines.types import ImageShape

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Ddpm(ImageShape(1, 28, 28, 256), Config(schedule="linear", widths=(40, 72), blocks=2)).eval()
        for parameter in model.parameters():
            if not parameter.any():  # the zero-initialised layers too
                torch.nn.init.normal_(parameter, std=0.02)
    return model


def beside_schedulers(folder: Path, steps: int, batch: int) -> Contest:
    """Our own U-Net in the loop that the documentation of diffusers shows, by the steps of its DDIMScheduler."""
    import copy

    import diffusers
    import torch

    from baselines.contract import Noise
    from baselines.types import Draw
    from bench.measure.memory import keep_freed_memory

    keep_freed_memory()
    ours = own_network()
    network = copy.deepcopy(ours.unet).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def theirs() -> Any:
        scheduler = diffusers.DDIMScheduler(T)
        scheduler.set_timesteps(steps)
        x = torch.cat([torch.randn(1, 1, 28, 28, generator=generator) for generator in generators(batch)])
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t[None].float()), t, x, use_clipped_model_output=True).prev_sample
        return (x / 2 + 0.5).clamp(0, 1)

    name = "diffusers DDIMScheduler"
    return Contest(
        _name("ddim", steps, "our U-Net of 0.7M weights", batch),
        GROUP,
        Contender("trilemma", lambda: ours.sample(batch, Draw("ddim", steps), Noise(0)), "trilemma-bench"),
        (Contender(name, theirs, "diffusers", note=f"the documented loop, channels last; {CLIPPED}"),),
        {name: lambda mine, other: Agreement(PIXEL, _apart(mine, other), 1, OTHER_STEPS if T % steps else "")},
    )


def _entry(name: str, make: Callable[[Path], Contest]) -> Entry:
    return Entry(name, GROUP, make, ("diffusers",))


def _pipelines(sampler: str, steps: int, batch: int) -> Entry:
    make = partial(beside_pipelines, sampler=sampler, steps=steps, batch=batch)
    return _entry(_name(sampler, steps, "UNet2DModel of 0.65M weights", batch), make)


def _schedulers(steps: int, batch: int) -> Entry:
    make = partial(beside_schedulers, steps=steps, batch=batch)
    return _entry(_name("ddim", steps, "our U-Net of 0.7M weights", batch), make)


ENTRIES: tuple[Entry, ...] = (
    _pipelines("ddim", 50, 1),
    _pipelines("ddim", 30, 1),
    _pipelines("ddim", 10, 16),
    _pipelines("ddpm", 50, 1),
    _pipelines("ddpm", 10, 16),
    _schedulers(50, 1),
    _schedulers(10, 16),
)
