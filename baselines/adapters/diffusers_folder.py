"""What diffusers' `save_pretrained` writes of a pipeline with a UNet: its files, their hash, its network.

unet/config.json with unet/*.safetensors, and scheduler/scheduler_config.json. Nothing is downloaded or unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from torch import nn

from baselines.contract import ImageShape
from baselines.errors import UserError


def files_of(folder: str, who: str, index: tuple[str, ...] = ()) -> dict[str, Path]:
    """The files of a folder by their path inside it.

    Args:
        folder: that of the pipeline.
        who: the model that asks, for messages.
        index: further files that must be there.

    Raises:
        UserError: for a folder that is none, lacks a file, or has its weights as pickles.
    """
    if not folder:
        raise UserError(f"{who}.folder: expected the folder of a diffusers pipeline, got none")
    root = Path(folder)
    wanted = {name: root / name for name in ("unet/config.json", "scheduler/scheduler_config.json", *index)}
    for name, path in wanted.items():
        if not path.is_file():
            raise UserError(f"{who}.folder: expected {name} in {folder}, as save_pretrained writes it")
    weights = {f"unet/{path.name}": path for path in sorted((root / "unet").glob("*.safetensors"))}
    if not weights:
        pickled = [path.name for path in (root / "unet").iterdir() if path.suffix in (".bin", ".pt", ".ckpt")]
        got = f"got {', '.join(pickled)}, a pickle, which is never opened" if pickled else "got no weights"
        raise UserError(
            f"{who}.folder: expected unet/*.safetensors in {folder}, {got}; save the pipeline again by "
            "save_pretrained(folder, safe_serialization=True)"
        )
    return wanted | weights


def fingerprint(files: dict[str, Path]) -> str:
    """SHA-256 over names and content: the model's content is its data."""
    total = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def read_json(path: Path, who: str) -> dict[str, Any]:
    """A table in a file.

    Raises:
        UserError: if it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{who}.folder: cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{who}.folder: expected a table in {path}, got {type(content).__name__}")
    return content


def network(folder: Path, shape: ImageShape, who: str) -> nn.Module:
    """The network of a folder, in float32 and evaluation mode.

    Raises:
        UserError: where diffusers is not installed, the folder holds another class, or its images are others.
    """
    values = read_json(folder / "config.json", who)
    if values.get("_class_name") != "UNet2DModel":
        raise UserError(f"{folder}: expected a UNet2DModel, got {values.get('_class_name')!r}")
    if values.get("class_embed_type") is not None or values.get("num_class_embeds") is not None:
        raise UserError(f"{folder}: expected an unconditional model, got one with class embeddings")
    size = values.get("sample_size")
    height, width = size if isinstance(size, list) else (size or shape.height, size or shape.width)
    got = values.get("in_channels"), values.get("out_channels"), height, width
    if got != (shape.channels, shape.channels, shape.height, shape.width):
        raise UserError(
            f"{folder}: expected a network of {shape.channels} channels, {shape.height}x{shape.width} pixels, "
            f"as the data set has them; got {got[0]} in, {got[1]} out, {height}x{width}"
        )
    check_installed(who)
    from diffusers import UNet2DModel

    try:
        made, loaded = UNet2DModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: diffusers cannot load it: {' '.join(str(error).split())[:300]}") from None
    wrong = [*loaded["missing_keys"], *loaded["unexpected_keys"], *loaded["mismatched_keys"]]
    if wrong:
        raise UserError(f"{folder}: config and weights do not belong together: {', '.join(map(str, wrong[:3]))}, ...")
    answer: nn.Module = made.float().eval()
    return answer


def check_installed(who: str) -> None:
    """Refuse to go on without diffusers.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise UserError(f"{who}: needs diffusers, which is not installed: pip install 'trilemma-bench[diffusers]'")
