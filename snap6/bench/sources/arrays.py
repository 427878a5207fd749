"""Images in .npy and .npz files, read batch by batch without unpickling and without holding them all."""

from __future__ import annotations

import copy
import io
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from baselines.errors import UserError
from baselines.types import ImageShape, Progress
from bench.metrics.images import Labels, pixels_digest

_CHUNK = 500  # images read at a time while they are checked
_SKIPPED = 1 << 20  # bytes
_SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Header:
    """What stands before the numbers of an array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Place:
    """Where the numbers of an array begin; they can be read again and again, from any process."""

    path: Path
    key: str | None = None  # of a .npz file
    raw: bool = False  # bare numbers, with no header

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """A stream that stands at the numbers."""
        if self.key is not None:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.key}.npy") as stream:
                read_header(stream, str(self.path))
                yield stream
            return
        with self.path.open("rb") as file:
            if not self.raw:
                read_header(file, str(self.path))
            yield file


class ArrayImages:
    """One uint8 array (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3, from a stream that can be reopened."""

    def __init__(
        self,
        place: Place,
        header: Header,
        levels: int,
        name: str,
        what: str,
        progress: Progress,
        channels_first: bool = False,
    ) -> None:
        """channels_first: the array is known to be (N, C, H, W); else its shape tells."""
        self.what, self.split = what, name
        self.keeps: object = None  # a temporary file that goes when the images go
        self.labels: Labels | None = None
        self.stratified = False
        self._place = place
        self._row, self.last = _rows(header, name, channels_first)
        channels, height, width = (
            (self._row[2], *self._row[:2]) if self.last else self._row if len(self._row) == 3 else (1, *self._row)
        )
        self.shape = ImageShape(channels, height, width, levels)
        self._first, self._count = 0, header.shape[0]
        digest = pixels_digest(self._count, self.shape)
        done = 0
        for batch in self.batches(_CHUNK):
            highest = int(batch.max())
            if highest >= levels:
                raise UserError(f"{name}: {too_high(highest, levels)}")
            digest.update(batch.contiguous().numpy())
            done += len(batch)
            progress(f"checking the {what}", done, self._count)
        self._digest: str = digest.hexdigest()

    def __len__(self) -> int:
        return self._count

    def content(self) -> str:
        """SHA-256 of all pixels, as of the same images held in memory."""
        return self._digest

    def part(self, first: int, last: int) -> ArrayImages:
        """These images of the same file."""
        part = copy.copy(self)
        part.keeps = None  # the temporary file stays with the whole
        part._first, part._count = self._first + first, min(last, self._count) - first
        return part

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 (B, C, H, W)."""
        row_bytes = math.prod(self._row)
        with self._place.opened() as stream:
            _skip(stream, self._first * row_bytes, self.split)
            for start in range(0, self._count, size):
                n = min(size, self._count - start)
                data = _read(stream, n * row_bytes, self.split)
                rows = np.frombuffer(bytearray(data), np.uint8).reshape(n, *self._row)
                if self.last:
                    rows = rows.transpose(0, 3, 1, 2)
                elif rows.ndim == 3:
                    rows = rows[:, None]
                yield torch.from_numpy(np.ascontiguousarray(rows))


def too_high(highest: int, levels: int) -> str:
    """What to tell of a pixel beyond the levels."""
    hint = "; name another number of levels (--levels 256) if they have more" if levels < 256 else ""
    return f"expected values 0 .. {levels - 1} for {levels} levels, got {highest}{hint}"


def _rows(header: Header, name: str, channels_first: bool) -> tuple[tuple[int, ...], bool]:
    """The shape of one image as stored, and whether its channels come last."""
    shape = header.shape
    if header.dtype != np.uint8:
        raise UserError(
            f"{name}: expected uint8 pixels, got {header.dtype}; scale and convert them, such as "
            "(255 * x).round().astype('uint8')"
        )
    if header.fortran:
        raise UserError(f"{name}: expected an array in C order; save np.ascontiguousarray(x)")
    if len(shape) not in (3, 4) or 0 in shape:
        raise UserError(f"{name}: expected (N, H, W), (N, H, W, C) or (N, C, H, W) with one image or more, got {shape}")
    if channels_first:
        return shape[1:], False
    if len(shape) == 4 and (shape[1] in (1, 3)) == (shape[3] in (1, 3)):
        raise UserError(f"{name}: expected 1 or 3 channels at one end, (N, H, W, C) or (N, C, H, W), got {shape}")
    return shape[1:], len(shape) == 4 and shape[1] not in (1, 3)


def _skip(stream: IO[bytes], size: int, name: str) -> None:
    """Go forward; what is compressed can only be read past."""
    if not isinstance(stream, zipfile.ZipExtFile):
        stream.seek(size, io.SEEK_CUR)
        return
    for start in range(0, size, _SKIPPED):
        _read(stream, min(_SKIPPED, size - start), name)


def _read(stream: IO[bytes], size: int, name: str) -> bytes:
    try:
        data = stream.read(size)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{name}: damaged ({error})") from None
    if len(data) != size:
        raise UserError(f"{name}: cut short: expected {size} more bytes, got {len(data)}")
    return data


def read_header(stream: IO[bytes], name: str) -> Header:
    """The header of a .npy stream, which then stands at the numbers.

    Raises:
        UserError: if it is none, or the array holds pickled objects.
    """
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError, TokenError) as error:
        raise UserError(f"{name}: expected a sound .npy array ({error})") from None
    if dtype.hasobject:
        raise UserError(
            f"{name}: expected plain numbers, got pickled objects, which are refused: they can run any code"
        )
    return Header(shape, fortran, dtype)


