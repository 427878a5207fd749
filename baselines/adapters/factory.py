"""A torch module that a user's own function makes, with weights from a safetensors file; and the hash of both.

`my_module:make` and `my_file.py:make` name a function without arguments that returns an `nn.Module`. It is run with
torch's generator seeded by 0, so that what it draws is the same in every process. The hash covers the tensors of what
it made and the source that it came from: another checkpoint under the same name is another model.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.errors import UserError
from baselines.importing import import_user_module, where_raised

_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".jit", ".ts", ".torchscript")


def make(factory: str, weights: str, who: str) -> nn.Module:
    """The module, in evaluation mode, without gradients.

    Args:
        factory: `module:FUNCTION` or `file.py:FUNCTION`.
        weights: a .safetensors file of its state dict; empty: the function loads its own.
        who: the model that asks, for messages.

    Raises:
        UserError: if there is no such function, it fails or returns something else, or the weights do not fit.
    """
    where, variable = _named(factory, who)
    module = import_user_module(where, f"{who}.factory {factory!r}")
    if not hasattr(module, variable):
        raise UserError(f"{who}.factory: {where} has no {variable}; write def {variable}(): return the torch module")
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        try:
            made = getattr(module, variable)()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{who}.factory: {factory}() fails: {where_raised(error)}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{who}.factory: expected {factory}() to return a torch.nn.Module, got {type(made).__name__}")
    if weights:
        load_weights(made, weights, who)
    return made.eval().requires_grad_(False)


def load_weights(module: nn.Module, weights: str, who: str) -> None:
    """Load a safetensors file into a module, every tensor of it; nothing is unpickled.

    Raises:
        UserError: if there is no such file, it is a pickle or damaged, or its tensors are others.
    """
    path = weights_file(weights, who)
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(module, path)  # which also knows tensors that were saved once for two names
    except (OSError, SafetensorError) as error:
        raise UserError(f"{who}.weights: cannot read {weights}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{who}.weights: {weights} does not fit: {' '.join(str(error).split())[:300]}") from None


def weights_file(weights: str, who: str) -> Path:
    """The path of a safetensors file that is there.

    Raises:
        UserError: if it is not there, or another format.
    """
    path = Path(weights)
    if path.suffix != ".safetensors":
        why = " (a pickle or TorchScript, which can hold code and is never opened)" if path.suffix in _PICKLES else ""
        raise UserError(
            f"{who}.weights: expected a .safetensors file, got {weights}{why}; "
            "write one by safetensors.torch.save_model(module, path)"
        )
    if not path.is_file():
        raise UserError(f"{who}.weights: no such file: {weights}")
    return path


def keep_apart(model: nn.Module) -> None:
    """Let a model's state dict hold tensors that share memory (tied weights) as copies, as a checkpoint needs them."""
    model.register_state_dict_post_hook(_apart)  # type: ignore[no-untyped-call]


def _apart(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    seen: set[int] = set()
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.numel():
            place = value.untyped_storage().data_ptr()
            if place in seen:
                state[name] = value.clone()
            seen.add(place)


def fingerprint(factory: str, weights: str, who: str) -> str:
    """SHA-256 of what is made: its layers and tensors, and the source files of its parts and of what they import.

    Raises:
        UserError: as `make`.
    """
    made = make(factory, weights, who)
    total = hashlib.sha256(repr(made).encode())
    for name, value in sorted(made.state_dict().items()):
        total.update(name.encode())
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            total.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
            total.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            total.update(repr(value).encode())
    for content in sorted({path.read_bytes() for path in _sources(_files(factory, made, who))}):
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def checked_hash(given: str, found: str, what: str) -> str:
    """The hash that was found, for the config.

    Raises:
        UserError: if another one was given, as when weights change between a plan and its run.
    """
    if given not in ("", found):
        raise UserError(
            f"{what}: expected sha256 {given}, got {found}; it is other than it was (a function that draws weights by "
            "another generator than torch's makes others each time: load them from a file)"
        )
    return found


def _named(factory: str, who: str) -> tuple[str, str]:
    where, _, variable = factory.rpartition(":")
    if not where or not variable.isidentifier():
        raise UserError(
            f"{who}.factory: expected module:FUNCTION or file.py:FUNCTION, which returns a torch module; "
            f"got {factory!r}"
        )
    return where, variable


def _files(factory: str, made: nn.Module, who: str) -> set[Path]:
    """The file of the function and those of the classes of all parts, but of torch's own."""
    module = import_user_module(_named(factory, who)[0], f"{who}.factory {factory!r}")
    files = {module.__file__}
    for kind in {type(part) for part in made.modules()}:
        if kind.__module__.split(".")[0] in ("torch", "builtins"):
            continue
        try:
            files.add(inspect.getsourcefile(kind))
        except TypeError:  # a class typed in a console has no file
            continue
    return {Path(file) for file in files if file is not None and file.endswith(".py")}


def _sources(files: set[Path]) -> set[Path]:
    """These files and what they import, transitively, of the user's own packages and folders."""
    seen: set[Path] = set()
    queue = [path.resolve() for path in files if path.is_file()]
    roots = {_root(path) for path in queue if not _is_installed(path)}
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        if not _is_installed(path):
            queue += [file for name in _imported(path) if (file := _file_of(name, path, roots)) is not None]
    return seen


def _is_installed(path: Path) -> bool:
    return "site-packages" in path.parts


def _root(path: Path) -> Path:
    """The folder of the outermost package that a file is in; its own folder if it is in none."""
    folder = path.parent
    while (folder / "__init__.py").is_file() and (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names)


def _file_of(name: str, importer: Path, roots: set[Path]) -> Path | None:
    """The file of a module inside of the roots; what lies elsewhere is neither followed nor imported."""
    if name.startswith("."):
        level = len(name) - len(name.lstrip("."))
        place = importer.parents[level - 1].joinpath(*filter(None, name.lstrip(".").split(".")))
        return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
    top = name.split(".")[0]
    if not any(_inside(path, roots) for path in _places(top)):
        return None
    return next((path for path in _places(name) if path.suffix == ".py" and _inside(path, roots)), None)


def _inside(path: Path, roots: set[Path]) -> bool:
    return not _is_installed(path) and any(path.is_relative_to(root) for root in roots)


def _places(name: str) -> list[Path]:
    """The file of a module, and the folders that its parts are looked for in."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return []
    if spec is None:
        return []
    found = [spec.origin, *(spec.submodule_search_locations or ())]
    return [Path(place).resolve() for place in found if place not in (None, "built-in", "frozen")]
