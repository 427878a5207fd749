"""Starts programs for another process and says how they ended and how much memory they took; standard library alone.

Linux counts what a process took before it became another program as that program's own peak (`ru_maxrss`), so that a
child of a process with a gigabyte of torch would seem to need a gigabyte. This small one is the parent instead.
A line of JSON on standard input: {"arguments", "folder", "out"}; the answer: [exit status, peak resident bytes].
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def main() -> None:
    """Serve until standard input ends."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB elsewhere
    for line in sys.stdin:
        given = json.loads(line)
        with open(given["out"], "wb") as out:
            process = subprocess.Popen(
                given["arguments"],
                cwd=given["folder"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), unit * usage.ru_maxrss]), flush=True)


if __name__ == "__main__":
    main()
