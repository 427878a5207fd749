"""Weights of published networks: from a file that the user names, from torch's cache, or by download.

Code in a file is never run: state dicts and safetensors alone are read.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from baselines.errors import UserError


@dataclass(frozen=True)
class Published:
    """A file of weights as its authors published it."""

    network: str  # for messages
    file: str  # its name in torch's cache of checkpoints
    url: str
    sha256: str  # its SHA-256, or the first digits where no more was published
    option: str = "--weights PATH"  # how a user names a file

    def cached(self) -> Path:
        """Where torch.hub, and so torch-fidelity, keeps it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def how(self) -> str:
        """What to do without it."""
        return f"give the file by {self.option}, or put {self.where()}"

    def where(self) -> str:
        """Which file belongs where."""
        return f"{self.file} from {self.url} into torch's cache, {self.cached().parent}"

    def found(self) -> Path:
        """The file in the cache, downloaded if it is not there.

        Raises:
            UserError: if it cannot be downloaded, or what comes has another checksum.
        """
        path = self.cached()
        if path.is_file():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # to a name of its own first: a file under the cached name is a whole one
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                partial = Path(folder) / self.file
                torch.hub.download_url_to_file(self.url, str(partial), self.sha256, progress=False)
                partial.replace(path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.network} weights: not in the cache and not to be downloaded ({error}); {self.how()}"
            ) from None
        return path


def read_state(path: Path, published: Published) -> dict[str, Tensor]:
    """The state dict in a .pth or .safetensors file; code in a pickle is never run.

    Raises:
        UserError: if the file cannot be read or holds something else.
    """
    what, how = f"{published.network} weights", published.how()
    if not path.is_file():
        raise UserError(f"{what}: expected a file, got {path}; {how}")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of junk, the unpickler raises whatever it meets: struct.error, IndexError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # its own text is long, and tells how to run the code
            reason = "it is damaged, or a pickle that would run code"
        raise UserError(f"{what}: {path} is no file of plain tensors ({reason}); {how}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise UserError(f"{what}: expected a state dict in {path}, got {type(state).__name__}; {how}")
    return state


def as_float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, those in half or double precision as float32."""
    return {name: v.float() if v.is_floating_point() else v for name, v in state.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
