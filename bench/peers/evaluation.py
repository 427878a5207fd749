"""Evaluation from end to end beside other libraries: two folders of PNG files to FID, KID and IS."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.contest import Agreement, Contender, Contest, Entry, installed

if TYPE_CHECKING:
    from bench.peers.networks import Forms

GROUP = "Evaluation of images"
BATCH = 50
SPLITS = 1  # of IS, where no order of the images matters
COUNT = 1000  # generated, and as many real

Scores = dict[str, float]
_OURS = "trilemma-bench"
_SCALING = "scales pixels by x / 127.5 - 1 where TensorFlow's graph, which the others follow, has (x - 128) / 128"


def compare(allowed: float, expected: str = "") -> Callable[[Scores, Scores], Agreement]:
    """The largest relative difference of the scores that theirs has; of 0.001 where ours is less, as KID may be."""

    def difference(ours: Scores, theirs: Scores) -> Agreement:
        import numpy as np

        # Python's max would pass over a NaN
        found = float(np.max([abs(ours[name] - theirs[name]) / max(abs(ours[name]), 1e-3) for name in theirs]))
        return Agreement("largest relative difference of the scores", found, allowed, expected)

    return difference


def write_images(folder: Path, count: int, size: int, seed: int) -> Path:
    """So many PNG files of smooth random images with a little noise."""
    import torch
    from torchvision.io import write_png

    from bench.peers.inception_weights import blobs

    folder.mkdir(parents=True)
    images = blobs(count, seed, size)
    noise = torch.randint(16, images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    for i, image in enumerate(images // 17 * 16 + noise):
        write_png(image, str(folder / f"{i:05d}.png"))
    return folder


class Tools:
    """Each library's way from two folders to the scores, with one network in its own form of it.

    Args:
        forms: the network.
        generated, real: folders of PNG files.
        alone: FID alone, which all have; else KID and IS as well, where the library has them.
        workers: how many processes of each DataLoader; None leaves each library its own default.
    """

    def __init__(self, forms: Forms, generated: Path, real: Path, alone: bool, workers: int | None) -> None:
        self.forms, self.generated, self.real, self.alone, self.workers = forms, generated, real, alone, workers

    def ours(self) -> Scores:
        """`bench.evaluate`, which gives intervals too."""
        import bench

        metrics = ["fd"] if self.alone else ["fd", "kid", "is"]
        found = bench.evaluate(self.generated, self.real, metrics=metrics, cache=False, **self.forms.ours())
        names = {"fd": "fid", "fid": "fid", "kid": "kid", "is": "is"}
        return {names[m.metric.split("[")[0]]: m.value for m in found.measured}

    def fidelity(self) -> Scores:
        """`calculate_metrics`, by default with four processes that read."""
        from torch_fidelity import calculate_metrics

        found = calculate_metrics(
            input1=str(self.generated),
            input2=str(self.real),
            cuda=False,
            isc=not self.alone,
            fid=True,
            kid=not self.alone,
            isc_splits=SPLITS,
            batch_size=BATCH,
            cache=False,
            verbose=False,
            save_cpu_ram=self.workers == 0,
            **self.forms.fidelity(),
        )
        names = {
            "frechet_inception_distance": "fid",
            "kernel_inception_distance_mean": "kid",
            "inception_score_mean": "is",
        }
        return {name: found[key] for key, name in names.items() if key in found}

    def clean_fid(self) -> Scores:
        """The parts of `compute_fid` and `compute_kid`, so that features are extracted once for both."""
        import torch
        from cleanfid import fid

        network = self.forms.clean_fid()

        def features(folder: Path) -> Any:
            return fid.get_folder_features(
                str(folder),
                network,
                num_workers=12 if self.workers is None else self.workers,
                batch_size=BATCH,
                device=torch.device("cpu"),
                mode="legacy_pytorch",
                custom_fn_resize=_unchanged,
                verbose=False,
            )

        generated, real = features(self.generated), features(self.real)
        scores = {"fid": float(fid.fid_from_feats(generated, real))}
        return scores if self.alone else {**scores, "kid": fid.kernel_distance(real, generated)}

    def pytorch_fid(self) -> Scores:
        """FID alone, and nothing else."""
        from pytorch_fid.fid_score import IMAGE_EXTENSIONS, calculate_activation_statistics, calculate_frechet_distance

        network = self.forms.pytorch_fid()
        workers = min(8, os.cpu_count() or 1) if self.workers is None else self.workers
        moments: list[Any] = []
        for folder in (self.generated, self.real):
            files = sorted(file for ending in IMAGE_EXTENSIONS for file in folder.glob(f"*.{ending}"))
            moments += calculate_activation_statistics(files, network, BATCH, self.forms.dims, "cpu", workers)
        return {"fid": float(calculate_frechet_distance(*moments))}

    def torchmetrics(self) -> Scores:
        """FID and KID with shared features, and IS, which takes another output of the network and so another pass."""
        import torch
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore
        from torchmetrics.image.kid import KernelInceptionDistance
        from torchmetrics.wrappers import FeatureShare

        features, logits = self.forms.torchmetrics()
        chosen = [FrechetInceptionDistance(features)]
        chosen += [] if self.alone else [KernelInceptionDistance(features)]
        shared, score = FeatureShare(chosen), None if self.alone else InceptionScore(logits, splits=SPLITS)
        with torch.no_grad():
            for folder, real in ((self.generated, False), (self.real, True)):
                for batch in _batches(folder):
                    shared.update(batch, real=real)
                    if score is not None and not real:
                        score.update(batch)
            found = shared.compute()
            scores = {"fid": float(found["FrechetInceptionDistance"])}
            if score is None:
                return scores
            return {**scores, "kid": float(found["KernelInceptionDistance"][0]), "is": float(score.compute()[0])}


def _unchanged(image: Any) -> Any:
    """In place of clean-fid's resize: images have the network's size already."""
    return image.astype("float32")


def _batches(folder: Path) -> Iterable[Any]:
    """uint8 (B, 3, H, W): torchmetrics takes tensors, so its users read their files themselves."""
    import torch
    from torchvision.io import read_image

    files = sorted(folder.glob("*.png"))
    for first in range(0, len(files), BATCH):
        yield torch.stack([read_image(str(file)) for file in files[first : first + BATCH]])


def _contest(name: str, tools: Tools, scaled: Collection[str] = (), **given: Any) -> Contest:
    """scaled: whose pixels are scaled in another way."""
    does = "looks at all files before it begins, hashes them for its cache, and takes logits: 0.2 ms an image"
    ours = Contender("trilemma", tools.ours, _OURS, note=f"with an interval or the reason why there is none; {does}")
    peers = [Contender("torch-fidelity", tools.fidelity, "torch-fidelity")]
    if installed("torchmetrics"):
        note = "" if tools.alone else "IS needs a second pass of the network over the samples"
        peers.append(Contender("torchmetrics", tools.torchmetrics, "torchmetrics", note=note))
    if installed("cleanfid"):
        note = "its resize is left out, as the images have the network's size"
        note = note if tools.alone else f"FID and KID: it has no IS; {note}"
        peers.append(Contender("clean-fid", tools.clean_fid, "clean-fid", note=note))
    if installed("pytorch_fid") and tools.alone:
        peers.append(Contender("pytorch-fid", tools.pytorch_fid, "pytorch-fid"))
    agree = {p.name: compare(1e-3, _SCALING if p.name in scaled else "") for p in peers}
    return Contest(name, GROUP, ours, tuple(peers), agree, **given)


SMALL = f"FID, KID and IS of {COUNT:,} PNG files against {COUNT:,}, a small network in Inception's place"
ALONE = f"FID alone of {COUNT:,} PNG files against {COUNT:,}, a small network in Inception's place"
INCEPTION = f"FID, KID and IS of {COUNT:,} PNG files against {COUNT:,}, Inception, all cores, one round"
FORWARD = "Features of Inception, 8 images of 299x299"


def small(name: str, alone: bool, folder: Path) -> Contest:
    """All that is not the network: files, batches, features, scores."""
    from bench.peers import networks

    generated = write_images(folder / "generated", COUNT, networks.SIDE, 1)
    real = write_images(folder / "real", COUNT, networks.SIDE, 0)
    return _contest(name, Tools(networks.small(), generated, real, alone, workers=0), rounds=6)


def whole(folder: Path) -> Contest:
    """The whole evaluation of 2,000 images as people run it: Inception, all cores, each library's own workers."""
    from bench.peers import networks

    generated = write_images(folder / "generated", COUNT, 299, 1)
    real = write_images(folder / "real", COUNT, 299, 0)
    tools = Tools(networks.inception(folder), generated, real, alone=False, workers=None)
    return _contest(INCEPTION, tools, ("clean-fid",), rounds=1, threads=os.cpu_count() or 1, warm=False)


