"""Runs each job on some node of a Ray cluster, in a process of its own there, as often as it takes to lose no cell.

Nodes share nothing with this machine but code and data sets: files come and go through Ray (`freight`), and this
process alone writes into the results folder. A task whose node is lost is given to another one with the newest
checkpoint that came home; what the lost one may still say is not heard, so two writers never meet.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench.executors import node
from bench.executors.executor import OnProgress, Pair
from bench.executors.freight import Unpacker, needed, pieces
from bench.executors.local import Outcome
from bench.executors.machines import Machine, connect, device_of, of_one_kind, question
from bench.executors.node import Order
from bench.job import with_absolute_paths

_LOSSES = 5  # a cell that takes so many nodes with it is given up
_GRACE_S = 60.0  # that a run waits for a node that could do its cells
_AHEAD = 2  # tasks that wait at the cluster, so that it sees that more nodes would be of use


@dataclass
class _Attempt:
    pair: Pair
    losses: int
    unpacker: Unpacker
    machine: str | None  # the node it was told to use


class Cluster:
    """A connection to a Ray cluster; to be entered before anything is planned, since it decides about the device."""

    def __init__(self, address: str, device: str, jobs: int | None = None) -> None:
        """address: host:port of the cluster's head, or auto. jobs: cells at a time; None: as many as it can do."""
        self.address, self.wanted, self.jobs = address, device, jobs
        self.device = "cpu"
        self.ray: Any = None
        self.kinds: dict[str, str] = {}  # what is known of nodes, by id

    def __enter__(self) -> Cluster:
        """Connect, and ask every node what it is.

        Raises:
            UserError: if Ray is not installed, nothing answers, a node has other code, or none has what is needed.
        """
        self.ray = connect(self.address)
        try:
            self.device = device_of(self.wanted, self._machines(), self.address)
            self._ask(self._machines())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.shutdown()

    @property
    def side_by_side(self) -> int:
        """The most cells that one node does at a time."""
        most = max((self._room(machine) for machine in self._machines()), default=1)
        return max(1, most if self.jobs is None else min(most, self.jobs))

    def about(self) -> str:
        """What there is, in a line."""
        able = [machine for machine in self._machines() if self._room(machine)]
        cells = sum(map(self._room, able))
        return f"Ray cluster {self.address}: {len(able)} nodes for {cells} cells at a time on {self.device}"

    def run(
        self, pairs: Sequence[Pair], alone: bool, time_limit_s: float, on_progress: OnProgress
    ) -> Iterator[Outcome[Pair]]:
        """Do every job and yield outcomes as they come; see `local.run_jobs`.

        alone: whether a job needs a whole node for itself, since its speed is measured.

        Raises:
            UserError: if for a minute no node is there that could do them.
        """
        queue = deque((pair, 0) for pair in pairs)
        running: dict[Any, _Attempt] = {}
        seen = time.monotonic()  # when there last was a node
        try:
            while queue or running:
                while queue and (place := self._place(running, alone)) is not None:
                    pair, losses = queue.popleft()
                    attempt = _Attempt(pair, losses, Unpacker(pair[0].setup.results), place.id if alone else None)
                    running[self._start(attempt, place, alone, time_limit_s)] = attempt
                seen = self._someone_there(seen)
                for stream in self._ready(running):
                    outcome = self._hear(stream, running[stream], on_progress)
                    if outcome is None:
                        continue
                    attempt = running.pop(stream)
                    attempt.unpacker.close()
                    if isinstance(outcome, Outcome):
                        yield outcome
                    else:
                        on_progress(attempt.pair, ("its node was lost, starting again", 0, 1))
                        queue.appendleft((attempt.pair, attempt.losses + 1))
        finally:
            self._stop(running)

    # One task

    def _start(self, attempt: _Attempt, place: Machine, alone: bool, time_limit_s: float) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        job = attempt.pair[0]
        cuda = self.device == "cuda"
        cell = self.ray.remote(node.cell).options(
            num_cpus=place.cpus if alone else 1,
            num_gpus=(place.gpus if alone else 1) if cuda else 0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.id, soft=False) if alone else "SPREAD",
            max_retries=0,  # the newest checkpoint goes along, which Ray does not know of
            name=job.label,
            _generator_backpressure_num_objects=8,
        )
        files = [self.ray.put(piece) for piece in pieces(job.setup.results, needed(*attempt.pair))]
        return cell.remote(_order(attempt.pair, time_limit_s), files)

    def _ready(self, running: dict[Any, _Attempt]) -> list[Any]:
        if not running:
            time.sleep(0.5)
            return []
        some, _ = self.ray.wait(list(running), num_returns=1, timeout=0.5, fetch_local=False)
        return self.ray.wait(list(running), num_returns=len(running), timeout=0)[0] if some else []

    def _hear(self, stream: Any, attempt: _Attempt, on_progress: OnProgress) -> Outcome[Pair] | Exception | None:
        """What a task says next: how it ended, the loss of its node, or nothing that ends it."""
        errors = self.ray.exceptions
        try:
            kind, content = self.ray.get(next(stream))
        except StopIteration:
            lost: Exception = RuntimeError("it ended without an outcome")
        except errors.RayTaskError as error:
            return Outcome(attempt.pair, "failed", error=f"on its node: {error}")
        except errors.RayError as error:
            lost = error
        else:
            return self._take(kind, content, stream, attempt, on_progress)
        if attempt.losses + 1 < _LOSSES:
            return lost
        text = str(lost).strip().splitlines()[0]
        return Outcome(
            attempt.pair, "failed", error=f"it was lost with its node {_LOSSES} times; the last time: {text}"
        )

    def _take(
        self, kind: str, content: Any, stream: Any, attempt: _Attempt, on_progress: OnProgress
    ) -> Outcome[Pair] | None:
        if kind == "piece":
            try:
                attempt.unpacker.take(content)
            except (OSError, ValueError) as fault:  # a full disk here is this cell's failure, and not the run's end
                with suppress(Exception):
                    self.ray.cancel(stream)
                return Outcome(attempt.pair, "failed", error=f"what its node made cannot be kept here: {fault}")
            return None
        if kind == "progress":
            on_progress(attempt.pair, content)
            return None
        status, record, error, seconds = content
        if record is not None and attempt.losses:
            record = replace(record, provenance={**record.provenance, "nodes_lost": attempt.losses})
        return Outcome(attempt.pair, status, record, error, seconds)

    def _stop(self, running: dict[Any, _Attempt]) -> None:
        for stream, attempt in running.items():
            attempt.unpacker.close()
            with suppress(Exception):  # a node that is gone has stopped
                self.ray.cancel(stream)

    # The nodes

    def _machines(self) -> list[Machine]:
        return [
            Machine(
                found["NodeID"],
                found["NodeManagerAddress"],
                int(found["Resources"].get("CPU", 0)),
                int(found["Resources"].get("GPU", 0)),
                " ".join([self.kinds.get(found["NodeID"], ""), *_accelerators(found["Resources"])]),
            )
            for found in self.ray.nodes()
            if found["Alive"]
        ]

    def _room(self, machine: Machine) -> int:
        return min(machine.cpus, machine.gpus) if self.device == "cuda" else machine.cpus

    def _place(self, running: dict[Any, _Attempt], alone: bool) -> Machine | None:
        """Where one more task may go; for one that needs no node for itself Ray chooses, and any will do."""
        able = [machine for machine in self._machines() if self._room(machine)]
        if self.jobs is not None and len(running) >= self.jobs:
            return None
        if not alone:
            room = sum(map(self._room, able)) + _AHEAD
            return able[0] if able and (len(running) < room or self.jobs is not None) else None
        busy = {attempt.machine for attempt in running.values()}
        able = of_one_kind(able)
        return next((machine for machine in able if machine.id not in busy), None)

    def _someone_there(self, seen: float) -> float:
        if any(map(self._room, self._machines())):
            return time.monotonic()
        if time.monotonic() - seen > _GRACE_S:
            what = "GPU" if self.device == "cuda" else "CPU"
            raise UserError(
                f"Ray cluster {self.address}: for {_GRACE_S:g} s no node with a free {what} was there; "
                "start some, then the same command goes on from here"
            )
        return seen

    def _ask(self, machines: Sequence[Machine]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for machine in machines:
            there = NodeAffinitySchedulingStrategy(machine.id, soft=False)
            asked[machine] = (
                self.ray.remote(question()).options(num_cpus=0, scheduling_strategy=there, max_retries=3).remote()
            )
        for machine, answer in asked.items():
            try:
                told = self.ray.get(answer, timeout=_GRACE_S)
            except self.ray.exceptions.RayError as error:
                raise UserError(
                    f"Ray cluster {self.address}: node {machine.address} does not answer "
                    f"({str(error).strip().splitlines()[0]})"
                ) from None
            if isinstance(told, str):
                raise UserError(
                    f"Ray cluster {self.address}: node {machine.address} cannot import trilemma ({told}); install the "
                    "same version on all nodes"
                )
            if told["code"] != node.code():
                raise UserError(
                    f"Ray cluster {self.address}: node {machine.address} has other code of trilemma than this "
                    "machine; install the same version on all nodes"
                )
            self.kinds[machine.id] = told["cpu"]


def _accelerators(resources: Mapping[str, float]) -> list[str]:
    """The makes of a node's GPUs, as Ray names them: two nodes of one processor may have different ones."""
    prefix = "accelerator_type:"
    return sorted(name.removeprefix(prefix) for name in resources if name.startswith(prefix))


def _order(pair: Pair, time_limit_s: float) -> Order:
    from baselines.data.catalogue import DATA_DIR_VARIABLE
    from bench.plan import open_dataset

    job, previous = pair
    _, data = open_dataset(job.cell.dataset, job.setup.data_dir)
    job = replace(job, setup=with_absolute_paths(job.setup))
    here = str(Path.cwd())
    own = tuple(path for path in sys.path[:1] if path)
    return Order(
        (job, previous), time_limit_s, here, (here, *own), os.environ.get(DATA_DIR_VARIABLE), data, node.code()
    )
