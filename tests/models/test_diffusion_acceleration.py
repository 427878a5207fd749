"""Other ways to run the network: the same images but for rounding, every call seen, and nothing left behind."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.contract import Noise
from baselines.diffusion.acceleration import PLAIN, Acceleration, Forwards, acceleration_of
from baselines.diffusion.ddpm import Config, Ddpm
from baselines.errors import UserError
from baselines.types import Draw, ImageShape
from bench.measure.counters import forward_flops
from bench.measure.workload import Calls, capture_calls

SHAPE = ImageShape(3, 8, 8)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def model() -> Ddpm:
    torch.manual_seed(0)
    made = Ddpm(SHAPE, Config(timesteps=50, widths=(8, 12))).eval()
    for parameter in made.parameters():  # the zero-initialised layers too
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def draw(**options: Any) -> Draw:
    return Draw("ddim", 5, options=options)


def levels_apart(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch.compile without its C++, which takes a minute; what it gives back counts its calls."""
    compile_, calls = functools.partial(torch.compile, backend="eager"), [0]

    def compiled(forward: Any) -> Any:
        inner = compile_(forward)

        def call(*args: Any) -> Any:
            calls[0] += 1
            return inner(*args)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    return calls


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16"}, {"layout": "contiguous"}, {"compile": True}, {"precision": "bf16", "compile": True}],
    ids=str,
)
def test_images_stay_near_every_call_is_seen_and_nothing_is_left(
    options: dict[str, Any], quick_compiler: list[int]
) -> None:
    ours = model()
    plain = ours.sample(4, draw(), Noise(1))
    with capture_calls(ours) as calls:
        ran = ours.sample(4, draw(**options), Noise(1))
    assert calls.count == 5
    exact = "precision" not in options
    assert levels_apart(plain, ran) <= (1 if exact else 60)
    assert float((plain.float() - ran.float()).abs().mean()) < 4
    if not exact:
        assert not torch.equal(plain, ran), "the premise: bfloat16 rounds"
    assert quick_compiler[0] == (5 if "compile" in options else 0)
    ours.sample(4, draw(**options), Noise(1))
    assert torch.equal(ours.sample(4, draw(), Noise(1)), plain), "a plain draw is plain again"
    assert "forward" not in vars(ours.unet)


def test_the_layout_of_the_weights_is_that_of_the_draw_and_their_values_stay() -> None:
    ours = model()
    before = {name: weight.clone() for name, weight in ours.unet.named_parameters()}
    for options, layout in (
        ({}, torch.channels_last),
        ({"layout": "contiguous"}, torch.contiguous_format),
        ({"layout": "channels_last"}, torch.channels_last),
    ):
        ours.sample(1, draw(**options), Noise(0))
        assert all(weight.is_contiguous(memory_format=layout) for weight in ours.unet.parameters() if weight.ndim == 4)
    assert all(torch.equal(before[name], weight) for name, weight in ours.unet.named_parameters())


def test_weights_that_change_change_the_images(quick_compiler: list[int]) -> None:
    ours, how = model(), draw(compile=True, precision="bf16")
    before = ours.sample(2, how, Noise(1))
    for parameter in ours.unet.parameters():
        parameter.data = parameter.data * 0.5
    plain = ours.sample(2, draw(), Noise(1))
    assert levels_apart(plain, before) > 60, "the premise: the weights matter"
    assert levels_apart(plain, ours.sample(2, how, Noise(1))) <= 60


def test_an_error_inside_leaves_nothing_behind() -> None:
    ours = model()

    class Broken(Noise):
        def normals(self, purpose: str, n: int, shape: tuple[int, ...], steps: int):  # type: ignore[no-untyped-def]
            raise RuntimeError("broken as told")
            yield

    with pytest.raises(RuntimeError, match="as told"):
        ours.sample(2, Draw("ddim", 5, 1.0, options={"precision": "bf16"}), Broken(0))
    assert "forward" not in vars(ours.unet)
    assert not torch.is_autocast_enabled("cpu")


def test_a_copied_model_has_its_own_forward(quick_compiler: list[int]) -> None:
    ours, how = model(), draw(compile=True)
    first = ours.sample(2, how, Noise(1))
    other = copy.deepcopy(ours)
    for parameter in ours.unet.parameters():
        parameter.data.zero_()
    assert levels_apart(other.sample(2, how, Noise(1)), first) <= 1


