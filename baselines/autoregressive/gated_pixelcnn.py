"""Gated PixelCNN: two stacks of gated convolutions, without a blind spot (van den Oord et al. 2016, arXiv:1606.05328).

The vertical stack sees all rows above a pixel, the horizontal stack the pixel's own row to the left and, through a 1x1
convolution, the vertical stack one row up (Fig. 2). Each layer ends in a gate tanh(W_f x) * sigmoid(W_g x) (eq. 2); in
the conditional model each gate also has V^T h of the class h (eq. 4). Departures for small data: residual connections
in the vertical stack too, learned biases for each position, dropout of whole features, SiLU before the logits, averaged
weights. The likelihood of a conditional model is that of the mixture over classes, P(x) = sum_h P(h) P(x | h) with the
training images' class frequencies, exact and unconditional.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregression import Autoregressive, Known
from baselines.autoregressive.canvas import Canvas
from baselines.contract import Batch, Context, Draw, Given, ImageShape, Losses, Model, Noise, Training
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.nets.masked import causal_mask
from baselines.nets.raster import At, Memory, RasterConv2d, Region, rows_in_turn, schedule


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    width: int = 40  # features of each stack; rounded up to an even share for each colour
    layers: int = 5  # gated layers
    first_kernel: int = 7
    kernel: int = 3  # of the later layers
    conditional: bool = False  # learns P(x | class); needs a data set with labels
    classes: int = 10  # of a conditional model
    positions: bool = True  # learned biases for each position, in each layer of the horizontal stack
    dropout: float = 0.2  # of features: after each gate, between the stacks, and before the logits
    lr: float = 1e-2
    warmup: float = 0.05  # fraction of the budget
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1 or self.classes < 1:
            raise UserError(
                "gated_pixelcnn: expected width, layers and classes >= 1, "
                f"got {self.width}, {self.layers} and {self.classes}"
            )
        if self.first_kernel < 3 or not self.first_kernel % 2 or self.kernel < 3 or not self.kernel % 2:
            raise UserError(
                "gated_pixelcnn: expected odd kernels >= 3, so that the stacks meet without a blind spot, "
                f"got first_kernel {self.first_kernel} and kernel {self.kernel}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"gated_pixelcnn: expected dropout in [0, 1), got {self.dropout}")


class GatedPixelCnn(Autoregressive):
    """log P(x) = sum_i log P(x_i | x_<i), or of the mixture of such products over classes."""

    counts: Tensor

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.net = Stacks(shape, config)
        if config.conditional:
            self.register_buffer("counts", torch.zeros(config.classes, dtype=torch.float64))  # of classes in training

    # Density

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """Softmax over the levels; of a conditional model given labels, or of its mixture over classes without.

        log P(x_k | x_<k) = log sum_h P(h | x_<k) P(x_k | x_<k, h), with P(h | x_<k) by Bayes' rule.
        """
        labels = self._labels(given)
        if labels is not None or not self.config.conditional:
            log_p: Tensor = self.net(x, labels).log_softmax(1)
            return log_p
        each = torch.stack([self.log_conditionals(x, self._of_class(h, len(x))) for h in range(self.config.classes)])
        own = each.gather(2, x.long().expand(len(each), *x.shape)[:, :, None])[:, :, 0]
        weights = self._log_joint(own)[0]  # log P(h, x_<k)
        return torch.logsumexp(weights[:, :, None] + each, 0) - torch.logsumexp(weights, 0)[:, None]

    def dimension_nats(self, x: Tensor, given: Given | None = None) -> Tensor:
        """-log P(x_k | those before it) of uint8 x, (B, C, H, W)."""
        if self._labels(given) is not None or not self.config.conditional:
            return super().dimension_nats(x, given)
        classes = range(self.config.classes)
        own = torch.stack([-super(GatedPixelCnn, self).dimension_nats(x, self._of_class(h, len(x))) for h in classes])
        before, after = self._log_joint(own)
        return torch.logsumexp(before, 0) - torch.logsumexp(after, 0)

    def _log_joint(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """log P(h, x_<k) and log P(h, x_<=k), (classes, B, C, H, W), from log P(x_k | x_<k, h)."""
        in_order = own.flatten(2)[:, :, self.order]
        prior = self.log_frequencies.to(own)[:, None, None]
        after = torch.empty_like(in_order)
        after[:, :, self.order] = in_order.cumsum(2) + prior
        after = after.view(own.shape)
        return after - own, after

    @property
    def log_frequencies(self) -> Tensor:
        """log P(h) (classes,): as often as each class was seen in training, each once more than it was."""
        return ((self.counts + 1) / (self.counts + 1).sum()).log()

    def _labels(self, given: Given | None) -> Tensor | None:
        if not self.config.conditional or given is None or given.labels is None:
            return None
        lowest, highest = int(given.labels.min()), int(given.labels.max())
        if lowest < 0 or highest >= self.config.classes:
            raise UserError(
                f"gated_pixelcnn: expected labels 0 .. {self.config.classes - 1} (classes), got {lowest} .. {highest}"
            )
        return given.labels.to(self.counts.device)

    def _of_class(self, label: int, n: int) -> Given:
        return Given(torch.full((n,), label, device=self.counts.device))

    # Training

    def _loss(self, batch: Batch, context: Context) -> Losses:
        if not self.config.conditional:
            return super()._loss(batch, context)
        if batch.labels is None:
            raise UserError("gated_pixelcnn: conditional: expected a data set with labels, got one without")
        given = Given(batch.labels)
        loss = self.dimension_nats(batch.images, given).mean()
        self.counts += torch.bincount(context.share.every(batch.labels), minlength=self.config.classes)
        return Losses(loss)

    # Sampling

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """One uniform number for each dimension; without labels, the classes of a conditional model are drawn first."""
        if self.config.conditional and self._labels(given) is None:
            shares = self.log_frequencies.exp().cumsum(0)
            u = noise.uniform("labels", n, (1,)).double()
            given = Given(torch.searchsorted(shares, u, right=True)[:, 0].clamp(max=self.config.classes - 1))
        return super().sample(n, draw, noise, given)

    @torch.no_grad()
    def draw(self, uniform: Tensor, known: Known | None = None, given: Given | None = None) -> Tensor:
        """One pass of the network in all; for a mixture over classes one of each, weighted by Bayes' rule."""
        labels, (channels, height, width) = self._labels(given), self.shape.chw
        if self.config.conditional and labels is None:
            return self._draw_of_mixture(uniform, known)
        canvas, memory = Canvas(uniform, known), Memory(len(uniform), height, width)
        for region, above in schedule(height, width, self.net.reaches):
            pixels, step = canvas.pixels(region), Step(memory, region, above)
            for colour in range(channels):
                pixels.draw(colour, self.net(pixels.values, labels, step)[:, :, colour])
                step = Step(memory, region, None)  # the rows above are the same for all colours
                self.net.tell(pixels.values, step)
            canvas.keep(region, pixels)
        return canvas.images

    def _draw_of_mixture(self, uniform: Tensor, known: Known | None) -> Tensor:
        n, classes, (channels, height, width) = len(uniform), self.config.classes, self.shape.chw
        canvas, memory = Canvas(uniform, known), Memory(classes * n, height, width)
        labels = torch.arange(classes, device=uniform.device).repeat_interleave(n)
        weights = self.log_frequencies[:, None]  # log P(h, what was drawn), (classes, n)
        for region, above in rows_in_turn(height, width, len(self.net.reaches)):
            pixels, step = canvas.pixels(region), Step(memory, region, above)
            for colour in range(channels):
                logits = self.net(pixels.values.repeat(classes, 1), labels, step)[:, :, colour]
                log_p = logits.log_softmax(1).view(classes, n, -1).double()
                pixels.draw(colour, torch.logsumexp(weights[:, :, None] + log_p, 0))
                own = pixels.values[:, colour].long().expand(classes, n)
                weights = weights + log_p.gather(2, own[:, :, None])[:, :, 0]
                step = Step(memory, region, None)
                self.net.tell(pixels.values.repeat(classes, 1), step)
            canvas.keep(region, pixels)
        return canvas.images


