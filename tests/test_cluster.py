"""Cells on other machines: what travels, what is refused, and a real cluster that loses a node in the middle."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines import checkpoint
from baselines.errors import UserError
from baselines.types import Budget
from bench.executors import freight, machines, node
from bench.executors.cluster import Cluster
from bench.executors.freight import Piece, Unpacker, Watched, needed, pieces
from bench.job import Job, Setup
from bench.record import Cell, Record
from tests.jobs_for_tests import tell_gpus
from tests.two_nodes import ADDRESS, unshared, why_not

ROOT = Path(__file__).parents[1]
NO_CLUSTER = why_not()


def a_job(results: Path, train_key: str = "abc") -> Job:
    setup = Setup(results, "cpu")
    return Job(Cell("histogram", "digits", Budget(images=1), 0), "key", train_key, 10, setup, {})


def carry(found: list[Piece], goal: Path) -> None:
    goal.mkdir(exist_ok=True)
    unpacker = Unpacker(goal)
    for piece in found:
        unpacker.take(piece)
    unpacker.close()


def test_a_file_of_many_pieces_arrives_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freight, "PIECE_BYTES", 1000)
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "artifacts").mkdir(parents=True)
    there.mkdir()
    content = {"artifacts/long": os.urandom(3456), "artifacts/even": os.urandom(2000), "artifacts/none": b""}
    for path, data in content.items():
        (here / path).write_bytes(data)
    found = list(pieces(here, content))
    assert [sum(piece.path == path for piece in found) for path in content] == [4, 2, 1]
    unpacker = Unpacker(there)
    for piece in found[:3]:
        unpacker.take(piece)
    assert not (there / "artifacts").exists()
    unpacker.close()
    assert not list(there.iterdir()), "what has not arrived in full leaves nothing"
    carry(found, there)
    assert {path: (there / path).read_bytes() for path in content} == content
    assert [path.name for path in there.iterdir()] == ["artifacts"]


@pytest.mark.parametrize("path", ["../x", "artifacts/../../x", "/etc/x", "run.json", "records/0001.jsonl", ""])
def test_nothing_arrives_outside_of_its_folders(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a file below"):
        Unpacker(tmp_path).take(Piece(path, b"x", True, True))
    assert not list(tmp_path.iterdir())


def test_checkpoints_are_seen_as_they_come_and_are_whole_after_every_file(tmp_path: Path) -> None:
    far, home = a_job(tmp_path / "far"), a_job(tmp_path / "home")
    (tmp_path / "home").mkdir()
    watched = Watched(far)
    assert watched.news() == []
    for step in range(3):
        checkpoint.save(far.checkpoint_folder, "state", {"x": torch.full((3,), float(step))}, {"state": step})
        news = watched.news()
        assert [Path(piece.path).suffix for piece in news] == [".safetensors", ".json"]
        unpacker = Unpacker(tmp_path / "home")
        for piece in news:
            before = checkpoint.load(home.checkpoint_folder, "state")
            assert before is None or before[1]["state"] == step - 1
            unpacker.take(piece)
        found = checkpoint.load(home.checkpoint_folder, "state")
        assert found is not None
        assert found[1]["state"] == step
        assert len(list(home.checkpoint_folder.iterdir())) == 2, "the older one is gone"
    assert watched.news() == []


def test_a_model_comes_after_its_snapshots_and_ends_the_state(tmp_path: Path) -> None:
    far, home = a_job(tmp_path / "far"), a_job(tmp_path / "home")
    checkpoint.save(home.checkpoint_folder, "state", {"x": torch.zeros(2)}, {"state": 1})
    watched = Watched(far)
    for stem in ("model", "snapshots"):
        checkpoint.save(far.checkpoint_folder, stem, {"x": torch.ones(3)}, {})
    news = watched.news()
    stems = [Path(piece.path).name.partition("-")[0].partition(".")[0] for piece in news]
    assert stems == ["snapshots", "snapshots", "model", "model"]
    carry(news, tmp_path / "home")
    assert checkpoint.load(home.checkpoint_folder, "state") is None
    assert checkpoint.load(home.checkpoint_folder, "model") is not None
    assert sorted(path.suffix for path in home.checkpoint_folder.iterdir()) == [".json"] * 2 + [".safetensors"] * 2


def test_a_job_takes_what_it_reads_along_and_what_it_brought_is_no_news(tmp_path: Path) -> None:
    home, teacher = a_job(tmp_path / "home"), a_job(tmp_path / "home", "teacher")
    for job, stem in ((home, "state"), (home, "model"), (teacher, "model"), (teacher, "state")):
        checkpoint.save(job.checkpoint_folder, stem, {"x": torch.rand(3)}, {})
    pupil = replace(home, teacher=teacher)
    paths = needed(pupil, None)
    kinds = [(Path(path).parent.name, Path(path).name.partition("-")[0].partition(".")[0]) for path in paths]
    assert Counter(kinds) == {("abc", "state"): 2, ("abc", "model"): 2, ("teacher", "model"): 2}
    carry(list(pieces(tmp_path / "home", paths)), tmp_path / "far")
    far = a_job(tmp_path / "far")
    assert checkpoint.load(far.checkpoint_folder, "model") is not None
    assert Watched(far).news() == []


def test_a_node_does_a_cell_in_a_folder_of_its_own_and_hands_all_of_it_back(tmp_path: Path) -> None:
    """Without Ray: what a task yields is put together as the run does it."""
    from bench import matrix, plan
    from bench.plan import open_dataset

    setup = Setup(tmp_path / "home", "cpu", samples=50, latency_s=0.05)
    wanted = matrix.Wanted("histogram", "digits", 0, Budget(images=64), {}, (), ())
    (training,) = plan.plan([wanted], setup)
    (tmp_path / "home").mkdir()
    _, data = open_dataset("digits", None)
    order = node.Order((training.job, None), 100.0, str(tmp_path), (), None, data, node.code())
    messages = list(node.carry_out(order, ()))
    kinds = [kind for kind, _ in messages]
    assert kinds[-1] == "outcome"
    assert set(kinds) == {"progress", "piece", "outcome"}
    status, record, error, _ = messages[-1][1]
    assert (status, error) == ("ok", "")
    carry([content for kind, content in messages if kind == "piece"], tmp_path / "home")
    assert checkpoint.load(training.job.checkpoint_folder, "model") is not None
    assert plan.is_done(training.job, {record.key: record}), "the record's files have come home"
    with pytest.raises(UserError, match="other code"):
        list(node.carry_out(node.Order(order.pair, 1.0, "", (), None, data, "else"), ()))
    wrong = node.Order((training.job, None), 100.0, str(tmp_path), (), None, "else", node.code())
    status, _, error, _ = list(node.carry_out(wrong, ()))[-1][1]
    assert status == "failed"
    assert "put the same files on all nodes" in error


def test_a_cell_is_told_of_the_gpus_of_its_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are forked from a server that an earlier task of the same Ray worker started, with that one's GPUs."""
    monkeypatch.setattr(node, "_in_the_cells_process", tell_gpus)
    order = node.Order((a_job(tmp_path), None), 100.0, str(tmp_path), (), None, "", node.code())
    told = []
    for gpus in ("0", "3"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        told.append(list(node.carry_out(order, ()))[-1][1][2].splitlines()[0])
    assert told == ["RuntimeError: sees 0", "RuntimeError: sees 3"]


def test_a_node_that_cannot_start_a_process_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("too many processes")

    monkeypatch.setattr(node, "run_jobs", refuse)
    order = node.Order((a_job(tmp_path), None), 1.0, str(tmp_path), (), None, "", node.code())
    kind, (status, record, error, _) = list(node.carry_out(order, ()))[-1]
    assert (kind, status, record, error) == ("outcome", "failed", None, "OSError: too many processes")


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'trilemma-bench\[ray\]'"):
        machines.connect("auto")


def test_an_address_that_is_none_or_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address, told in (
        (f"127.0.0.1:{port}", "nothing answers"),
        ("head", "expected host:port"),
        ("head:six", "expected host:port"),
        ("ray://head:10001", "cannot stream"),
    ):
        with pytest.raises(UserError, match=told):
            machines.connect(address)


def test_a_cluster_that_lacks_what_a_cell_needs_is_refused() -> None:
    plain = machines.Machine("a", "10.0.0.1", 4, 0)
    bare = machines.Machine("b", "10.0.0.2", 0, 2)
    both = machines.Machine("c", "10.0.0.3", 8, 1)
    with pytest.raises(UserError, match="2 nodes with 4 CPUs and 2 GPUs"):
        machines.device_of("cuda", [plain, bare], "head:1")
    with pytest.raises(UserError, match="a cell needs a CPU"):
        machines.device_of("cpu", [bare], "head:1")
    assert machines.device_of("auto", [plain], "head:1") == "cpu"
    assert machines.device_of("auto", [plain, both], "head:1") == "cuda"


def test_speed_is_measured_on_machines_of_one_kind() -> None:
    nodes = [machines.Machine(str(i), "", 4, 0, kind) for i, kind in enumerate(("new", "old", "new", "old", "old"))]
    assert {machine.kind for machine in machines.of_one_kind(nodes)} == {"old"}
    assert machines.of_one_kind([]) == []


def test_nodes_of_one_processor_with_other_gpus_are_of_another_kind() -> None:
    def node_of(i: int, make: str) -> dict[str, Any]:
        resources = {"CPU": 4.0, "GPU": 1.0, f"accelerator_type:{make}": 1.0}
        return {"NodeID": str(i), "NodeManagerAddress": "", "Alive": True, "Resources": resources}

    made = Cluster("head:1", "cuda")
    made.ray = SimpleNamespace(nodes=lambda: [node_of(0, "A100"), node_of(1, "H100"), node_of(2, "H100")])
    made.kinds = dict.fromkeys("012", "the same processor")
    assert [machine.id for machine in machines.of_one_kind(made._machines())] == ["1", "2"]


class Scripted:
    """Ray's module with tasks that do as told, for what is hard to time on a real cluster."""

    def __init__(self, *tasks: list[Any]) -> None:
        import ray

        self.exceptions = ray.exceptions
        self.tasks, self.given, self.asked, self.cancelled = list(tasks), [], [], []

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": f"{i:056x}", "NodeManagerAddress": f"10.0.0.{i}", "Alive": i < 2, "Resources": {"CPU": 3.0}}
            for i in range(3)
        ]

    def remote(self, function: Any) -> Scripted:
        return self

    def options(self, **asked: Any) -> Any:
        self.asked.append(asked)

        def submit(order: node.Order, files: list[Piece]) -> Iterator[Any]:
            self.given.append(files)
            return iter(self.tasks.pop(0))

        return SimpleNamespace(remote=submit)

    def put(self, piece: Piece) -> Piece:
        return piece

    def get(self, told: Any) -> Any:
        if isinstance(told, Exception):
            raise told
        return told

    def wait(self, streams: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return streams, []

    def cancel(self, stream: Any) -> None:
        self.cancelled.append(stream)


def a_cluster(*tasks: list[Any]) -> tuple[Cluster, Scripted]:
    made, script = Cluster("head:1", "cpu"), Scripted(*tasks)
    made.ray = script
    return made, script


def lost() -> Exception:
    from ray.exceptions import NodeDiedError

    return NodeDiedError("the node is dead")


def ended(job: Job) -> tuple[str, Any]:
    return "outcome", ("ok", Record(job.key, job.train_key, "ok", job.cell), "", 1.0)


def test_a_lost_task_is_started_again_with_the_newest_checkpoint_and_ends_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "home").mkdir()
    job, far = a_job(tmp_path / "home"), a_job(tmp_path / "far")
    watched = Watched(far)
    checkpoint.save(far.checkpoint_folder, "state", {"x": torch.ones(3)}, {"state": 5})
    saved = [("piece", piece) for piece in watched.news()]
    half = ("piece", Piece("artifacts/half", b"half", True, False))
    made, script = a_cluster([*saved, half, lost()], [lost()], [("progress", ("training", 1, 2)), ended(job)])
    progress: list[Any] = []
    outcomes = list(made.run([(job, None)], False, 60.0, lambda pair, told: progress.append(told)))
    assert [outcome.status for outcome in outcomes] == ["ok"]
    assert outcomes[0].result.provenance == {"nodes_lost": 2}
    assert [len(files) for files in script.given] == [0, 2, 2]
    carry(script.given[2], tmp_path / "third")
    found = checkpoint.load(a_job(tmp_path / "third").checkpoint_folder, "state")
    assert found is not None
    assert found[1]["state"] == 5
    again = ("its node was lost, starting again", 0, 1)
    assert progress == [again, again, ("training", 1, 2)]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["checkpoints"], "nothing half-arrived"


