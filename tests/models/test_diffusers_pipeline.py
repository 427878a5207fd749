"""A diffusers pipeline as a model of the suite: its own images, and what it cannot be asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from baselines import registry, trainer
from baselines.adapters import diffusers_pipeline
from baselines.config import build_config
from baselines.contract import Draw, Noise, Pretrained
from baselines.errors import UserError
from baselines.noise import derive_seed
from baselines.types import ImageShape
from bench.measure.workload import capture_calls

diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'trilemma-bench[diffusers]'")

NAME = "baselines.adapters.diffusers_pipeline"
SHAPE = ImageShape(1, 8, 8, 17)


def save_pipeline(folder: Path, kind: str = "DDIM", **chain: Any) -> Path:
    """A small network with random weights, by diffusers' own saving."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    scheduler = getattr(diffusers, f"{kind}Scheduler")(100, **chain)
    getattr(diffusers, f"{kind}Pipeline")(network, scheduler).save_pretrained(folder)
    return folder


def open_model(folder: Path, shape: ImageShape = SHAPE, **values: Any) -> Any:
    model = registry.load(NAME).model
    return trainer.build(model, shape, build_config(model.config, {"folder": str(folder), **values}, NAME), 0).eval()


@pytest.mark.parametrize(("kind", "how"), [("DDIM", {"eta": 0.0}), ("DDIM", {"eta": 0.7}), ("DDPM", {})])
def test_images_are_the_pipelines_own_and_hang_on_no_batch(kind: str, how: dict[str, Any], tmp_path: Path) -> None:
    ours = open_model(save_pipeline(tmp_path / "p", kind))
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "p", local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(derive_seed(2, "pipeline", i)) for i in range(4)]
    expected = theirs(4, generator=generators, num_inference_steps=10, output_type="np", **how).images
    with torch.no_grad(), capture_calls(ours) as calls:
        whole = ours.sample(4, Draw(steps=10, **how), Noise(2))
        rest = ours.sample(3, Draw(steps=10, **how), Noise(2, 1))
    assert isinstance(ours, Pretrained)
    assert calls.count == 20
    assert whole.float().std() > 1, "the premise: there is something to see"
    assert torch.equal(whole[:, 0], torch.from_numpy((expected[..., 0] * 16).round()).to(torch.uint8))
    assert int((whole[1:].int() - rest.int()).abs().max()) <= 1


def test_steps_are_the_draws_or_the_configs_or_the_pipelines_own_within_the_chain(tmp_path: Path) -> None:
    for kind, own in (("DDIM", 50), ("DDPM", 100)):
        folder = save_pipeline(tmp_path / kind, kind)
        for values, draw, expected in (({}, Draw(), own), ({"steps": 7}, Draw(), 7), ({"steps": 7}, Draw(steps=3), 3)):
            ours = open_model(folder, **values)
            with torch.no_grad(), capture_calls(ours) as calls:
                ours.sample(1, draw, Noise(0))
            assert calls.count == expected


def test_what_the_pipeline_does_not_take_is_refused_before_it_is_built(tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "p", "DDPM")
    config = diffusers_pipeline.Config(str(folder))
    check = diffusers_pipeline.DiffusersPipeline.check_draw
    for draw, message in (
        (Draw(steps=101), "expected steps from 1 to the chain's 100, got 101"),
        (Draw(eta=0.5), "DDPMPipeline takes no eta"),
        (Draw(clip=False), "clip_sample true, and the draw clip false; write clip = true"),
        (Draw("ddim"), "no sampler 'ddim'"),
        (Draw(steps=5, spacing="trailing"), "takes no spacing"),
    ):
        with pytest.raises(UserError, match=message):
            check(config, draw)
    with pytest.raises(UserError, match=r"steps: expected 1 or more, got 0"):
        open_model(folder, steps=0)
    bare = diffusers_pipeline.Config(str(save_pipeline(tmp_path / "q", "DDIM", clip_sample=False)))
    check(bare, Draw(clip=False))
    with pytest.raises(UserError, match="clip_sample false, and the draw clip true; write clip = false"):
        check(bare, Draw())


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "StableDiffusionPipeline"},
            r"expected a folder of DDPMPipeline or .* got",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler"}, "expected DDPMScheduler or DDIMSched"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "exp"}, "cannot make the scheduler .* exp"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "9"}, "expected a whole number, got '9'"),
        ("unet/config.json", {"sample_size": None}, "expected sample_size in unet/config"),
        ("unet/config.json", {"sample_size": 16}, "expected a network of 1 channels, 8x8 pixels"),
        ("unet/config.json", {"_class_name": "mine.Net"}, "expected a UNet2DModel, got 'mine.Net'"),
    ],
)
def test_a_folder_of_something_else_is_told(file: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = save_pipeline(tmp_path / "p") / file
    before = diffusers_pipeline.Config(str(tmp_path / "p")).sha256
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    assert diffusers_pipeline.Config(str(tmp_path / "p")).sha256 != before, "the content is part of the key"
    with pytest.raises(UserError, match=message):
        open_model(tmp_path / "p")


def test_missing_files_pickles_and_a_missing_library_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_pipeline(tmp_path / "p")
    (folder / "model_index.json").rename(tmp_path / "index")
    with pytest.raises(UserError, match=r"diffusers_pipeline\.folder: expected model_index\.json in"):
        open_model(folder)
    (tmp_path / "index").rename(folder / "model_index.json")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"diffusers_pipeline: needs diffusers, .* pip install 'trilemma-bench\[diff"):
        open_model(folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"diffusers_pipeline\.folder: expected unet/\*\.safetensors .* never opened"):
        open_model(folder)


def test_a_matrix_measures_it_like_any_other(tmp_path: Path) -> None:
    matrix = tmp_path / "pipeline.toml"
    matrix.write_text(f"""
datasets = ["digits"]
[measure]
samples = 24
batch = 12
latency_s = 0.02
[[models]]
model = "{NAME}"
config = {{ folder = "{save_pipeline(tmp_path / "p")}", steps = 4 }}
draws = [{{ }}, {{ steps = [3] }}]
""")
    frame = bench.run(str(matrix), results=tmp_path / "results", jobs=1)
    assert not frame.attrs["failed"]
    mine = frame[frame["model"] == NAME]
    assert sorted(mine.loc[mine["metric"] == "nfe", "value"]) == [3, 4]
    assert {"images_per_s", "coverage[digits-cnn]", "host_peak_bytes"} <= set(mine["metric"])
