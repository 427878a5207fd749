"""The vision transformer of DINOv2, as the published checkpoints without registers need it.

Oquab et al. 2023, arXiv:2304.07193; Dosovitskiy et al. 2020, arXiv:2010.11929; LayerScale: Touvron et al. 2021,
arXiv:2103.17239; SwiGLU: Shazeer 2020, arXiv:2002.05202. Parameters bear the names of facebookresearch/dinov2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD = 64  # width of an attention head
_OFFSET = 0.1  # added to the number of patches a side, as the published models were evaluated
_EPSILON = 1e-6


@dataclass(frozen=True)
class Shape:
    """The sizes of a network."""

    width: int
    depth: int
    patch: int = 14  # pixels a side
    grid: int = 37  # patches a side for which positions were learnt
    hidden: int = 0  # of the MLP
    swiglu: bool = False

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Shape:
        """The sizes that a state dict tells.

        Raises:
            KeyError: naming what it lacks.
            ValueError: if its sizes are none of such a network.
        """
        width = state["cls_token"].shape[-1]
        swiglu = "blocks.0.mlp.w12.weight" in state
        mlp = state["blocks.0.mlp.w12.weight" if swiglu else "blocks.0.mlp.fc1.weight"]
        positions = state["pos_embed"].shape[1] - 1
        grid = math.isqrt(positions)
        if width % _HEAD or grid * grid != positions:
            raise ValueError(f"width {width}, {positions} positions")
        depth = sum(name.endswith(".norm1.weight") for name in state)
        patch = state["patch_embed.proj.weight"].shape[-1]
        return cls(width, depth, patch, grid, mlp.shape[0] // (2 if swiglu else 1), swiglu)

    def __str__(self) -> str:
        ffn = "SwiGLU" if self.swiglu else "MLP"
        return f"ViT of width {self.width}, depth {self.depth}, patch {self.patch}, {ffn} of {self.hidden}"


class Attention(nn.Module):
    """Self-attention with heads of 64."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        heads = self.qkv(x).view(*x.shape[:2], 3, -1, _HEAD)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, T, 64)
        attended: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        mixed: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return mixed


class SwiGlu(nn.Module):
    """A linear layer gated by a SiLU, and one after it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        mixed: Tensor = self.w3(F.silu(gate) * value)
        return mixed


class Scale(nn.Module):
    """LayerScale: a learnt factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm, scaled and added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.norm1, self.norm2 = nn.LayerNorm(width, _EPSILON), nn.LayerNorm(width, _EPSILON)
        self.attn, self.mlp = Attention(width), (SwiGlu if shape.swiglu else Mlp)(width, shape.hidden)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        mixed: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return mixed


class PatchEmbedding(nn.Module):
    """A linear map of each patch of pixels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, shape.width, shape.patch, shape.patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, patches, width)."""
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)


class Dinov2(nn.Module):
    """The transformer; its output is the class token after the last layer norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.grid, self.patch = shape.grid, shape.patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + shape.grid**2, shape.width))
        self.patch_embed = PatchEmbedding(shape)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, width) of normalised square images (B, 3, S, S), S a multiple of the patch."""
        patches = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        tokens = tokens + self.positions(x.shape[-1] // self.patch)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def positions(self, side: int) -> Tensor:
        """The learnt positions (1, 1 + side^2, width), resampled by a bicubic filter where they are another number."""
        if side == self.grid:
            return self.pos_embed
        learnt = self.pos_embed[:, 1:].view(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        factor = (side + _OFFSET) / self.grid
        resampled = F.interpolate(learnt, scale_factor=(factor, factor), mode="bicubic")
        assert resampled.shape[-2:] == (side, side)
        return torch.cat([self.pos_embed[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)
