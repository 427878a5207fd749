"""A diffusers network as a model of the suite: beside diffusers' own schedulers on the same weights and noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import bench
from baselines import registry
from baselines.adapters import diffusers_unet
from baselines.config import build_config, config_values
from baselines.contract import Draw, Fits, Noise, Trains
from baselines.diffusion.sampling import SAMPLERS
from baselines.errors import UserError
from baselines.types import ImageShape
from bench import store
from bench.measure.workload import capture_calls

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'trilemma-bench[diffusers]'")

NAME = "baselines.adapters.diffusers_unet"
SHAPE = ImageShape(1, 8, 8, 17)
CHAINS: dict[str, dict[str, Any]] = {
    "linear eps": {},
    "scaled x0": {"beta_schedule": "scaled_linear", "prediction_type": "sample"},
    "cosine v": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    "zero-terminal v": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    "trained betas": {"trained_betas": [0.01 + 0.002 * i for i in range(100)]},
}


def save_pipeline(folder: Path, **chain: Any) -> Path:
    """A small network with random weights and the scheduler of 100 steps."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(100, **chain)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def open_model(folder: Path, shape: ImageShape = SHAPE) -> Any:
    model = registry.load(NAME).model
    return model.build(shape, build_config(model.config, {"folder": str(folder)}, NAME)).eval()


def chain_of(folder: Path) -> Any:
    """Its process, without the network."""
    return diffusers_unet.DiffusersUNet.chain(diffusers_unet.Config(str(folder))).process


def normals(seed: int, dtype: torch.dtype) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(3, *SHAPE.chw, generator=generator, dtype=dtype)


@torch.no_grad()
def by_diffusers(ours: Any, scheduler: Any, x: Tensor, steps: int, **how: Any) -> Tensor:
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        out = ours.unet.network(x, t).sample
        x = scheduler.step(out, t, x, **how).prev_sample
    return x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("steps", [1, 10, pytest.param(50, marks=pytest.mark.slow)])
def test_samplers_agree_with_diffusers_own_schedulers(
    steps: int, chain: str, clip: bool, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    """Relative to the largest pixel; their schedulers are given abar in float64, since they round 1 - beta."""
    ours = open_model(save_pipeline(tmp_path, **CHAINS[chain])).to(dtype)
    given = {**CHAINS[chain], "clip_sample": clip}
    ddim, ddpm = diffusers.DDIMScheduler(100, **given), diffusers.DDPMScheduler(100, **given)
    ddim.alphas_cumprod = ddpm.alphas_cumprod = ours.process.abar
    x_T = next(normals(1, dtype))
    for draw, scheduler, how in (
        (Draw("ddim", steps, 0.0, clip=clip), ddim, {"eta": 0.0, "use_clipped_model_output": True}),
        (Draw("ddim", steps, 1.0, clip=clip), ddim, {"eta": 1.0, "use_clipped_model_output": True}),
        (Draw("ddpm", steps, clip=clip), ddpm, {}),
    ):
        with torch.no_grad():
            mine = SAMPLERS[draw.sampler].run(x_T, ours.denoiser, draw, normals(2, dtype))
        theirs = by_diffusers(ours, scheduler, x_T, steps, generator=torch.Generator().manual_seed(2), **how)
        assert float(theirs.std()) > 0.05, "the premise: there is something to agree on"
        largest = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero_terminal", [False, True])
def test_the_chain_is_the_schedulers(schedule: str, zero_terminal: bool, tmp_path: Path) -> None:
    chain = {"beta_schedule": schedule, "rescale_betas_zero_snr": zero_terminal, "prediction_type": "v_prediction"}
    ours = open_model(save_pipeline(tmp_path, **chain))
    theirs = diffusers.DDIMScheduler(100, **chain).alphas_cumprod
    torch.testing.assert_close(ours.process.abar.float(), theirs, rtol=1e-4, atol=1e-6)


def test_betas_that_a_folder_lists_are_its_chain(tmp_path: Path) -> None:
    ours = open_model(save_pipeline(tmp_path, **CHAINS["trained betas"]))
    assert ours.process.betas.tolist() == pytest.approx(CHAINS["trained betas"]["trained_betas"], rel=1e-12)


def test_it_is_a_model_of_the_suite_that_is_not_trained(folder: Path) -> None:
    ours = open_model(folder)
    assert isinstance(ours, Fits)
    assert not isinstance(ours, Trains)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    ours.fit(torch.zeros(4, *SHAPE.chw, dtype=torch.uint8), Noise(0))
    assert before
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[f"unet.network.{name}"], tensor) for name, tensor in weights.items())
    whole = ours.sample(3, Draw("ddim", 5), Noise(4))
    with capture_calls(ours) as calls:
        parts = torch.cat([ours.sample(1, Draw("ddim", 5), Noise(4)), ours.sample(2, Draw("ddim", 5), Noise(4, 1))])
    assert calls.count == 10
    assert int((whole.int() - parts.int()).abs().max()) <= 1
    nats = ours.nats(whole, "vlb", Noise(0))
    assert bool(torch.isfinite(nats.total).all())


def test_the_bound_has_the_variance_of_the_forward_steps(folder: Path) -> None:
    ours, x = open_model(folder), next(normals(0, torch.float32))
    with torch.no_grad():
        variances = [float(ours.reverse(x, t)[1]) for t in range(100)]
    assert variances == pytest.approx(torch.linspace(1e-4, 0.02, 100).tolist(), rel=1e-5)


