"""Installs the shared tox environment when it is missing or out of date, behind a lock against parallel runs."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

work_dir = Path(sys.argv[1])
stamp = work_dir / "benchenv" / "installed-for"  # inside the environment: it goes when that goes
inputs = [Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "tox.ini")]
wanted = hashlib.sha256(b"\0".join(inputs)).hexdigest()

work_dir.mkdir(parents=True, exist_ok=True)
with (work_dir / "benchenv.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if stamp.is_file() and stamp.read_text() == wanted:
        sys.exit(0)
    print("installing the shared environment (torch is large: some minutes the first time)", flush=True)
    status = subprocess.call(["tox", "run", "-q", "--workdir", str(work_dir), "-e", "benchenv", "--notest"])
    if status == 0:
        stamp.write_text(wanted)
    sys.exit(status)
