"""Installs the shared tox environment once, behind a lock, so that environments run in parallel do not race."""

import fcntl
import subprocess
import sys
from pathlib import Path

work_dir = Path(sys.argv[1])
work_dir.mkdir(parents=True, exist_ok=True)
with (work_dir / "benchenv.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    sys.exit(subprocess.call(["tox", "run", "-q", "--workdir", str(work_dir), "-e", "benchenv", "--notest"]))