def test_an_old_config_that_does_not_name_its_prediction_predicts_the_noise(copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    values = json.loads(path.read_text())
    assert values.pop("prediction_type") == "epsilon", "the premise: the folder says the default"
    path.write_text(json.dumps(values))
    assert open_model(copy).denoiser.prediction == "eps"


def test_the_weights_are_part_of_the_key(copy: Path, folder: Path) -> None:
    config = registry.load(NAME).model.config
    first = config_values(config(str(folder)))
    assert first["sha256"] == config(str(copy)).sha256, "another place, the same content"
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"] += 1
    save_file(weights, file)
    assert config(str(copy)).sha256 != first["sha256"]
    with pytest.raises(UserError, match="they are others than they were"):
        config(str(copy), first["sha256"])


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, r"prediction_type: expected .* got 'flow'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "exp"}, r"beta_schedule: expected .* got 'exp'"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "variance_type: expected a fixed one"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": ["epsilon"]},
            r"prediction_type: expected .* got \['eps",
        ),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, r"beta_end: expected .* above 0 and below 1, got 2\.0"),
        ("scheduler/scheduler_config.json", {"beta_start": "0.1"}, r"beta_start: expected a number .* got '0\.1'"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 2.0]}, "no chain follows"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": -3}, r"num_train_timesteps: expected .* got -3"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10.7}, r"expected a whole number .* got 10\.7"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": True}, r"expected a whole number .* got True"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "use_flow_sigmas: expected false, got True"),
        ("scheduler/scheduler_config.json", {"timestep_type": "continuous"}, "expected 'discrete', got 'continuous'"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "takes 'x0' or 'v'"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "expected a UNet2DModel"),
        ("unet/config.json", {"num_class_embeds": 10}, "expected an unconditional model"),
        ("unet/config.json", {"layers_per_block": 2}, "cannot load it: .*size mismatch"),
        ("unet/config.json", {"add_attention": False}, "config and weights do not belong together: mid_block.att"),
        ("unet/config.json", {"sample_size": 16}, "expected a network of 1 channels, 8x8 pixels.* got .*16x16"),
    ],
)
def test_what_is_not_supported_is_named(file: str, values: dict[str, Any], message: str, copy: Path) -> None:
    path = copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(UserError, match=message):
        chain_of(copy) if file.startswith("scheduler") else open_model(copy)


@pytest.mark.parametrize(
    "name",
    [
        "ScoreSdeVeScheduler",
        "EDMEulerScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "CMStochasticIterativeScheduler",
        "IPNDMScheduler",
    ],
)
def test_a_scheduler_of_another_process_is_refused_by_its_class(name: str, copy: Path) -> None:
    """They say no betas, for which those of a linear chain must not be taken."""
    getattr(diffusers, name)().save_config(copy / "scheduler")
    with pytest.raises(UserError, match=rf"_class_name: expected .*DDPM, .* got '{name}'"):
        chain_of(copy)


def test_schedulers_of_one_chain_are_read_alike(copy: Path) -> None:
    betas, path = chain_of(copy).betas, copy / "scheduler" / "scheduler_config.json"
    for name in diffusers_unet._SCHEDULERS:
        path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": name}))
        assert torch.equal(chain_of(copy).betas, betas)
        theirs = getattr(diffusers, name)
        if not hasattr(theirs, "_backends"):  # else a stand-in, for want of a library that it needs
            said = set(signature(theirs).parameters)
            assert {"num_train_timesteps", "beta_schedule", "beta_start", "beta_end"} <= said


@pytest.mark.parametrize("absent", ["num_train_timesteps", "beta_schedule", "beta_start", "beta_end"])
def test_a_chain_that_is_not_said_is_not_guessed(absent: str, copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    values = json.loads(path.read_text())
    del values[absent]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"got no {absent}"):
        chain_of(copy)
    path.write_text(json.dumps({**values, "trained_betas": [0.01, 0.02, 0.5]}))
    assert chain_of(copy).timesteps == 3


def test_weights_that_lack_a_tensor_are_refused(copy: Path) -> None:
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.bias"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"config and weights do not belong together: conv_in\.bias"):
        open_model(copy)


def test_a_pickle_is_refused_and_nothing_is_fetched(copy: Path, tmp_path: Path) -> None:
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"got diffusion_pytorch_model\.bin, a pickle, which is never opened"):
        open_model(copy)
    for given in ("", "google/ddpm-cifar10-32", str(tmp_path / "none")):
        with pytest.raises(UserError, match=r"diffusers_unet\.folder: expected"):
            registry.load(NAME).model.config(given)


def test_a_matrix_measures_it_like_any_other(folder: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "pretrained.toml"
    matrix.write_text(f"""
datasets = ["digits"]
[measure]
samples = 40
batch = 20
latency_s = 0.02
likelihood_images = 2
[[models]]
model = "{NAME}"
config = {{ folder = "{folder}" }}
draws = [{{ sampler = "ddim", steps = [3] }}]
""")
    frame = bench.run(str(matrix), results=tmp_path / "results", jobs=1)
    assert not frame.attrs["failed"]
    mine = frame[frame["model"] == NAME]
    assert mine.loc[mine["metric"] == "nfe", "value"].tolist() == [3]
    assert "images_per_s" in set(mine["metric"])
    assert "training_s" not in set(mine["metric"])
    records = store.load(tmp_path / "results").records
    trained = next(r for r in records if r.cell.model == NAME and r.cell.draw is None)
    assert trained.skipped["training_s"] == "pretrained: not trained here"
