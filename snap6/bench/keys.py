"""Keys: what a cell's number depends on, and nothing else.

A train key hashes the source of the model's own transitive imports inside `baselines` (and of the trainer), its
config, the data's content, the budget, the seed and the kind of device. Comments, docstrings and unrelated files
do not enter, so a change of documents or of another model makes nothing stale.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any


def digest(*parts: Any) -> str:
    """A 16-digit hash of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def source_key(roots: Iterable[str], packages: tuple[str, ...], files: Iterable[Path] = ()) -> str:
    """Hash of the code of modules and of all they import, transitively, inside `packages`.

    Args:
        roots: dotted module names to start from.
        packages: top-level packages whose modules are followed; imports of others are left to provenance.
        files: further source files to start from, such as a model given by its path.
    """
    queue = [file for root in roots if (file := _module_file(root)) is not None] + list(files)
    seen: dict[Path, str] = {}
    while queue:
        file = queue.pop()
        if file in seen:
            continue
        code, imports, siblings = _read(file)
        seen[file] = code
        queue += siblings
        queue += [found for name in imports if name.split(".")[0] in packages and (found := _module_file(name))]
    return digest(sorted(seen.values()))


@cache
def _module_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin not in (None, "built-in", "frozen") else None


@cache
def _read(file: Path) -> tuple[str, tuple[str, ...], tuple[Path, ...]]:
    """The hash of a file's code without comments and docstrings, what it imports by name, and by relation."""
    tree = _Runtime().visit(ast.parse(file.read_text(encoding="utf-8")))
    imports: list[str] = []
    siblings: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            base = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            siblings += [base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ]
    return digest(_plain(tree)), tuple(imports), tuple(path for path in siblings if path.is_file())


class _Runtime(ast.NodeTransformer):
    """Leaves out what only type checkers read."""

    def visit_If(self, node: ast.If) -> ast.AST:
        """Replace `if TYPE_CHECKING:` by nothing to do."""
        if ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return ast.Pass()
        return self.generic_visit(node)


def _plain(node: Any) -> Any:
    """The tree as JSON; empty fields are left out, so that new Python versions' new fields change nothing."""
    if isinstance(node, ast.AST):
        fields = {name: _plain(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node if isinstance(node, str | int | float | bool) or node is None else repr(node)


def train_key(
    model_source: str,
    config: Mapping[str, Any],
    data: str,
    budget: Mapping[str, Any],
    seed: int,
    device: str,
    teacher: str | None = None,
) -> str:
    """Identity of a trained checkpoint; `device` is its kind, cpu or cuda, `teacher` the train key of its teacher."""
    taught = () if teacher is None else (teacher,)
    return digest("train", model_source, config, data, budget, seed, device, *taught)


def cell_key(train: str, draw: Mapping[str, Any] | None, measure: Mapping[str, Any]) -> str:
    """Identity of a record: the checkpoint, the draw, and what the matrix asks to be measured."""
    return digest("cell", train, draw, measure)
