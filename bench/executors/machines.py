"""A Ray cluster's nodes: how one is joined, what they offer, and what is asked of them before they get work."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from baselines.errors import UserError

_ANSWER_S = 10.0  # within which an address has to answer


@dataclass(frozen=True)
class Machine:
    """A node of the cluster, as it offers itself."""

    id: str
    address: str
    cpus: int
    gpus: int
    kind: str = ""  # its processor, once it was asked, and the make of its GPUs


def connect(address: str) -> Any:
    """The module `ray`, connected.

    Raises:
        UserError: if it is not installed, or no cluster of its version is at the address.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install 'trilemma-bench[ray]'") from None
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: Ray's client protocol cannot stream checkpoints; run trilemma on a node of the "
            "cluster (`ray job submit`) and give host:port of its head, or auto"
        )
    if address != "auto":
        _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (Exception, SystemExit) as error:  # Ray ends the process where what answers is no Ray
        first = next(iter(str(error).strip().splitlines()), "")
        raise UserError(
            f"--address {address}: no Ray cluster of version {ray.__version__} could be joined ({first}); start one "
            "with `ray start --head` here, or `ray start --address HEAD:6379`"
        ) from None
    return ray


def _knock(address: str) -> None:
    """Ray itself tries for two minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address: expected host:port of a Ray cluster's head, or auto, got {address!r}")
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: nothing answers ({error}); is the cluster's head running, and is this its port?"
        ) from None


def device_of(wanted: str, machines: Sequence[Machine], address: str) -> str:
    """cpu or cuda, auto resolved.

    Raises:
        UserError: if no node has what a cell needs.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device: expected auto, cpu or cuda, got {wanted!r}")
    gpus, cpus = sum(machine.gpus for machine in machines), sum(machine.cpus for machine in machines)
    told = f"Ray cluster {address}: it has {len(machines)} nodes with {cpus} CPUs and {gpus} GPUs"
    if wanted == "cuda" and not any(machine.gpus and machine.cpus for machine in machines):
        raise UserError(f"--device cuda: a cell needs a CPU and a GPU of one node; {told}")
    if not cpus:
        raise UserError(f"a cell needs a CPU; {told}")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and gpus) else "cpu"


def of_one_kind(machines: Sequence[Machine]) -> list[Machine]:
    """The nodes of the kind that there are most of: speeds of one run are to be of one kind of machine."""
    kinds = Counter((machine.kind, machine.cpus, machine.gpus) for machine in machines)
    most = max(kinds, key=lambda kind: (kinds[kind], kind), default=None)
    return [machine for machine in machines if (machine.kind, machine.cpus, machine.gpus) == most]


def question() -> Callable[[], Any]:
    """A function that tells of the node that it is run on (`node.about`), or why it cannot."""

    def ask() -> Any:  # sent as it stands: it has to run where trilemma is not installed
        try:
            from bench.executors import node
        except ImportError as error:
            return str(error)
        return node.about()

    return ask
