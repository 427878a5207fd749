"""The house rules, read from the source: who imports whom, how long files are, what is forbidden."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from baselines import registry

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("bench", "baselines") for path in (ROOT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_baselines_never_imports_bench() -> None:
    assert FILES
    for path in FILES:
        if path.is_relative_to(ROOT / "baselines"):
            assert not [name for name in imports(path) if name.split(".")[0] == "bench"], path


def model_files() -> dict[str, Path]:
    return {name: registry.module_file(registry.load(name)) for name in registry.names()}


def test_a_model_file_imports_no_other_model() -> None:
    files = model_files()
    assert len(files) >= 9
    modules = {name_of(path) for path in files.values()}
    for path in files.values():
        others = modules - {name_of(path)}
        assert not others & set(imports(path)), path


def test_a_model_file_imports_the_contract_shared_parts_and_its_own_family_only() -> None:
    shared = ("contract", "autoregression", "types", "errors", "noise", "nets", "data")
    for path in model_files().values():
        family = path.parent.name
        for name in imports(path):
            if name.startswith("baselines."):
                assert name.split(".")[1] in (*shared, family), (path, name)


NO_TORCH = ["bench.report", "bench.store", "bench.record", "bench.stats", "bench.provenance"]
NO_TORCH += [f"bench.gate.{name}" for name in ("against", "benchmarks", "child", "records", "selftest", "show")]

NO_TORCH += ["bench.compare.telling", "bench.compare.standings"]
NO_TORCH += ["bench.peers.book", "bench.peers.contest", "bench.peers.__main__"]


@pytest.fixture(scope="module")
def without_torch() -> list[str]:
    """The modules that one process could import, one after the other, before torch was there."""
    code = f"import importlib, sys\nfor name in {NO_TORCH}:\n    importlib.import_module(name)\n"
    code += "    print(name) if 'torch' not in sys.modules else sys.exit()"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("module", NO_TORCH)
def test_reading_records_needs_no_torch(module: str, without_torch: list[str]) -> None:
    assert module in without_torch, f"{[*without_torch, None][-1]} is the last without it"


def test_contests_are_listed_without_torch_and_without_any_peer() -> None:
    peers = ("torch", "torch_fidelity", "cleanfid", "torchmetrics", "prdc", "pythae", "zuko", "nflows", "diffusers")
    code = f"import sys; from bench.peers import contest; assert list(contest.entries()); sys.exit(bool(set({peers}) & "
    assert subprocess.run([sys.executable, "-c", f"{code}set(sys.modules)))"], cwd=ROOT).returncode == 0


def test_measuring_speed_imports_no_metric() -> None:
    """Samples and timings are keyed by what `measure` imports: an edit of a metric must not throw them away."""
    for path in (ROOT / "bench" / "measure").rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("bench.metrics")], path


def test_only_the_worker_trains() -> None:
    users = {name_of(path) for path in FILES if "baselines.trainer" in set(imports(path))}
    assert users == {"bench.worker", "bench.gate.workloads", "bench.peers.training"}, "the others time how fast it is"


def test_the_report_reads_records_and_artifacts_only() -> None:
    own = ("bench.report", "bench.record", "bench.store", "bench.stats", "bench.variants", "bench.plain_text")
    allowed = (*own, "bench.peers.book", "baselines.types", "baselines.errors")
    for path in (ROOT / "bench" / "report").rglob("*.py"):
        for name in imports(path):
            if name.split(".")[0] in ("bench", "baselines"):
                assert name.startswith(allowed) or name in ("bench", "baselines", "bench.peers"), (path, name)


def test_the_gate_reads_records_and_runs_processes_only() -> None:
    own = ("bench.gate", "bench.report", "bench.record", "bench.store", "bench.stats", "bench.variants")
    allowed = (*own, "bench.plain_text", "bench.provenance", "baselines.types", "baselines.errors")
    for path in (ROOT / "bench" / "gate").rglob("*.py"):
        for name in imports(path) if path.name != "workloads.py" else ():  # which run in processes of their own
            if name.split(".")[0] in ("bench", "baselines"):
                assert name.startswith(allowed) or name in ("bench", "baselines"), (path, name)


def test_a_comparison_reads_records_only() -> None:
    own = ("bench.compare", "bench.gate", "bench.report", "bench.record", "bench.stats")
    allowed = (*own, "baselines.types", "baselines.errors", "baselines.config")
    for path in (ROOT / "bench" / "compare").rglob("*.py"):
        for name in imports(path):
            if name.split(".")[0] in ("bench", "baselines"):
                assert name.startswith(allowed) or name in ("bench", "baselines"), (path, name)


def test_what_runs_in_a_tree_imports_nothing_of_it_by_itself() -> None:
    """The head's files run beside the base's code: at the top they import the standard library alone."""
    for name in ("child.py", "workloads.py"):
        tree = ast.parse((ROOT / "bench" / "gate" / name).read_text(encoding="utf-8"))
        tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {a.name for n in tops if isinstance(n, ast.Import) for a in n.names}
        found |= {n.module or "" for n in tops if isinstance(n, ast.ImportFrom)}
        assert found
        assert {module.split(".")[0] for module in found} <= sys.stdlib_module_names, name


def test_files_stay_short() -> None:
    long = {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 350}
    assert not long


def test_functions_stay_short() -> None:
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    length = (body[-1].end_lineno or 0) - body[0].lineno + 1
                    assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_nothing_is_unpickled_and_there_is_no_hasattr_on_models() -> None:
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert not called.startswith(("pickle.", "joblib.load")), path
                if called in ("torch.load",):
                    assert keywords.get("weights_only") == "True", path
                if called in ("np.load", "numpy.load"):
                    assert keywords.get("allow_pickle") == "False", path
                if called == "hasattr":
                    assert ast.unparse(node.args[0]) not in ("model", "self.model"), path


def test_every_module_says_what_it_is() -> None:
    for path in FILES:
        assert ast.get_docstring(parsed(path)), path


def test_readme_shows_the_table_of_the_committed_records() -> None:
    from bench.report.readme import BEGIN, END, with_table

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split(BEGIN)[1].split(END)[0]
    assert shown.count("\n|") > 5, "the premise: there is a table"
    assert with_table(text, ROOT / "results" / "reference") == text


def test_the_model_of_the_readme_works() -> None:
    """The file that README shows to newcomers is run as they would run it."""
    import torch

    from baselines import trainer
    from baselines.contract import Draw, Noise
    from baselines.types import ImageShape

    code = (ROOT / "README.md").read_text(encoding="utf-8").split("Add a model in one file")[1]
    code = code.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {"__name__": "readme_model"}
    sys.modules["readme_model"] = type(sys)("readme_model")
    exec(compile(code, "README.md", "exec"), names)
    model = trainer.build(names["MODEL"], ImageShape(1, 3, 3, 4), names["Config"](), 0)  # type: ignore
    with torch.no_grad():
        images = model.sample(5, Draw(), Noise(0))
        nats = model.nats(images, "exact", Noise(0)).total  # type: ignore
    assert images.shape == (5, 1, 3, 3)
    torch.testing.assert_close(nats, torch.full((5,), 9 * torch.log(torch.tensor(4.0)).item()))
    assert len(model.phases()) == 1  # type: ignore
