"""Figures that papers published, shown in a table of their own and never beside measured ones."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.tables import Column, Datum, Line, Table

_BITS = (
    ("PixelCNN", 3.14, "van den Oord et al. 2016, arXiv:1601.06759"),
    ("PixelRNN, Row LSTM", 3.07, "van den Oord et al. 2016, arXiv:1601.06759"),
    ("PixelRNN, Diagonal BiLSTM", 3.00, "van den Oord et al. 2016, arXiv:1601.06759"),
    ("Gated PixelCNN", 3.03, "van den Oord et al. 2016, arXiv:1606.05328"),
    ("PixelCNN++", 2.92, "Salimans et al. 2017, arXiv:1701.05517"),
    ("MAF", 4.31, "Papamakarios et al. 2017, arXiv:1705.07057"),
    ("RealNVP", 3.49, "Dinh et al. 2016, arXiv:1605.08803"),
    ("Glow", 3.35, "Kingma & Dhariwal 2018, arXiv:1807.03039"),
    ("IAF-VAE", 3.11, "Kingma et al. 2016, arXiv:1606.04934"),
    ("DDPM, L_simple", 3.75, "Ho et al. 2020, arXiv:2006.11239; an upper bound"),
    ("DDPM, full bound", 3.70, "Ho et al. 2020, arXiv:2006.11239; an upper bound"),
    ("Improved DDPM", 2.94, "Nichol & Dhariwal 2021, arXiv:2102.09672"),
    ("VDM", 2.65, "Kingma et al. 2021, arXiv:2107.00630"),
)
_TRILEMMA = (  # FID, recall, NFE, seconds on a V100
    ("DDGAN", 3.75, 0.57, 4, 0.21),
    ("DDPM", 3.21, 0.57, 1000, 80.5),
    ("DDIM", 4.67, 0.53, 50, 4.01),
    ("SDE VE", 2.20, 0.59, 2000, 423),
    ("SDE VP", 2.41, 0.59, 2000, 422),
    ("LSGM", 2.10, 0.61, 147, 44.5),
    ("NVAE", 23.5, 0.51, 1, 0.36),
    ("StyleGAN2-ADA", 2.92, 0.49, 1, 0.04),
)
_STEPS = (10, 20, 50, 100, 1000)
_DDIM = (
    ("DDIM eta 0", (13.36, 6.84, 4.67, 4.16, 4.04)),
    ("DDIM eta 0.2", (14.04, 7.11, 4.77, 4.25, 4.09)),
    ("DDIM eta 0.5", (16.66, 8.35, 5.25, 4.46, 4.29)),
    ("DDIM eta 1", (41.07, 18.36, 8.01, 5.78, 4.73)),
    ("DDPM, sigma-hat", (367.43, 133.37, 32.72, 9.99, 3.17)),
)
_MNIST = (  # nats
    ("NADE", 88.33, "static binarisation"),
    ("MADE", 86.64, "static binarisation"),
    ("PixelCNN", 81.30, "static binarisation"),
    ("PixelRNN, Diagonal BiLSTM", 79.20, "static binarisation"),
    ("DRAW", 80.97, "static binarisation; an upper bound"),
    ("IAF-VAE", 79.10, "dynamic binarisation: other data than the static one"),
)


def published_tables() -> list[Table]:
    """Four tables: bits/dim, the trilemma, DDIM over steps (all CIFAR-10), nats of binarised MNIST."""
    return [
        _table(
            "published-trilemma",
            "Published: the trilemma, CIFAR-10",
            "FID, recall, NFE and seconds on a V100 GPU as Xiao et al. 2021 (arXiv:2112.07804) report them.",
            ("model", "FID", "recall", "NFE", "seconds"),
            [(name, f"{fid:g}", f"{recall:g}", str(nfe), f"{s:g}") for name, fid, recall, nfe, s in _TRILEMMA],
        ),
        _table(
            "published-ddim",
            "Published: DDIM and DDPM over steps, CIFAR-10",
            "FID by the number of steps, Song et al. 2020 (arXiv:2010.02502). The DDPM paper itself gives FID 3.17 "
            'against train images, 5.24 against test images, IS 9.46. Of time: "DDIMs can produce high quality samples '
            '10x to 50x faster in terms of wall-clock time compared to DDPMs" (Song et al. 2020, abstract).',
            ("sampler", *(f"{s} steps" for s in _STEPS)),
            [(name, *(f"{fid:.2f}" for fid in row)) for name, row in _DDIM],
        ),
        _table(
            "published-bits",
            "Published: bits/dim, CIFAR-10",
            "As the papers give them; those of DDPM are upper bounds, those of flows rest on dequantisation.",
            ("model", "bits/dim", "source"),
            [(name, ("≤ " if "bound" in source else "") + f"{bits:.2f}", source) for name, bits, source in _BITS],
        ),
        _mnist_table("Published: nats, binarised MNIST", _MNIST),
    ]


def published_fid(sampler: str) -> dict[int, float]:
    """FID by the number of steps of one line of the table over steps, such as `DDIM eta 0`."""
    return dict(zip(_STEPS, dict(_DDIM)[sampler], strict=True))


def published_over_steps() -> Table:
    """The table that stands beside one's own draws over steps."""
    return next(table for table in published_tables() if table.name == "published-ddim")


_MNIST_INTRO = "Static and dynamic binarisation are different data sets; thresholding at one half is a third."


def published_likelihoods(dataset: str) -> Table | None:
    """What papers give for the very data set of this name; None where they give nothing."""
    if dataset not in ("mnist-static", "mnist-dynamic"):
        return next(t for t in published_tables() if t.name == "published-bits") if dataset == "cifar10" else None
    binarised = dataset.removeprefix("mnist-")
    rows = [(name, nats, data) for name, nats, data in _MNIST if data.startswith(binarised)]
    return _mnist_table(f"Published: nats, MNIST with {binarised} binarisation", rows)


def _mnist_table(title: str, held: Sequence[tuple[str, float, str]]) -> Table:
    rows = [(name, ("≤ " if "bound" in data else "") + f"{nats:.2f}", data) for name, nats, data in held]
    return _table("published-mnist", title, _MNIST_INTRO, ("model", "nats", "data"), rows)


def _table(name: str, title: str, intro: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    columns = tuple(Column(head, numeric=_is_number(text)) for head, text in zip(heads, rows[0], strict=True))
    lines = tuple(Line(tuple(Datum(text, _sort(text)) for text in row)) for row in rows)
    return Table(name, title, intro, columns, lines)


def _sort(text: str) -> float | str:
    return float(text.removeprefix("≤ ")) if _is_number(text) else text.lower()


def _is_number(text: str) -> bool:
    return text.removeprefix("≤ ").replace(".", "", 1).isdecimal()
