"""A device that is not the CPU on a machine that has no other: it computes on the CPU and refuses what a GPU refuses.

Tensors of the device `far` hold a tensor of the CPU. An operation that is given some of each, or a generator of the CPU
for numbers of `far`, fails as it would on CUDA; one number (0-d), and an index, may come from the CPU there as well.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "far"
ROOT = Path(__file__).parents[1]
_CROSSES = frozenset({"copy_", "_to_copy", "_copy_from", "index", "index_put", "index_put_", "_index_put_impl_"})


class Far(Tensor):
    """A tensor on `far`."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> Far:
        made: Far = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"far({self.held})"

    def __format__(self, text: str) -> str:
        return format(self.item() if self.dim() == 0 else self.held, text)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """Tensors made of numbers: torch hides their way to a device from the mode above."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], Far):
            return args[0].cpu().tolist()
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            there = kwargs.pop("device")
            return func(*args, **kwargs).to(there)
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    far = any(isinstance(tensor, Far) for tensor in tensors)
    asked = kwargs.get("device")
    goes_far = far if asked is None else torch.device(asked).type == NAME
    if not far and not goes_far:
        return func(*args, **kwargs)
    name = func.overloadpacket.__name__
    near = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.dim() > 0]
    if far and near and name not in _CROSSES:
        raise RuntimeError(f"{func}: expected all tensors on one device, got {NAME} and cpu")
    if name.startswith("index") and not isinstance(args[0], Far):
        raise RuntimeError(f"{func}: expected indices on the cpu, where the tensor is, got {NAME}")
    if goes_far and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: expected a generator of {NAME}, got one of the cpu")
    inner = {**kwargs, **({} if asked is None else {"device": torch.device("cpu")})}
    plain_args, plain_kwargs = pytree.tree_map_only(Far, lambda tensor: tensor.held, (args, inner))
    out = func(*plain_args, **plain_kwargs)
    first = func._schema.returns[0].alias_info if func._schema.returns else None
    if first is not None and first.is_write:
        if isinstance(args[0], Far):
            assert args[0].shape == args[0].held.shape, f"{func} changes a shape in place, which is not shown here"
        return args[0]
    return pytree.tree_map_only(Tensor, Far, out) if goes_far else out


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device beside its operations."""

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        pass


@cache
def _registered() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())


@contextmanager
def device() -> Iterator[str]:
    """Inside the block there is a device of the name that it gives; for a process that `alone` has started.

    Torch's autograd counts the devices at its first backward pass, so this one has to be there before.
    """
    _registered()
    with _Mode(), _Made():
        yield NAME


def alone(module: str, function: str, *arguments: str | int | None) -> None:
    """Call a function in a process of its own, which must end well."""
    code = f"import os, {module} as module; module.{function}(*{arguments!r}); os._exit(0)"  # torch's threads may abort
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