def test_what_cannot_be_kept_at_home_fails_its_cell_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    bad, good = a_job(tmp_path), a_job(tmp_path, "good")
    (tmp_path / "artifacts").write_text("a file where a folder belongs")
    made, script = a_cluster([("piece", Piece("artifacts/x", b"x", True, True)), ended(bad)], [ended(good)])
    outcomes = {o.job[0].train_key: o for o in made.run([(bad, None), (good, None)], False, 60.0, lambda *_: None)}
    assert {key: outcome.status for key, outcome in outcomes.items()} == {"abc": "failed", "good": "ok"}
    assert "what its node made cannot be kept here" in outcomes["abc"].error
    assert len(script.cancelled) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"], "nothing half-arrived"


def test_a_node_uses_no_folder_that_another_user_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"trilemma-cells-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="expected a folder of this user's own"), node._own_folder():
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_cell_that_takes_every_node_with_it_fails_and_the_others_go_on(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    bad, good = a_job(tmp_path), a_job(tmp_path, "good")
    made, script = a_cluster([lost()], [ended(good)], *[[lost()] for _ in range(4)])
    outcomes = list(made.run([(bad, None), (good, None)], False, 60.0, lambda pair, told: None))
    assert {outcome.job[0].train_key: outcome.status for outcome in outcomes} == {"abc": "failed", "good": "ok"}
    failed = next(outcome for outcome in outcomes if outcome.status == "failed")
    assert failed.error == "it was lost with its node 5 times; the last time: the node is dead"
    assert not script.tasks


def test_a_timed_cell_gets_a_whole_node_and_leaving_early_cancels_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    jobs = [a_job(tmp_path, str(i)) for i in range(3)]
    endless = [("progress", ("sampling", 1, 2))] * 1000
    made, script = a_cluster([ended(jobs[0])], endless, endless)
    outcomes = made.run([(job, None) for job in jobs], True, 60.0, lambda pair, told: None)
    next(outcomes)
    assert len(script.given) == 2, "two nodes are alive, one task each"
    assert [asked["num_cpus"] for asked in script.asked] == [3, 3]
    places = {asked["scheduling_strategy"].node_id for asked in script.asked}
    assert len(places) == 2
    outcomes.close()
    assert len(script.cancelled) == 1


MATRIX = """
title = "two"
datasets = ["digits"]
seeds = [0, 1]
[measure]
samples = 100
latency_s = 0.05
[[models]]
model = "outside_model"
images = 12800
config = { slow_s = 0.03 }
"""


def run(folder: Path, *before: str, more: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests" / "outside_model.py", folder)
    (folder / "two.toml").write_text(MATRIX)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    command = [*before, "run", "two.toml", *more]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


def lines(folder: Path) -> list[Record]:
    shards = sorted((folder / "results" / "two" / "records").glob("*.jsonl"))
    return [Record.from_json(json.loads(line)) for shard in shards for line in shard.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(NO_CLUSTER is not None, reason=f"a cluster of two nodes: {NO_CLUSTER}")
def test_a_node_killed_in_the_middle_loses_no_cell_and_doubles_no_record(tmp_path: Path) -> None:
    script = [*unshared(), sys.executable, str(ROOT / "tests" / "two_nodes.py"), str(tmp_path / "far"), "kill"]
    done = run(tmp_path / "far", *script, more=("--executor", "ray", "--address", ADDRESS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed a node" in done.stdout, "the premise"
    found = lines(tmp_path / "far")
    assert len(found) == len({record.key for record in found}) == 10
    assert all(record.status == "ok" for record in found)
    lost = [record for record in found if record.provenance.get("nodes_lost")]
    assert [(record.cell.model, record.provenance["resumed"]) for record in lost] == [("outside_model", 1)]
    assert run(tmp_path / "near", sys.executable, "-m", "bench").returncode == 0
    same = {record.key: record for record in lines(tmp_path / "near")}
    quality = ("bits_per_dim", "fd[", "precision", "recall")
    for record in found:
        there, here = (
            {m.metric: m.value for m in one.measured if m.metric.startswith(quality)}
            for one in (record, same[record.key])
        )
        assert there == here, record.cell.label()
    left = [path.name for path in (tmp_path / "far" / "results" / "two").rglob(".*")]
    assert left == [".lock"], "nothing half-arrived"