class Step(NamedTuple):
    """One call of the network while images are drawn."""

    memory: Memory
    front: Region  # the pixels to be drawn
    above: tuple[Region, ...] | None  # what each layer of the vertical stack is to add; None if nothing


class Stacks(nn.Module):
    """The logits of P(x_i | x_<i) for every pixel and colour at once."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        colours = shape.channels
        width = -(-config.width // colours) * colours
        self.layers = nn.ModuleList(Layer(k == 0, width, shape, config) for k in range(config.layers))
        head = 3 * width
        self.hidden = RasterConv2d(width, head, mask=_pointwise(width, head, colours))
        self.dropout = nn.Dropout2d(config.dropout)
        self.logits = RasterConv2d(head, colours * shape.levels, mask=_pointwise(head, colours * shape.levels, colours))

    def forward(self, x: Tensor, labels: Tensor | None = None, step: Step | None = None) -> Tensor:
        """uint8 (B, C, H, W) to logits (B, levels, C, H, W); or, from what it was told, (B * pixels, levels, C)."""
        v: Tensor | None = self._scaled(x) if step is None else None
        h: Tensor | None = v
        for k, layer in enumerate(self.layers):
            v, h = layer(v, h, labels, None if step is None else _places(step, k))
        at = None if step is None else At(step.memory, step.front, step.front)
        assert h is not None
        h = F.silu(self.hidden(F.silu(h), at))
        if at is None:
            h = self.dropout(h)
        out = self.logits(h, at)
        return out.view(len(out), self.shape.channels, self.shape.levels, *out.shape[2:]).transpose(1, 2)

    @property
    def reaches(self) -> tuple[int, ...]:
        """How many columns to the right each layer of the vertical stack sees."""
        return tuple(layer.vertical.columns[1] for layer in self._layers)

    @property
    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def tell(self, values: Tensor, step: Step) -> None:
        """The values uint8 (B * pixels, C) of the front, as far as its colours are drawn."""
        x, first = self._scaled(values), self._layers[0]
        step.memory.feed(first.vertical, x, step.front)
        step.memory.feed(first.horizontal, x, step.front)

    def _scaled(self, x: Tensor) -> Tensor:
        return to_signed(x if x.is_floating_point() else x.to(self.hidden.weight.dtype), self.shape.levels)


class Places(NamedTuple):
    """Where the parts of one layer work on their way through an image."""

    vertical: At | None  # None where it has nothing to add
    link: At
    horizontal: At


def _places(step: Step, layer: int) -> Places:
    """Of layer 0, 1, ...; the first one is told the pixels, and fed by no other."""
    memory, here, above = step
    horizontal = At(memory, here if layer else None, here)
    if above is None:
        return Places(None, At(memory, None, here), horizontal)
    vertical = At(memory, above[layer - 1] if layer else None, above[layer])
    return Places(vertical, At(memory, above[layer], here), horizontal)


def _pointwise(into: int, out: int, colours: int) -> Tensor:
    return causal_mask("B", into, out, 1, colours)


class Layer(nn.Module):
    """One gated layer of both stacks (Fig. 2); the first has mask A and no residual connections."""

    def __init__(self, first: bool, width: int, shape: ImageShape, config: Config) -> None:
        super().__init__()
        colours = shape.channels
        into, kernel = (colours, config.first_kernel) if first else (width, config.kernel)
        half = kernel // 2
        self.first = first
        self.vertical = RasterConv2d(into, 2 * width, (-half, 0), (-half, half))
        self.link = RasterConv2d(2 * width, 2 * width, (-1, -1))
        mask = causal_mask("A" if first else "B", into, width, kernel, colours)[:, :, half:, : half + 1]
        places = (shape.height, shape.width) if config.positions else None
        self.horizontal = RasterConv2d(
            into, 2 * width, (0, 0), (-half, 0), mask.repeat(2, 1, 1, 1), positions=places
        )  # the colours' groups in each half of the gate
        with torch.no_grad():  # else a gate would shrink what passes, and the vertical stack fade from layer to layer
            for layer in (self.vertical, self.link, self.horizontal):
                layer.weight.mul_(3)
        self.out = RasterConv2d(width, width, mask=_pointwise(width, width, colours))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classes = nn.Embedding(config.classes, 4 * width) if config.conditional else None  # V of both gates
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=0.1)

    def forward(
        self, v: Tensor | None, h: Tensor | None, labels: Tensor | None, places: Places | None
    ) -> tuple[Tensor | None, Tensor]:
        """Features of the vertical and of the horizontal stack to the next ones."""
        of_class: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.classes is not None:
            assert labels is not None
            of_class = self.classes(labels).chunk(2, 1)
        vertical, link, horizontal = places or (None, None, None)
        above = None
        if places is None or vertical is not None:
            above = self.vertical(v, vertical)
            gated = self._gate(above, of_class[0], places)
            v = gated if self.first else gated + self._at_target(v, vertical)
        if places is None:
            above = self.dropout(above)
        row = self.horizontal(h, horizontal) + self.link(above, link)
        out: Tensor = self.out(self._gate(row, of_class[1], places), horizontal)
        if self.first:
            return v, out
        assert h is not None
        return v, h + out

    def _at_target(self, v: Tensor | None, at: At | None) -> Tensor:
        """The vertical stack's features where this layer answers, which is behind where it is fed."""
        if at is not None:
            return at.memory.fed(self.vertical, at.target)
        assert v is not None
        return v

    def _gate(self, h: Tensor, of_class: Tensor | None, places: Places | None) -> Tensor:
        if of_class is not None:
            images = len(of_class)
            h = (
                (h.view(images, -1, h.shape[1]) + of_class[:, None]).flatten(0, 1)
                if places
                else h + of_class[..., None, None]
            )
        f, g = h.chunk(2, 1)
        gated = f.tanh() * g.sigmoid()
        return gated if places else self.dropout(gated)


MODEL = Model("Gated PixelCNN", "van den Oord et al. 2016, arXiv:1606.05328", Config, GatedPixelCnn)
