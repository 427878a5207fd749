"""A strict reader of IDX files, gzipped or plain (format: LeCun, Cortes and Burges, the MNIST database page)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baselines.errors import UserError

_TYPES = {
    0x08: "uint8",
    0x09: "int8",
    0x0B: "int16",
    0x0C: "int32",
    0x0D: "float32",
    0x0E: "float64",
}
_REMEDY = "copy or download the file again"


def read_content(path: Path) -> bytes:
    """The bytes of a file, decompressed if it begins as gzip does, whatever its name.

    Raises:
        UserError: naming the file, if it cannot be read or its gzip stream is cut short or damaged.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except EOFError:
        raise UserError(f"{path}: expected a whole gzip file, got one that is cut short; {_REMEDY}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: expected a sound gzip file, got a damaged one ({error}); {_REMEDY}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def parse(content: bytes, dimensions: int, where: str | Path) -> NDArray[np.uint8]:
    """The array in a decompressed IDX file of unsigned bytes.

    content: two zero bytes, the type, the number of dimensions, each size as a big-endian 32-bit integer, the
    values in C order. dimensions: how many are expected. where: the file, for messages.

    Raises:
        UserError: if magic, type, number of dimensions or length are not as expected.
    """
    if len(content) < 4 or content[:2] != b"\x00\x00" or content[2] not in _TYPES:
        raise UserError(
            f"{where}: expected an IDX file, whose first bytes are 00 00 08 {dimensions:02x}, "
            f"got {content[:4].hex(' ') or 'an empty file'}; {_REMEDY}"
        )
    if content[2] != 0x08:
        raise UserError(f"{where}: expected IDX values of type uint8, got {_TYPES[content[2]]}; {_REMEDY}")
    if content[3] != dimensions:
        hint = "are images and labels swapped?"
        raise UserError(f"{where}: expected an IDX array of {dimensions} dimensions, got {content[3]}; {hint}")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise UserError(f"{where}: expected a header of {header} bytes, got {len(content)} in all; {_REMEDY}")
    sizes = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).tolist()
    expected = header + math.prod(sizes)
    if len(content) != expected:
        shape = " x ".join(map(str, sizes))
        kind = "a truncated file" if len(content) < expected else "bytes left over"
        raise UserError(
            f"{where}: {kind}: its header says {shape}, so expected {expected} bytes, got {len(content)}; {_REMEDY}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(sizes)