def test_a_copied_model_knows_how_its_weights_lie() -> None:
    ours = model()
    ours.sample(1, draw(layout="channels_last"), Noise(0))
    other = copy.deepcopy(ours)
    other.sample(1, draw(layout="contiguous"), Noise(0))
    assert all(weight.is_contiguous() for weight in other.unet.parameters())
    assert not all(weight.is_contiguous() for weight in ours.unet.parameters()), "the premise: they lay otherwise"


@pytest.mark.parametrize("compiled", [True, False])
def test_samplers_see_answers_in_the_precision_of_x_t(compiled: bool, quick_compiler: list[int]) -> None:
    """What comes of an answer alone, such as a learned variance, is computed as precisely as without autocast."""

    class Plain(torch.nn.Conv2d):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    module, x, t = Plain(3, 3, 1), Noise(0).normal("x_T", 2, SHAPE.chw), torch.zeros(1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x, t).dtype == torch.bfloat16, "the premise: it does not see to it itself"
    with torch.no_grad(), Forwards().running(module, Acceleration("bf16", compile=compiled)):
        assert module(x, t).dtype == torch.float32


def test_the_limit_is_that_of_the_network_as_it_was_run(quick_compiler: list[int]) -> None:
    ours, flops = model(), []
    options: dict[str, Any]
    for options in ({}, {"compile": True}, {"precision": "bf16"}):
        with capture_calls(ours) as calls:
            ours.sample(1, draw(**options), Noise(0))
        seen, dtypes = quick_compiler[0], _output_dtypes(ours, calls)
        assert quick_compiler[0] - seen == (3 if "compile" in options else 0)
        if "compile" not in options:  # compiled code runs no hooks of layers inside
            assert dtypes == {torch.bfloat16 if options else torch.float32}
        flops.append(forward_flops(calls))
        assert "forward" not in vars(ours.unet)
    assert flops[0] == flops[1] == flops[2] > 0


def _output_dtypes(ours: Ddpm, calls: Calls) -> set[torch.dtype]:
    """Of a layer inside, while three bare forwards run as the limit has them."""
    seen: set[torch.dtype] = set()
    handle = ours.unet.head.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    calls.forward(3)
    handle.remove()
    return seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, r"options\.precision: expected 'bf16', or none at all, got 'fp8'"),
        ({"layout": True}, r"options\.layout: expected 'contiguous' or 'channels_last', .* got True"),
        ({"compile": 1}, r"options\.compile: expected true or false, .* got 1"),
        ({"temperature": 2.0}, r"'ddim' has none, got temperature"),
        ({"precision": "bf16", "temperature": 2.0}, r"'ddim' has none, got temperature"),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused_before_anything_is_trained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ddpm.check_draw(Config(timesteps=50), draw(**options))


def test_compiling_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and '.*\+\+' is not on the PATH; install it"):
        Ddpm.check_draw(Config(timesteps=50), draw(compile=True))


def test_a_graph_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"options\.graph: CUDA graphs need a GPU"):
        Ddpm.check_draw(Config(timesteps=50), draw(graph=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"this model is on cpu"):
        model().sample(1, draw(graph=True), Noise(0))


def test_false_is_the_plain_call_and_other_options_are_the_samplers() -> None:
    assert acceleration_of(draw(compile=False, graph=False))[0] == PLAIN
    how, left = acceleration_of(draw(precision="bf16", order=2))
    assert how == Acceleration("bf16")
    assert left.options == {"order": 2}


@cuda
@pytest.mark.parametrize("options", [{"graph": True}, {"graph": True, "precision": "bf16"}], ids=str)
def test_a_replayed_graph_gives_the_plain_images(options: dict[str, Any]) -> None:
    ours, noise = model().cuda(), Noise(1, device="cuda")
    same = {name: value for name, value in options.items() if name != "graph"}
    for n in (4, 1, 4):
        plain = ours.sample(n, draw(**same), noise)
        with capture_calls(ours, "cuda") as calls:
            ran = ours.sample(n, draw(**options), noise)
        assert calls.count == 5
        assert levels_apart(plain, ran) <= 1
    for parameter in ours.unet.parameters():
        parameter.data = parameter.data * 0.5
    assert levels_apart(ours.sample(4, draw(**same), noise), ours.sample(4, draw(**options), noise)) <= 1


@pytest.mark.slow
def test_the_real_compiler_gives_the_plain_images() -> None:
    ours = model()
    assert levels_apart(ours.sample(4, draw(), Noise(1)), ours.sample(4, draw(compile=True), Noise(1))) <= 1
