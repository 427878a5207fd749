"""Provenance: the right commit, the right dirt, no secrets, and no torch."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from bench import provenance

ROOT = Path(provenance.__file__).parent.parent


def _git(place: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=place, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout that holds the sources that run here."""
    for package in ("bench", "baselines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_is_gits(checkout):
    assert provenance.commit(checkout) == {"commit": _git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert provenance.commit(checkout / "bench")["dirty"] is False


def test_a_new_source_is_dirt_and_a_new_result_is_not(checkout):
    (checkout / "reports").mkdir()
    (checkout / "reports" / "index.html").write_text("a report")
    assert provenance.commit(checkout)["dirty"] is False
    (checkout / "constraints.txt").write_text("torch==0")
    assert provenance.commit(checkout)["dirty"] is True


def test_other_sources_than_those_that_run_name_no_commit(checkout):
    (checkout / "bench" / "record.py").write_text("SCHEMA = 0")
    _git(checkout, "commit", "-qam", "second")
    found = provenance.commit(checkout)
    assert found["commit"] is None
    assert "differ" in found["commit_reason"]


def test_outside_a_checkout_the_commit_is_none_with_a_reason(tmp_path):
    assert provenance.commit(tmp_path)["commit"] is None
    _git(tmp_path, "init", "-q")  # somebody else's repository around an installed package
    assert "no git checkout" in provenance.commit(tmp_path)["commit_reason"]


def test_a_machine_without_git_has_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit(tmp_path) == {"commit": None, "dirty": None, "commit_reason": "git is missing"}


def test_what_is_collected_is_json_and_true():
    found = json.loads(json.dumps(provenance.collect()))
    assert found["versions"]["numpy"] == version("numpy")
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    age = datetime.now().astimezone() - datetime.fromisoformat(found["time"])
    assert timedelta(seconds=-2) < age < timedelta(minutes=5)
    assert {"commit", "dirty", "device", "cpu", "threads", "platform", "protocol"} <= set(found)


def test_it_tells_neither_host_nor_user_nor_path():
    text = json.dumps(provenance.collect())
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    for secret in (socket.gethostname(), getpass.getuser()):
        assert f'"{secret}"' not in text


def test_it_imports_no_torch():
    code = (
        "import sys; from bench import provenance; found = provenance.collect('cuda');"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "assert found['threads'] is None and found['versions']['torch'], found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_cpu_has_a_name():
    assert len(provenance.cpu_model()) > 2
