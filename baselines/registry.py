"""Finds models: one file in a family folder is one model; third parties add theirs by an entry point or a name."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from baselines.contract import Model
from baselines.errors import UserError
from baselines.importing import import_user_module

FAMILIES = ("autoencoders", "gans", "autoregressive", "flows", "diffusion", "reference")
ENTRY_POINT_GROUP = "trilemma.models"

_ROOT = Path(__file__).parent
_SPEAKS_OF_MODEL = re.compile(rb"\bMODEL\b")
_DECLARES_MODEL = re.compile(r"^MODEL\b", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A model as the registry knows it."""

    name: str
    family: str  # a folder of `baselines`, or "external"
    module: str  # dotted name, or the path of a .py file
    model: Model


def _built_in() -> dict[str, str]:
    """Model name -> module name, found by reading the files, without importing them."""
    found = {}
    for family in FAMILIES:
        for path in sorted((_ROOT / family).glob("*.py")):
            if _DECLARES_MODEL.search(path.read_text(encoding="utf-8")):
                found[path.stem] = f"baselines.{family}.{path.stem}"
    return found


def _installed() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def names() -> tuple[str, ...]:
    """Every model that can be named without an import path, built-in ones first."""
    return tuple({**_built_in(), **_installed()})


def load(name: str) -> Entry:
    """Import one model by registry name, dotted module name or path of a .py file.

    Raises:
        UserError: if there is no such model, or the module does not end with `MODEL = Model(...)`.
    """
    built_in = _built_in()
    if name in built_in:
        module_name = built_in[name]
        return Entry(name, module_name.split(".")[1], module_name, _declared(importlib.import_module(module_name)))
    module_name = _installed().get(name, name)
    _refuse_other_code(module_name)
    return Entry(name, "external", module_name, _declared(import_user_module(module_name, f"model {name!r}", names())))


def _refuse_other_code(module_name: str) -> None:
    """Import no file that speaks of no MODEL: a matrix of a stranger's may name any module there is.

    Raises:
        UserError: if there is such a file.
    """
    try:
        spec = None if module_name.endswith(".py") else importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return  # which the import itself tells in full
    path = Path(module_name) if spec is None else Path(spec.origin or "")
    if spec is not None and path.suffix != ".py":  # compiled, built in, or a folder
        raise UserError(f"{module_name}: expected a Python file that ends with MODEL = Model(...), got {spec.origin}")
    if path.suffix == ".py" and path.is_file() and not _SPEAKS_OF_MODEL.search(path.read_bytes()):
        raise UserError(
            f"{module_name}: expected it to end with MODEL = Model(...), got {path} without any MODEL; not imported"
        )


def _declared(module: ModuleType) -> Model:
    model = getattr(module, "MODEL", None)
    if not isinstance(model, Model):
        raise UserError(f"{module.__name__}: expected it to end with MODEL = Model(...), got {model!r}")
    return model


def module_file(entry: Entry) -> Path:
    """The source file of a loaded model."""
    if entry.module.endswith(".py"):
        return Path(entry.module).resolve()
    file = sys.modules[entry.module].__file__
    assert file is not None
    return Path(file)
