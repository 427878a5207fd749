"""The command line run in this process: a tenth of a second instead of three, most of which is importing torch."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from bench import cli


def trilemma_here(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `trilemma ARGUMENTS` does in this folder; an exception that reaches the user reaches the test."""
    out, told = io.StringIO(), io.StringIO()
    variables: Mapping[str, str] = {**os.environ, "COLUMNS": "200", **environment}
    path = list(sys.path)
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(told),
        mock.patch.dict(os.environ, variables),
        mock.patch.object(sys, "argv", ["trilemma", *arguments]),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.path[:] = path
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), told.getvalue())
