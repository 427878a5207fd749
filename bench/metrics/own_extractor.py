"""A user's own network as extractor: a torch module, or an object with `name`, `identity` and `extract`."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.errors import UserError
from baselines.importing import import_user_module, where_raised
from bench import keys
from bench.metrics.base import Extractor, Features
from bench.metrics.network import as_rgb, exact_float32

_BATCH = 50
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_FORM = "uint8 RGB (N, 3, H, W) in 0..255 to features (N, d), or to a dict of `features` and perhaps `logits` (N, K)"


def open_named(named: str, reserved: Collection[str], device: str = "cpu") -> Extractor:
    """The extractor that `my_module:EXTRACTOR` or `my_extractor.py:EXTRACTOR` names.

    Args:
        named: a module or a file, and a variable in it.
        reserved: names that the program's own extractors bear.
        device: where a torch module runs.

    Raises:
        UserError: if it cannot be imported or is no extractor.
    """
    where, _, variable = named.rpartition(":")
    what = f"extractor {named!r}"
    if not where or not variable.isidentifier():
        raise UserError(f"{what}: expected module:VARIABLE or file.py:VARIABLE")
    module = import_user_module(where, what)
    if not hasattr(module, variable):
        raise UserError(f"{what}: {where} has no {variable}; end it with {variable} = ..., a torch module")
    file = None if module.__file__ is None else Path(module.__file__)
    return adopt(getattr(module, variable), reserved, device, file)


def adopt(given: Any, reserved: Collection[str], device: str = "cpu", file: Path | None = None) -> Extractor:
    """An extractor of what the user gave.

    Args:
        given: a torch module (which is moved to the device), or an object with `name`, `identity()` and
            `extract(images, levels)`.
        reserved: names that the program's own extractors bear.
        device: where a torch module runs.
        file: the source file that it comes from.

    Raises:
        UserError: if it is neither, or takes a reserved name.
    """
    if isinstance(given, nn.Module) and not callable(getattr(given, "extract", None)):
        given = ModuleExtractor(given, device, file)
    lacks = [part for part in ("identity", "extract") if not callable(getattr(given, part, None))]
    name = getattr(given, "name", None)
    if lacks or isinstance(given, type) or not isinstance(name, str):
        raise UserError(
            f"extractor: expected a torch module from {_FORM}, or an object with `name`, `identity()` and "
            f"`extract(images, levels)`; got {given!r:.100}"
        )
    own = type(given).__module__.startswith("bench.metrics.") and not isinstance(given, ModuleExtractor)
    if not _NAME.fullmatch(name) or (name in reserved and not own):
        raise UserError(
            "extractor: expected a name of letters, digits, dots and hyphens that no other extractor bears, "
            f"got {name!r}"
        )
    return given if own or isinstance(given, ModuleExtractor | Checked) else Checked(given, file)


class ModuleExtractor:
    """A torch module in evaluation mode, without TF32, in batches."""

    def __init__(self, module: nn.Module, device: str = "cpu", file: Path | None = None) -> None:
        own = getattr(module, "name", None)
        borrowed = type(module).__module__.startswith("torch.") and file is not None  # Sequential says little
        self.name = own if isinstance(own, str) else file.stem if file and borrowed else type(module).__name__
        self.module, self.device = module.to(device), device
        self._identity = {
            "architecture_sha256": hashlib.sha256(repr(module).encode()).hexdigest(),
            "weights_sha256": _state_sha256(module),
            "source_key": _source_key(module, file),
            "resize": "the module's own",
            "pixels": "levels rescaled to 0..255, grey repeated to RGB",
            "dtype": "the module's own, features float64",
            "version": 1,
        }

    def identity(self) -> Mapping[str, Any]:
        """Hashes of its layers, its weights and its source, as they were when it was given."""
        return self._identity

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features (N, d), and logits where the module gives them, of uint8 images (N, 1 or 3, H, W).

        Raises:
            UserError: if the module fails, or gives something else.
        """
        if images.shape[1] not in (1, 3):
            raise UserError(f"extractor {self.name}: expected images of 1 or 3 channels, got {images.shape[1]}")
        with torch.no_grad(), exact_float32(), evaluating(self.module):
            parts = [self._batch(as_rgb(x, levels).to(self.device)) for x in torch.split(images, _BATCH)]
        if len({tuple(part) for part in parts}) > 1:
            raise UserError(f"extractor {self.name}: logits of some batches and not of others")
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Features(found["features"], found.get("logits"))

    def _batch(self, x: Tensor) -> dict[str, Any]:
        try:
            given = self.module(x)
        except Exception as error:
            told = f"uint8 {tuple(x.shape)}: {where_raised(error)}"
            raise UserError(f"extractor {self.name}: its module fails on {told}; it must map {_FORM}") from error
        found = given if isinstance(given, dict) else {"features": given}
        if "features" not in found or not set(found) <= {"features", "logits"}:
            raise UserError(f"extractor {self.name}: expected {_FORM}, got {list(found)}")
        for name, value in found.items():
            if not isinstance(value, Tensor) or value.ndim != 2 or len(value) != len(x):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UserError(f"extractor {self.name}: expected {name} ({len(x)}, d), got {got}; it must map {_FORM}")
        return {name: value.detach().double().cpu().numpy() for name, value in found.items()}


class Checked:
    """A user's own extractor object; what it gives is checked, and its source file joins its identity."""

    def __init__(self, extractor: Extractor, file: Path | None = None) -> None:
        self.extractor, self.name = extractor, extractor.name
        self._source = _source_key(extractor, file)

    def identity(self) -> Mapping[str, Any]:
        """What it tells of itself.

        Raises:
            UserError: if that is no mapping.
        """
        told = self.extractor.identity()
        if not isinstance(told, Mapping):
            raise UserError(f"extractor {self.name}: expected a mapping from identity(), got {type(told).__name__}")
        return {**told, "source_key": self._source}

    def extract(self, images: Tensor, levels: int) -> Features:
        """Its features.

        Raises:
            UserError: if it gives something else.
        """
        found = self.extractor.extract(images, levels)
        if not isinstance(found, Features):
            kind = type(found).__name__
            raise UserError(f"extractor {self.name}: expected bench.metrics.base.Features from extract, got {kind}")
        arrays = {"values": found.values} if found.logits is None else {"values": found.values, "logits": found.logits}
        for name, value in arrays.items():
            shape = np.shape(value)
            if len(shape) != 2 or shape[0] != len(images):
                raise UserError(f"extractor {self.name}: expected {name} ({len(images)}, d), got {shape}")
        return found


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each part is as the user left it."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _state_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def _source_key(given: object, file: Path | None) -> str:
    """Hash of the source that the extractor is made of: its file, its classes', and what they import beside them."""
    classes = {type(part) for part in given.modules()} if isinstance(given, nn.Module) else {type(given)}
    roots = {file} if file is not None else set()
    packages = set()
    for kind in classes:
        package = kind.__module__.split(".")[0]
        if package in ("torch", "builtins"):
            continue
        packages.add(package)
        try:
            source = inspect.getsourcefile(kind)
        except TypeError:  # a class typed in a console has no file
            source = None
        if source is not None:
            roots.add(Path(source))
    return keys.source_key((), tuple(sorted(packages)), sorted(path for path in roots if path.is_file()))
