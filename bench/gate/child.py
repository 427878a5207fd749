"""Runs workloads in one tree, at the word of the gate: a JSON line in, one out. A script of the standard library.

It is started by its path, with the tree first in PYTHONPATH, so that the head's definitions of the work run against
the code of either tree: `python -P child.py TREE SUITE_FILE SUITE DEVICE PACKAGE...`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Made = tuple[Callable[[], object] | None, Mapping[str, float]]
"""The work (None: nothing to time), and the deterministic counters of one call of it."""


_WAKES = 4  # calls in a round from which one more costs little


class Foreign(ImportError):
    """Code of this tree's packages came from another place, such as an installed copy."""


def _used() -> tuple[float, int]:
    """CPU seconds and voluntary context switches of this process and of those that it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.process_time() + children.ru_utime + children.ru_stime, own.ru_nvcsw + children.ru_nvcsw


def load_suite(path: Path) -> Any:
    """The module in a file of workloads: WORKLOADS maps a name to make(device); perhaps SUITES, names by suite."""
    spec = importlib.util.spec_from_file_location("gate_workloads", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def names_of(module: Any, suite: str) -> list[str]:
    """The workloads of a suite, in the file's order; all of them where none is asked for."""
    return list(module.SUITES[suite] if suite else module.WORKLOADS)


def check_own(tree: Path, packages: list[str]) -> dict[str, str]:
    """Where each of the packages is imported from, without importing it.

    Raises:
        Foreign: if that is not the tree.
    """
    found = {}
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found[name] = spec.origin
        own = any((top / name).is_dir() for top in (tree, tree / "src"))
        if own and not Path(spec.origin).resolve().is_relative_to(tree):
            raise Foreign(f"{name}: expected it from {tree}, got {spec.origin}")
    return found


def check_loaded(tree: Path, packages: list[str]) -> None:
    """After the work: nothing of these packages came from elsewhere.

    Raises:
        Foreign: naming the module.
    """
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.split(".")[0] in packages and file and not Path(file).resolve().is_relative_to(tree):
            raise Foreign(f"{name}: this tree has none of its own; it would be taken from {file}")


class Server:
    """The state between two lines: the work that is prepared."""

    def __init__(self, tree: Path, suite_file: Path, device: str, packages: list[str]) -> None:
        self.tree, self.device, self.packages = tree, device, packages
        self.module = load_suite(suite_file)
        self.work: Callable[[], object] | None = None

    def prepare(self, name: str) -> dict[str, Any]:
        """Build the work, run it twice, and say how long the second call took, with its counters."""
        made: Made = self.module.WORKLOADS[name](self.device)
        self.work, counters = made
        if self.work is not None:
            self.work()
        check_loaded(self.tree, self.packages)
        return {"counters": dict(counters), "once_s": None if self.work is None else self.time(1)["wall_s"]}

    def time(self, loops: int) -> dict[str, Any]:
        """Wall and CPU seconds of so many calls, and how often they gave up the core to wait for something.

        What processes did that the work waited for is included.
        """
        assert self.work is not None, "nothing is prepared"
        work = self.work
        wait = getattr(self.module, "wait", None)  # for a device that works on behind the caller's back
        if loops >= _WAKES:
            work()  # untimed: the other side's rounds have taken this one's place in the caches
        if wait is not None:
            wait(self.device)
        (cpu_s, waits), begin = _used(), time.perf_counter()
        for _ in range(loops):
            work()
        if wait is not None:
            wait(self.device)
        wall_s = time.perf_counter() - begin
        then_s, then = _used()
        return {"wall_s": wall_s, "cpu_s": then_s - cpu_s, "waits": then - waits}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What one line asks for."""
        if asked["do"] == "prepare":
            self.work = None
            return self.prepare(str(asked["name"]))
        if asked["do"] == "time":
            return self.time(int(asked["loops"]))
        raise ValueError(f"expected prepare or time, got {asked['do']!r}")


def main() -> None:
    """Answer lines until there are no more; whatever the work prints goes to standard error."""
    tree, suite_file, suite, device, *packages = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    root = Path(tree).resolve()

    def reply(what: dict[str, Any]) -> None:
        replies.write(json.dumps(what) + "\n")
        replies.flush()

    try:
        origins = check_own(root, packages)
        server = Server(root, Path(suite_file), device, packages)
        reply({"origins": origins, "names": names_of(server.module, suite)})
    except Exception:
        reply({"error": traceback.format_exc()})
        return
    for line in sys.stdin:
        try:
            reply(server.answer(json.loads(line)))
        except Exception:
            reply({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
