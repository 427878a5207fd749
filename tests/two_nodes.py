"""A Ray cluster of two nodes on this machine, for one command: run it inside of `in_a_network_of_its_own`.

Ray rewrites loopback addresses to the host's, so the two nodes have addresses of their own, in a network namespace
where nothing else is; all processes end with its first one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD, OTHER = "10.99.0.1", "10.99.0.2"
ADDRESS = f"{HEAD}:6379"


def why_not() -> str | None:
    """Why there can be no such cluster here."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed"
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    done = subprocess.run([*unshared(), "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"no namespaces here: {done.stderr.strip()}"


def unshared() -> list[str]:
    """The start of a command that is to have a network and processes of its own."""
    return ["unshare", "-Urn", "--pid", "--fork", "--mount-proc", "--kill-child"]


def start(cpus: int = 1) -> subprocess.Popen[bytes]:
    """Start both nodes and wait until they are there; gives the other one, whose processes are all of one session."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (HEAD, OTHER):
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    environment = {
        **os.environ,
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-", dir="/tmp"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    os.environ.update(environment)
    head = _node(cpus, "--head", "--port", "6379", "--include-dashboard", "false", "--node-ip-address", HEAD)
    other = _node(cpus, "--address", ADDRESS, "--node-ip-address", OTHER)
    _wait_for_two(head, other)
    return other


def kill(node: subprocess.Popen[bytes]) -> None:
    """End all processes of a node at once, as a power cut would; Ray gives some of them groups of their own."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == node.pid:
                os.kill(int(entry.name), signal.SIGKILL)
    node.wait()


def _node(cpus: int, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--num-cpus", str(cpus), "--block"]
    command += ["--object-store-memory", str(80_000_000), "--disable-usage-stats"]
    log = open(Path(os.environ["RAY_TMPDIR"]) / f"node-{len(options)}.log", "wb")  # noqa: SIM115
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _wait_for_two(*nodes: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 90
    ask = "import ray; ray.init('auto', logging_level='ERROR'); raise SystemExit(sum(n['Alive'] for n in ray.nodes()))"
    while time.monotonic() < until:
        time.sleep(1)
        assert all(node.poll() is None for node in nodes), Path(os.environ["RAY_TMPDIR"])
        done = subprocess.run(
            [sys.executable, "-c", ask], capture_output=True, env={**os.environ, "RAY_ADDRESS": ADDRESS}
        )
        if done.returncode == 2:
            return
    raise TimeoutError("the two nodes did not come up")


def main(folder: Path, how: str, arguments: list[str]) -> int:
    """Start both nodes, run `trilemma ARGUMENTS` in the folder, and end everything.

    how: `kill` the other node once two trainings have a checkpoint at home, so that it has one of them; or `whole`.
    """
    other = start()
    print("two nodes", flush=True)
    run = subprocess.Popen([sys.executable, "-m", "bench", *arguments], cwd=folder)
    try:
        while how == "kill" and run.poll() is None:
            if len(list(folder.glob("results/*/checkpoints/*/state.json"))) >= 2:
                kill(other)
                print("killed a node", flush=True)
                break
            time.sleep(0.1)
        return run.wait()
    finally:  # the nodes end with this process, the first one of its namespace
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
