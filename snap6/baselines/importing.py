"""Imports a user's own code, by dotted name or by path, and says what is wrong with it where it fails."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from baselines.config import nearest
from baselines.errors import UserError


def import_user_module(module_name: str, what: str, known: Iterable[str] = ()) -> ModuleType:
    """Import a module.

    Args:
        module_name: dotted, or the path of a .py file.
        what: what is looked for in it, for messages: "model 'mine'".
        known: names that the user may have meant, where a name without a dot is not found.

    Raises:
        UserError: if there is no such module, or it fails; with file and line.
    """
    if not module_name.endswith(".py"):
        return _running(lambda: importlib.import_module(module_name), what, module_name, known)
    path = Path(module_name).resolve()
    if not path.is_file():
        raise UserError(f"{what}: no such file")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def run() -> ModuleType:
        sys.modules[path.stem] = module  # dataclasses look their module up by name
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        return module

    return _running(run, what, module_name, known)


def _running(load: Callable[[], ModuleType], what: str, module_name: str, known: Iterable[str]) -> ModuleType:
    """Run a third party's module; what it raises is told by file and line, as it is the user's to mend."""
    try:
        return load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (module_name == missing or module_name.startswith(missing + ".")):
            names = tuple(known)
            hint = nearest(module_name, names) if names and "." not in module_name else "; is its folder on PYTHONPATH?"
            raise UserError(f"unknown {what}{hint}") from None
        raise UserError(f"{what} imports {missing!r}, which is not installed") from error
    except Exception as error:
        raise UserError(f"{what} cannot be imported: {where_raised(error)}") from error


def where_raised(error: Exception) -> str:
    """`file:line: ValueError: message` of the innermost frame, for what a user's own code raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}: {type(error).__name__}: {error}"