def forward(folder: Path) -> Contest:
    """The network alone: uint8 pixels to pooled features."""
    import torch

    from bench.metrics.inception import InceptionExtractor
    from bench.peers import networks
    from bench.peers.inception_weights import blobs

    images = blobs(8, 1, 299)
    forms = networks.inception(folder)
    extractor = InceptionExtractor(forms.ours()["weights"])
    peers, agree = [], {}
    fidelity = _fidelity_network(forms)
    peers.append(Contender("torch-fidelity", lambda: fidelity(images)[0], "torch-fidelity", note="with logits"))
    if installed("torchmetrics"):
        features, _ = forms.torchmetrics()
        peers.append(Contender("torchmetrics", lambda: features(images), "torchmetrics"))
    if installed("cleanfid"):
        clean = forms.clean_fid()
        peers.append(Contender("clean-fid", lambda: clean(images.float()), "clean-fid", note="mode legacy_pytorch"))
    if installed("pytorch_fid"):
        plain = forms.pytorch_fid()
        peers.append(Contender("pytorch-fid", lambda: plain(images.float() / 255)[0][:, :, 0, 0], "pytorch-fid"))
    for peer in peers:
        scaled = peer.name in ("pytorch-fid", "clean-fid")
        agree[peer.name] = partial(_features_agree, 1e-4, _SCALING if scaled else "")

    def without_gradients(work: Callable[[], Any]) -> Any:
        with torch.no_grad():
            return work()

    held = tuple(Contender(p.name, partial(without_gradients, p.work), p.package, note=p.note) for p in peers)
    ours = Contender("trilemma", lambda: extractor.extract(images, 256).values, _OURS, note="with logits")
    return Contest(FORWARD, GROUP, ours, held, agree, rounds=6)


def _fidelity_network(forms: Forms) -> Callable[[Any], Any]:
    from torch_fidelity.utils import create_feature_extractor

    net: Callable[[Any], Any] = create_feature_extractor(
        "inception-v3-compat", ["2048", "logits_unbiased"], cuda=False, verbose=False, **forms.fidelity()
    )
    return net


def _features_agree(allowed: float, expected: str, ours: Any, theirs: Any) -> Agreement:
    import numpy as np

    found = float(np.abs(ours - np.asarray(theirs)).max() / np.abs(ours).max())
    return Agreement("largest difference over the largest feature", found, allowed, expected)


ENTRIES: tuple[Entry, ...] = (
    Entry(FORWARD, GROUP, forward),
    Entry(ALONE, GROUP, partial(small, ALONE, True)),
    Entry(SMALL, GROUP, partial(small, SMALL, False)),
    Entry(INCEPTION, GROUP, whole, long=True),
)
