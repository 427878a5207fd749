"""What is timed: a trained model with one way to draw from it; and the network calls that a draw makes."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from baselines.contract import GenerativeModel, Given, Noise, Replays
from baselines.errors import UserError
from baselines.types import Draw
from bench.measure.result import VERSION
from bench.provenance import cpu_model


@dataclass(frozen=True)
class Workload:
    """A model in the state in which its samples are measured (evaluation mode, averaged weights loaded)."""

    model: GenerativeModel
    draw: Draw
    noise: Noise  # its device is where the model lives
    given: Given | None = None  # conditions for images 0, 1, ...; reused from the start when they run out

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return torch.device(self.noise.device)

    @property
    def refusal(self) -> str | None:
        """Why this model has no speed; None if it has one."""
        return "replays data: its speed means nothing" if isinstance(self.model, Replays) else None

    @property
    def builds(self) -> bool:
        """Whether the first call with a batch of some size builds what later ones use, and so tells no speed."""
        return any(self.draw.options.get(name) is True for name in ("compile", "graph"))

    @torch.no_grad()
    def images(self, n: int, first: int = 0) -> Tensor:
        """Images first .. first + n - 1 of this draw, uint8 (n, C, H, W), on the model's device."""
        given = None if self.given is None else self.given.at(first, n)
        return self.model.sample(n, self.draw, self.noise.at(self.noise.first + first), given)

    def checked(self, images: Tensor, n: int) -> Tensor:
        """The images, if they are n images as the contract has them; looked at outside of every timing.

        Raises:
            ValueError: saying what the sampler gave.
        """
        shape = self.model.shape
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.shape != (n, *shape.chw):
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"sample({n}, ...): expected uint8 {(n, *shape.chw)}, got {got}")
        highest = int(images.max())
        if highest >= shape.levels:
            raise ValueError(f"sample({n}, ...): expected levels 0 .. {shape.levels - 1}, got {highest}")
        return images

    def protocol(self, batch: int) -> dict[str, Any]:
        """What a speed depends on beside model and draw; speeds with equal protocols are comparable."""
        return speed_protocol(self.model, self.device, batch)


def device_name(device: torch.device) -> str:
    """The GPU's or the CPU's model name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model() or platform.machine()


def speed_protocol(model: nn.Module, device: torch.device, batch: int) -> dict[str, Any]:
    """Device, threads, dtype, batch, torch version and protocol version."""
    tensors = (*model.parameters(), *model.buffers())
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "batch": batch,
        "torch": torch.__version__,
        "version": VERSION,
    }


@dataclass
class Calls:
    """The calls of a model's network during one draw, and the first call's inputs (detached copies)."""

    name: str | None
    module: nn.Module | None
    count: int = 0  # executed NFE
    alike: bool = True  # whether all calls had inputs of the same shapes
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    _shapes: Any = None
    _forward: Any = None  # what the sampler put in the place of the module's own forward, if anything
    _autocast: tuple[str, torch.dtype, bool] | None = None

    @property
    def missing(self) -> str | None:
        """Why no call was seen; None if one was."""
        if self.module is None:
            return "has no network"
        return None if self.count else f"its network {self.name!r} was never called as a module"

    @property
    def unlike(self) -> str | None:
        """Why one call cannot stand for all; None if it can."""
        if self.missing is None and not self.alike:
            return "its network's inputs change their shape from call to call: one forward does not stand for all"
        return self.missing

    def note(self, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> None:
        """Count one call and keep the first one's inputs, precision and shapes."""
        shapes = _shapes((args, kwargs))
        if not self.count:
            self._shapes = shapes
            self.args, self.kwargs = _kept(args), _kept(kwargs)
            self._forward = None if self.module is None else vars(self.module).get("forward")
            kind = device.type
            self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self.count += 1
        self.alike &= shapes == self._shapes

    @torch.no_grad()
    def forward(self, times: int = 1, plain: bool = False) -> None:
        """The bare network on the kept inputs, as the sampler ran it (compiled, say), unless it is to be `plain`.

        Under the autocast state of that call.
        """
        assert self.module is not None
        assert self._autocast is not None, "no call was kept"
        kind, dtype, enabled = self._autocast
        precision: AbstractContextManager[Any] = torch.autocast(kind, dtype=dtype, enabled=enabled)
        with precision, _in_place_of_forward(self.module, None if plain else self._forward):
            for _ in range(times):
                self.module(*self.args, **self.kwargs)


@contextmanager
def capture_calls(model: GenerativeModel, device: torch.device | str = "cpu") -> Iterator[Calls]:
    """Count the calls of `model.network` inside the block; with no network the count stays 0.

    Contract: the network is called as a module (`self.net(x, t)`). A method of it that is called directly, a
    functional call of its weights or a compiled graph that swallowed it runs no forward hook and is not seen.

    Raises:
        UserError: if `model.network` names no submodule.
    """
    name = model.network
    if name is None:
        yield Calls(None, None)
        return
    try:
        module = model.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in model.named_children()) or "none"
        raise UserError(
            f"{type(model).__name__}.network: expected the name of a submodule, got {name!r}; it has {known}"
        ) from None
    calls = Calls(name, module)
    where = torch.device(device)

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.note(args, kwargs, where)

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def observe(workload: Workload, n: int, first: int = 0) -> tuple[Tensor, Calls]:
    """Draw n images (a full-length warm-up) and see which network calls that makes."""
    with capture_calls(workload.model, workload.device) as calls:
        images = workload.images(n, first)
    return images, calls


@contextmanager
def _in_place_of_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    if forward is None:
        yield
        return
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]


def _kept(value: Any) -> Any:
    """Copies of all tensors in tuples, lists and dicts, since a sampler may overwrite its canvas in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_kept, value))
    if isinstance(value, tuple | list):
        return type(value)(map(_kept, value))
    return {key: _kept(item) for key, item in value.items()} if isinstance(value, dict) else value


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, tuple | list):
        return tuple(map(_shapes, value))
    return {key: _shapes(item) for key, item in value.items()} if isinstance(value, dict) else None