def members(path: Path, name: str) -> dict[str, Header]:
    """The arrays of a .npz file and their headers.

    Raises:
        UserError: if it is damaged or no .npz file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.namelist() if entry.endswith(".npy")]
            found = {}
            for entry in entries:
                with archive.open(entry) as stream:
                    found[entry.removesuffix(".npy")] = read_header(stream, f"{name}: {entry}")
            return found
    except UserError:
        raise
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: encrypted, or a compression unknown
        raise UserError(f"{name}: expected a sound .npz file ({error})") from None


def in_npy(path: Path, name: str, what: str, levels: int, progress: Progress) -> ArrayImages:
    """The array of a .npy file."""
    with path.open("rb") as stream:
        header = read_header(stream, name)
    return ArrayImages(Place(path), header, levels, name, what, progress)


def in_npz(path: Path, name: str, what: str, levels: int, progress: Progress) -> ArrayImages:
    """The array of a .npz file called images, else its test split, else its only array of pixels.

    levels: where the file has no scalar `levels`.
    """
    found = members(path, name)
    levels = _levels(path, found, name) if "levels" in found else levels
    pixels = [key for key, header in found.items() if len(header.shape) in (3, 4)]
    named = [key for key in ("images", *_SPLITS) if key in pixels]
    if not named and len(pixels) != 1:
        told = ", ".join(f"{key} {header.shape}" for key, header in found.items()) or "nothing"
        raise UserError(f"{name}: expected one array of images, or one called images, got {told}")
    key = named[0] if named else pixels[0]
    where = f"{name}:{key}"
    return ArrayImages(Place(path, key), found[key], levels, where, what, progress)


def _levels(path: Path, found: dict[str, Header], name: str) -> int:
    header = found["levels"]
    if header.shape != () or header.dtype.kind not in "iu":
        raise UserError(f"{name}: levels: expected one integer from 2 to 256, got {header.dtype} {header.shape}")
    with Place(path, "levels").opened() as stream:
        value = int(np.frombuffer(_read(stream, header.dtype.itemsize, name), header.dtype)[0])
    if not 2 <= value <= 256:
        raise UserError(f"{name}: levels: expected one integer from 2 to 256, got {value}")
    return value


def spooled(batches: Iterable[Tensor], levels: int, name: str, what: str, progress: Progress) -> ArrayImages:
    """What a generator yields, kept in a temporary file, since every metric looks at the images again.

    Args:
        batches: uint8 (B, C, H, W) or single images (C, H, W), all of one shape.
        levels: how many levels a pixel has.
        name: for the protocol.
        what: for messages.
        progress: told (phase, images done, at least so many).

    Raises:
        UserError: if what comes is no uint8 image of one shape, or nothing comes.
    """
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - lives as long as the images
    shape: tuple[int, ...] | None = None
    count = 0
    for batch in batches:
        images = batch[None] if isinstance(batch, Tensor) and batch.ndim == 3 else batch
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise UserError(f"{name}: expected uint8 tensors (B, C, H, W), got {got}")
        if shape is not None and images.shape[1:] != shape:
            raise UserError(f"{name}: expected images of one shape, got {tuple(shape)} and {tuple(images.shape[1:])}")
        shape = tuple(images.shape[1:])
        file.write(images.detach().cpu().contiguous().numpy().tobytes())
        count += len(images)
        progress(f"taking the {what}", count, count)
    file.flush()
    if shape is None or count == 0:
        raise UserError(f"{name}: expected images, got none")

    header = Header((count, *shape), False, np.dtype(np.uint8))
    found = ArrayImages(Place(Path(file.name), raw=True), header, levels, name, what, progress, channels_first=True)
    found.keeps = file
    return found
