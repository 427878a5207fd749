"""Image files in a folder or a zip, decoded batch by batch; nothing of a zip is ever written to the disk."""

from __future__ import annotations

import copy
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from baselines.data import folder
from baselines.data.decoding import SUFFIXES, Look, decode, look, one_size
from baselines.data.splitting import Images
from baselines.errors import UserError
from baselines.types import ImageShape, Progress
from bench.metrics.images import Labels, files_digest

_AHEAD = 2  # batches that are decoded while the network works on an earlier one
_LARGEST = 256 << 20  # bytes of one image file; more is a mistake, or a zip made to fill the memory


@dataclass(frozen=True)
class File:
    """One image file, in a folder or in a zip."""

    path: Path
    entry: str | None = None  # in the zip at `path`

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path) if self.entry is None else f"{self.path}:{self.entry}"

    def read(self) -> bytes:
        """Its content.

        Raises:
            UserError: if it cannot be read.
        """
        if self.entry is not None:
            return _of_zip(self.path, self.entry)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None


class FileImages:
    """Images of one size, in the order of their names; grey if all are, else RGB. Pixels are taken as stored."""

    def __init__(self, files: Sequence[File], name: str, what: str, progress: Progress) -> None:
        if not files:
            raise UserError(f"{name}: expected images ({' '.join(sorted(SUFFIXES))}), found none")
        self.what, self.split = what, name
        self.labels: Labels | None = None
        self.stratified = False
        self.files = files
        digest = files_digest()
        looks: list[Look] = []
        for done, file in enumerate(files, start=1):
            data = file.read()
            digest.update(len(data).to_bytes(8, "little") + data)
            looks.append(look(data, file.name))
            progress(f"checking the {what}", done, len(files))
        width, height = one_size(looks, name)
        self.mode = "L" if all(seen.grey for seen in looks) else "RGB"
        self.shape = ImageShape(1 if self.mode == "L" else 3, height, width)
        self._digest: str = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def content(self) -> str:
        """SHA-256 of the files' bytes in their order, when they were first looked at."""
        return self._digest

    def part(self, first: int, last: int) -> FileImages:
        """These files alone."""
        part = copy.copy(self)
        part.files = self.files[first:last]
        return part

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 (B, C, H, W), decoded by threads ahead of their use."""
        parts = [self.files[start : start + size] for start in range(0, len(self.files), size)]
        threads = min(4, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:

            def begun(part: Sequence[File]) -> list[Future[Images]]:
                share = -(-len(part) // threads)  # handing over a file takes as long as decoding a small one
                return [pool.submit(self._decoded, part[i : i + share]) for i in range(0, len(part), share)]

            waiting = deque(begun(part) for part in parts[:_AHEAD])
            for part in [*parts[_AHEAD:], *([()] * _AHEAD)]:
                if not waiting:
                    return
                batch = np.concatenate([future.result() for future in waiting.popleft()])
                if part:
                    waiting.append(begun(part))
                yield torch.from_numpy(batch)

    def _decoded(self, files: Sequence[File]) -> Images:
        """uint8 (files, C, H, W)."""
        found = np.empty((len(files), *self.shape.chw), np.uint8)
        for i, file in enumerate(files):
            pixels = decode(file.read(), file.name, self.mode)
            if pixels.shape != self.shape.chw:
                expected = self.shape.chw
                raise UserError(f"{file.name}: changed while it was read: expected {expected}, got {pixels.shape}")
            found[i] = pixels
        return found


def in_folder(path: Path, name: str, what: str, progress: Progress) -> FileImages:
    """Every image below a folder, hidden files left out.

    Raises:
        UserError: naming the file that cannot be read, or the two of different size.
    """
    paths, _ = folder.find(path)
    return FileImages([File(found) for found in paths], name, what, progress)


def in_zip(path: Path, name: str, what: str, progress: Progress) -> FileImages:
    """Every image in a zip file; entries are read into memory one by one, whatever their paths say.

    Raises:
        UserError: if the zip or an image in it is damaged, encrypted or too large, or two entries have one name.
    """
    try:
        entries = [entry.filename for entry in _archive(path).infolist() if _is_image(entry)]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{name}: expected a sound zip file ({error})") from None
    for entry, again in pairwise(sorted(entries)):
        if entry == again:  # a zip opens by name, so that one would stand for both
            raise UserError(f"{name}: expected entries of different names, got {entry} twice; write the zip anew")
    return FileImages([File(path, entry) for entry in sorted(entries)], name, what, progress)


def _archive(path: Path) -> zipfile.ZipFile:
    about = path.stat()
    return _opened(path, about.st_mtime_ns, about.st_size)


@lru_cache(4)
def _opened(path: Path, changed_ns: int, size: int) -> zipfile.ZipFile:
    """Kept open, as its directory is long to read; a file that has changed is another."""
    return zipfile.ZipFile(path)


def _is_image(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    hidden = any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in path.parts)
    return not entry.is_dir() and not hidden and path.suffix.lower() in SUFFIXES


def _of_zip(path: Path, name: str) -> bytes:
    try:
        archive = _archive(path)
        entry = archive.getinfo(name)
        if entry.file_size > _LARGEST:
            raise UserError(f"{path}: {name} claims {entry.file_size:,} bytes; at most {_LARGEST:,} are read")
        return archive.read(entry)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # BadZipFile, zlib.error, RuntimeError where it is encrypted: each decoder has its own
        raise UserError(f"{path}: {name} cannot be read ({error})") from None
