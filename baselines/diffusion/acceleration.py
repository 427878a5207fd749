"""Other ways to run a network's forward call while sampling: bfloat16, the weights' layout, a compiler, CUDA graphs.

They are options of a draw, since they change its speed and, by rounding, its images: a matrix asks for
`options = { precision = "bf16", compile = true }`. The module is still called as a module, so its hooks see every call.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from baselines.errors import UserError
from baselines.types import Draw

Forward = Callable[[Tensor, Tensor], Tensor]
"""forward(x, t): the answer to x (B, C, H, W) at times t, (B,) or (1,)."""

_WARM_UPS = 3  # calls before a capture, in which libraries choose their kernels


@dataclass(frozen=True)
class Acceleration:
    """How a network's forward call is run; the defaults are the plain call.

    precision: None (the weights' own) or "bf16", by autocast; x_t and the sampler's arithmetic keep their dtype.
    layout: "contiguous" or "channels_last", of the convolutions' weights; None: channels_last on a CPU, where it is
    quicker at nearly every size that was tried and changed no image, and contiguous elsewhere. compile: by
    torch.compile. graph: the kernels of one call are recorded once for each shape and replayed (CUDA only).
    """

    precision: str | None = None
    layout: str | None = None
    compile: bool = False
    graph: bool = False


PLAIN = Acceleration()
_TAKEN: Mapping[str, tuple[Any, ...]] = {
    "precision": ("bf16",),
    "layout": ("contiguous", "channels_last"),
    "compile": (True, False),
    "graph": (True, False),
}


def acceleration_of(draw: Draw) -> tuple[Acceleration, Draw]:
    """How the network is to be run, and the draw with the other options alone, which are its sampler's.

    Raises:
        UserError: for a value that there is not, or one that this machine cannot do.
    """
    if not draw.options:
        return PLAIN, draw
    own = {f.name: draw.options[f.name] for f in fields(Acceleration) if f.name in draw.options}
    for name, value in own.items():
        if not any(value is taken or (value == taken and isinstance(value, str)) for taken in _TAKEN[name]):
            expected = " or ".join(
                str(taken).lower() if taken in (True, False) else repr(taken) for taken in _TAKEN[name]
            )
            raise UserError(f"options.{name}: expected {expected}, or none at all, got {value!r}")
    how = Acceleration(**own)  # type: ignore[arg-type]
    if how.compile:
        _check_compiler()
    if how.graph and not torch.cuda.is_available():
        raise UserError("options.graph: CUDA graphs need a GPU, and torch finds none here; leave it out")
    return how, replace(draw, options={name: v for name, v in draw.options.items() if name not in own})


def options_told(draw: Draw) -> str:
    """What to add where a sampler refuses an option: those of the network, and the one that may have been meant."""
    names = [f.name for f in fields(Acceleration)]
    close = [match for option in draw.options for match in difflib.get_close_matches(option, names, 1)]
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f" (how the network is run: {', '.join(names)}){meant}"


def _check_compiler() -> None:
    """torch.compile writes C++ for the CPU; of Triton on a GPU it compiles the launchers.

    Raises:
        UserError: if there is no compiler.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise UserError(
            f"options.compile: torch.compile needs a C++ compiler, and {name!r} is not on the PATH; install it "
            "(apt-get install g++), name another by the variable CXX, or leave the option out"
        )


class Forwards:
    """The accelerated forward calls of one module, made when they are first asked for."""

    def __init__(self) -> None:
        self._made: dict[Acceleration, Forward] = {}
        self._addresses: tuple[int, ...] = ()
        self._layout = "contiguous"  # as modules are built

    def __deepcopy__(self, memo: object) -> Forwards:
        copied = Forwards()  # without what was made: a copied module has weights of its own
        copied._layout = self._layout
        return copied

    @contextmanager
    def running(self, module: nn.Module, how: Acceleration) -> Iterator[None]:
        """Inside the block, calls of this module run so.

        Raises:
            UserError: for a graph where the module is not on a GPU.
        """
        parameter = next(module.parameters(), torch.empty(0))
        self._lay_out(module, how.layout or ("channels_last" if parameter.device.type == "cpu" else "contiguous"))
        if how == PLAIN:
            yield
            return
        if how.graph and not parameter.is_cuda:
            raise UserError(f"options.graph: CUDA graphs need a GPU, and this model is on {parameter.device}")
        replaces = how.compile or how.graph or how.precision is not None
        if replaces:
            vars(module)["forward"] = self._forward(module, how)
        try:
            with _precision(parameter.device.type, how.precision):
                yield
        finally:
            if replaces:
                del vars(module)["forward"]

    def _lay_out(self, module: nn.Module, layout: str) -> None:
        """Convert the weights where the layout is another than the last draw's; their values stay."""
        if layout != self._layout:
            module.to(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)
            self._layout = layout

    def _forward(self, module: nn.Module, how: Acceleration) -> Forward:
        how = replace(how, layout=None)
        if how.graph:  # a graph reads the weights where they were
            addresses = tuple(parameter.data_ptr() for parameter in module.parameters())
            if addresses != self._addresses:
                self._made = {key: made for key, made in self._made.items() if not key.graph}
                self._addresses = addresses
        if how not in self._made:
            self._made[how] = _made(module.forward, how)
        return self._made[how]


def _made(forward: Forward, how: Acceleration) -> Forward:
    if how.compile:
        forward = torch.compile(forward)
    if how.precision is not None:
        forward = _same_dtype(forward)
    return _Replayed(forward) if how.graph else forward


def _same_dtype(forward: Forward) -> Forward:
    def call(x: Tensor, t: Tensor) -> Tensor:
        return forward(x, t).to(x.dtype)

    return call


def _precision(device: str, precision: str | None) -> AbstractContextManager[Any]:
    """One block for a whole draw: autocast keeps what it made of the weights until the block ends."""
    return nullcontext() if precision is None else torch.autocast(device, dtype=torch.bfloat16)


class _Replayed:
    """Records the kernels of a forward call, once for each shape, and replays them."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.recorded: dict[Any, tuple[Any, Tensor, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        key = x.shape, x.dtype, t.shape
        if key not in self.recorded:
            self.recorded[key] = self._record(x.clone(), t.clone())
        graph, kept_x, kept_t, out = self.recorded[key]
        kept_x.copy_(x)
        kept_t.copy_(t)
        graph.replay()
        return out.clone()  # the next replay writes into the same memory

    def _record(self, x: Tensor, t: Tensor) -> tuple[Any, Tensor, Tensor, Tensor]:
        # Autocast's own copies of the weights would be freed behind the graph's back
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
            cuda: Any = torch.cuda  # untyped in some torch versions
            stream = cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    self.forward(x, t)
            torch.cuda.current_stream().wait_stream(stream)
            graph = cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self.forward(x, t)
        return graph, x, t, out
