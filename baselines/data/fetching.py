"""Where the files of published data sets are looked for, how they are verified, and how absent ones are downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from baselines.errors import MissingDataError, UserError

_TIMEOUT_S = 30.0  # without an answer from a server
_CHUNK = 1 << 20


def data_root(data_dir: Path | None) -> Path:
    """The folder that data sets are looked for in: data_dir, or the cache folder where none is named.

    Raises:
        UserError: if data_dir is no folder.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"data folder: expected an existing folder, got {data_dir}; create it or name another")
    return data_dir if data_dir is not None else cache_folder()


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/trilemma, or ~/.cache/trilemma."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trilemma"


def find_together(folders: Sequence[Path], names: Sequence[str], what: str, packed: bool = False) -> dict[str, Path]:
    """The path of each file in the first of `folders` that has any of them; empty if none has.

    what: the data set, for messages. packed: whether NAME.gz does as well, and is preferred, since it has a checksum.

    Raises:
        UserError: if a folder holds only some of the files.
    """
    for folder in folders:
        found: dict[str, Path] = {}
        for name in names:
            for path in ([folder / f"{name}.gz"] if packed else []) + [folder / name]:
                if name not in found and os.path.isfile(path):  # which is False, and no error, where we may not look
                    found[name] = path
        if found and len(found) < len(names):
            lacking = ", ".join(name for name in names if name not in found)
            some = " (or .gz)" if packed else ""
            raise UserError(
                f"{folder}: expected the {len(names)} files of {what}, {lacking}{some} missing; add what is missing"
            )
        if found:
            return found
    return {}


def check_md5(path: Path, expected: str, what: str) -> None:
    """Read a file and compare its MD5, which says that it arrived whole, with the published one.

    Raises:
        UserError: naming the file, if it cannot be read or is another.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if digest.hexdigest() != expected:
        raise UserError(
            f"{path}: wrong checksum: expected MD5 {expected}, got {digest.hexdigest()}. This is not the published "
            f"file of {what}: fetch it again, or, for data of your own, use npz:PATH or folder:PATH"
        )


def download(what: str, root: Path, names: Sequence[str], fetch: Callable[[Path], Path], hint: str = "") -> list[Path]:
    """Fetch files into root/what, whole or not at all.

    Args:
        what: the data set's name, and its folder's below `root`.
        root: the data folder.
        names: of the files.
        fetch: given an empty folder, downloads and verifies the files and returns the folder that holds them; it may
            raise OSError, RuntimeError or HTTPException.
        hint: what else to say where nothing was found.

    Raises:
        MissingDataError: if the files are not to be had, saying where they are expected.
    """
    target = root / what
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix="download-") as scratch:
            print(f"{what}: downloading to {target}", file=sys.stderr)
            # torchvision prints its progress, and stdout may be read by a program
            with contextlib.redirect_stdout(sys.stderr), _socket_timeout(_TIMEOUT_S):
                folder = fetch(Path(scratch))
            for name in names:
                (folder / name).replace(target / name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        files = "the file" if len(names) == 1 else "the files"
        raise MissingDataError(
            f"{what}: not found in {root}, and the download failed ({reason}). Expected {files} {', '.join(names)} in "
            f"{target}: copy {'it' if len(names) == 1 else 'them'} there, or name the folder that holds "
            f"{'it' if len(names) == 1 else 'them'} by --data-dir or TRILEMMA_DATA{hint}"
        ) from None
    return [target / name for name in names]


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """A limit on silence, which torchvision does not set: a firewall that drops packets must not hang the run."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
