"""CLIP, DINOv2 and VGG16: the same numbers as independent implementations, weights that are read and never run."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bench
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics import clip, dinov2, extractors, inception, vgg16
from bench.metrics.base import Subject
from bench.metrics.clip import ClipExtractor, Tower
from bench.metrics.dinov2 import Dinov2Extractor
from bench.metrics.dinov2_net import Dinov2, Shape
from bench.metrics.extractors import NETWORKS, choose_extractor
from bench.metrics.features import of_samples
from bench.metrics.images import Held
from bench.metrics.network import NetworkExtractor, exact_float32
from bench.metrics.vgg16 import Vgg16Extractor
from bench.metrics.weights_file import sha256_of
from tests.pickled_code import Bomb
from tests.published_weights import published_file

RGB = ImageShape(3, 64, 64)
VIT, RESNET = Tower(64, 2, 32, 16, 8), Tower(8, (1, 2, 1, 1), 64, 16)
MLP, SWIGLU = Shape(128, 2, 14, 16, 192), Shape(128, 2, 14, 5, 96, swiglu=True)


def blobs(n: int, seed: int, height: int = 16, width: int = 16, channels: int = 3) -> Tensor:
    """Smooth random images, uint8 (n, channels, height, width)."""
    coarse = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")).to(torch.uint8)


def clip_visual(tower: Tower) -> nn.Module:
    """torch-fidelity's image tower with random weights that its rounding to half precision does not change."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    torch.manual_seed(0)
    net: nn.Module = CLIPVisual(tower.features, tower.side, tower.layers, tower.width, tower.patch)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    return net.eval()


def dino_state(shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    net = Dinov2(shape)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 0.1, generator=generator)
    return {**net.state_dict(), "mask_token": torch.zeros(1, shape.width)}


def tiny_clip(tower: Tower = VIT) -> clip.Variant:
    return replace(clip.VARIANTS[0], tower=tower)


def tiny_dino(shape: Shape = MLP) -> dinov2.Variant:
    return replace(dinov2.VARIANTS[0], shape=shape)


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    torch.save(clip_visual(VIT).state_dict(), tmp_path / "clip.pth")
    return tmp_path / "clip.pth"


@pytest.fixture
def dino_file(tmp_path: Path) -> Path:
    torch.save(dino_state(MLP), tmp_path / "dino.pth")
    return tmp_path / "dino.pth"


@pytest.fixture(params=["clip", "dinov2"])
def opened(request: pytest.FixtureRequest, clip_file: Path, dino_file: Path) -> NetworkExtractor:
    if request.param == "clip":
        return ClipExtractor(tiny_clip(), clip_file)
    return Dinov2Extractor(tiny_dino(), dino_file)


def archived(tower: Tower, path: Path) -> nn.Module:
    """CLIP as OpenAI publish it, a TorchScript archive, with a text tower's projection beside the image tower."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = clip_visual(tower).visual
            self.text_projection = nn.Parameter(torch.zeros(3, tower.features))

        def forward(self, x: Tensor) -> Tensor:
            return self.visual(x)  # type: ignore

    net = Whole().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a trace takes one path, which here is the only one
        torch.jit.trace(net, torch.zeros(2, 3, tower.side, tower.side)).save(str(path))
    return net


T = TypeVar("T", clip.Variant, dinov2.Variant)


def really_published(variants: Iterable[T]) -> list[Any]:
    """Parameters of a `weights` fixture, for tests that take minutes."""
    return [pytest.param(variant, id=f"{variant.name}-published", marks=pytest.mark.slow) for variant in variants]


@pytest.fixture(params=[VIT, RESNET, *really_published(clip.VARIANTS)])
def clip_weights(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[clip.Variant, Path]:
    """Random ones of a tiny network, and the real ones where they lie in torch's cache."""
    if isinstance(request.param, clip.Variant):
        return request.param, published_file(request.param.published)
    path = tmp_path / "openai.pt"
    archived(request.param, path)
    published = replace(clip.VARIANTS[0].published, sha256=sha256_of(path))
    return replace(tiny_clip(request.param), published=published), path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clip_equals_torch_fidelity_on_the_same_archive(clip_weights: tuple[clip.Variant, Path]) -> None:
    from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

    (variant, path), images = clip_weights, blobs(5, 1, 40, 24)
    ours = ClipExtractor(variant, path).extract(images, 256)
    name = {"clip": "clip-vit-b-32"}.get(variant.name, variant.name)
    (theirs,) = FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(path))(images)
    assert ours.values.std(0).mean() > 1e-3  # the premise: the features are alive
    assert ours.values.shape == (5, variant.tower.features)
    assert ours.logits is None
    np.testing.assert_allclose(ours.values, theirs.double().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_archive_that_is_not_the_published_one_is_not_opened_and_can_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.pt"
    archived(VIT, path)
    load = torch.jit.load
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(UserError, match=r"TorchScript.*state_dict\(\)") as error:
            ClipExtractor(tiny_clip(), path)
    assert str(path) in str(error.value)
    torch.save(load(path, map_location="cpu").state_dict(), tmp_path / "clip.pth")
    assert ClipExtractor(tiny_clip(), tmp_path / "clip.pth").extract(blobs(2, 0), 256).values.shape == (2, 16)


def test_clip_needs_the_image_tower_alone(clip_file: Path, tmp_path: Path) -> None:
    state = torch.load(clip_file, weights_only=True)
    torch.save(
        {**state, "ln_final.weight": torch.zeros(2), "text_projection": torch.zeros(2, 16)}, tmp_path / "all.pth"
    )
    found = [ClipExtractor(tiny_clip(), path).extract(blobs(2, 0), 256) for path in (clip_file, tmp_path / "all.pth")]
    np.testing.assert_array_equal(found[0].values, found[1].values)


def reference_block(state: dict[str, Tensor], i: int, shape: Shape) -> Callable[[Tensor], Tensor]:
    """A pre-norm layer of torch's own, the scales folded into the weights; with SwiGLU its MLP is written out."""
    part = {k.removeprefix(f"blocks.{i}."): v.double() for k, v in state.items() if k.startswith(f"blocks.{i}.")}
    layer = nn.TransformerEncoderLayer(
        shape.width, shape.width // 64, shape.hidden, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    ).double()
    first, second = part["ls1.gamma"], part["ls2.gamma"]
    own = {
        "self_attn.in_proj_weight": part["attn.qkv.weight"],
        "self_attn.in_proj_bias": part["attn.qkv.bias"],
        "self_attn.out_proj.weight": first[:, None] * part["attn.proj.weight"],
        "self_attn.out_proj.bias": first * part["attn.proj.bias"],
        **{f"norm{n}.{kind}": part[f"norm{n}.{kind}"] for n in (1, 2) for kind in ("weight", "bias")},
    }
    if shape.swiglu:
        nothing = {
            f"linear{n}.{kind}": getattr(getattr(layer, f"linear{n}"), kind) * 0
            for n in (1, 2)
            for kind in ("weight", "bias")
        }
        layer.load_state_dict({**own, **nothing})

        def gated(x: Tensor) -> Tensor:
            x = layer(x)  # attention alone
            y = layer.norm2(x) @ part["mlp.w12.weight"].T + part["mlp.w12.bias"]
            gate, value = y[..., : shape.hidden], y[..., shape.hidden :]
            out = (gate / (1 + (-gate).exp()) * value) @ part["mlp.w3.weight"].T + part["mlp.w3.bias"]
            return x + second * out

        return gated
    mlp = {
        "linear1.weight": part["mlp.fc1.weight"],
        "linear1.bias": part["mlp.fc1.bias"],
        "linear2.weight": second[:, None] * part["mlp.fc2.weight"],
        "linear2.bias": second * part["mlp.fc2.bias"],
    }
    layer.load_state_dict({**own, **mlp})
    return layer.eval()


def cubic(distance: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keys' kernel with a = -0.75."""
    x, a = np.abs(distance), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resampling(old: int, new: int) -> np.ndarray[Any, Any]:
    """The matrix (new, old) of a bicubic filter whose step is old / (new + 0.1), edges repeated."""
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / (new + 0.1) - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, min(max(tap, 0), old - 1)] += cubic(np.array(centre - tap))
    return matrix


@pytest.fixture(params=[MLP, SWIGLU, *really_published(dinov2.VARIANTS)])
def dino_weights(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dinov2.Variant, Path]:
    """Random ones of a tiny network, and the real ones where they lie in torch's cache."""
    if isinstance(request.param, dinov2.Variant):
        return request.param, published_file(request.param.published)
    torch.save(dino_state(request.param), tmp_path / "dino.pth")
    return tiny_dino(request.param), tmp_path / "dino.pth"


def test_dinov2_equals_torchs_own_transformer_layers_with_the_same_weights(
    dino_weights: tuple[dinov2.Variant, Path],
) -> None:
    variant, path = dino_weights
    state, shape = torch.load(path, weights_only=True), variant.shape
    images = blobs(3, 1, 224, 224)  # the size of its input, so that no resize is needed
    ours = Dinov2Extractor(variant, path).extract(images, 256).values
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = ((images.double() / 255 - mean) / deviation).unfold(2, 14, 14).unfold(3, 14, 14)  # (B, 3, 16, 16, 14, 14)
    patches = x.permute(0, 2, 3, 1, 4, 5).reshape(3, 256, -1)
    tokens = patches @ state["patch_embed.proj.weight"].double().flatten(1).T + state["patch_embed.proj.bias"].double()
    learnt = state["pos_embed"][0, 1:].double().numpy().reshape(shape.grid, shape.grid, -1)
    move = np.eye(16) if shape.grid == 16 else resampling(shape.grid, 16)
    positions = torch.from_numpy(np.einsum("ia,jb,abc->ijc", move, move, learnt).reshape(256, -1))
    first = (state["cls_token"] + state["pos_embed"][:, :1]).double()
    tokens = torch.cat([first.expand(3, -1, -1), tokens + positions], dim=1)
    with torch.no_grad():
        for i in range(shape.depth):
            tokens = reference_block(state, i, shape)(tokens)
        norm = (state["norm.weight"].double(), state["norm.bias"].double())
        expected = nn.functional.layer_norm(tokens[:, 0], (shape.width,), *norm, 1e-6).numpy()
    assert expected.std(0).mean() > 1e-2  # the premise: the images differ
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_dinov2_resizes_as_torch_fidelity_does(dino_file: Path) -> None:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    extractor, images = Dinov2Extractor(tiny_dino(), dino_file), blobs(2, 3, 33, 70)
    theirs = FeatureExtractorDinoV2.__new__(FeatureExtractorDinoV2)  # its constructor runs code of torch.hub
    FeatureExtractorBase.__init__(theirs, "dinov2-vit-s-14", ["dinov2"])
    theirs.feature_extractor_internal_dtype, theirs.model = torch.float32, extractor.net.net
    with torch.no_grad():
        expected = theirs(images)[0].double().numpy()
    np.testing.assert_allclose(extractor.extract(images, 256).values, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["random", pytest.param("published", marks=pytest.mark.slow)])
def vgg_weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Random ones, and the real ones where they lie in torch's cache."""
    from torchvision.models import vgg16 as network

    if request.param == "published":
        return published_file(vgg16.PUBLISHED)
    generator, state = torch.Generator().manual_seed(0), {}
    with torch.device("meta"):
        shapes = network().state_dict()
    for name, value in shapes.items():  # 17 MB of noise, tiled: drawing all 138 million would take seconds
        size = int(np.prod(value.shape))
        noise = torch.randn(min(size, 4_194_301), generator=generator).repeat(-(-size // 4_194_301))[:size]
        fan_in = int(np.prod(value.shape[1:])) or 1
        state[name] = noise.view(value.shape) * (0.01 if value.ndim == 1 else (2 / fan_in) ** 0.5)
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def test_vgg16_equals_torch_fidelity_on_the_same_weights(vgg_weights: Path) -> None:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    images = blobs(2, 1, 30, 50)
    (theirs,) = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(vgg_weights))(images)
    ours = Vgg16Extractor(vgg_weights).extract(images, 256)
    assert ours.values.shape == (2, 4096)
    assert (ours.values >= 0).all()
    assert ours.values.std() > 1e-3
    np.testing.assert_allclose(ours.values, theirs.double().numpy(), rtol=1e-5, atol=1e-6)


def test_grey_is_rgb_and_any_size_and_any_batch_will_do(opened: NetworkExtractor) -> None:
    grey = blobs(3, 2, 20, 20, channels=1)
    alike = [opened.extract(x, 256).values for x in (grey, grey.expand(-1, 3, -1, -1))]
    np.testing.assert_array_equal(*alike)
    halved = opened.extract((grey > 127).to(torch.uint8), 2).values
    np.testing.assert_array_equal(halved, opened.extract(255 * (grey > 127).to(torch.uint8), 256).values)
    for height, width in ((8, 8), (1024, 1024), (9, 200)):
        found = opened.extract(blobs(2, 0, height, width), 256).values
        assert np.isfinite(found).all()
        assert len(found) == 2
        assert found.dtype == np.float64
    many = blobs(60, 5)
    alone = np.concatenate([opened.extract(many[i : i + 1], 256).values for i in (0, 49, 59)])
    np.testing.assert_allclose(opened.extract(many, 256).values[[0, 49, 59]], alone, rtol=1e-4, atol=1e-5)


def test_both_formats_and_half_precision_are_read(dino_file: Path, tmp_path: Path) -> None:
    state = torch.load(dino_file, weights_only=True)
    save_file(state, tmp_path / "same.safetensors")
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "half.pth")
    paths = (dino_file, tmp_path / "same.safetensors", tmp_path / "half.pth")
    first, same, half = (Dinov2Extractor(tiny_dino(), path).extract(blobs(2, 0), 256).values for path in paths)
    np.testing.assert_array_equal(first, same)
    assert 0 < np.abs(first - half).max() < 0.1


def test_the_identity_tells_weights_architecture_and_preprocessing(opened: NetworkExtractor, tmp_path: Path) -> None:
    told = opened.identity()
    assert told["weights_sha256"] == sha256_of(opened.weights)
    assert {"architecture", "resize", "pixels", "dtype", "version"} <= told.keys()
    assert json.loads(json.dumps(told)) == told


def test_other_weights_are_never_answered_from_the_cache(dino_file: Path, tmp_path: Path) -> None:
    torch.save(dino_state(MLP, seed=1), tmp_path / "other.pth")
    images = Held(blobs(2, 0), ImageShape(3, 16, 16), "samples")
    shared: dict[str, Any] = {}
    found = [
        of_samples(Subject(0, generated=images, extractor=Dinov2Extractor(tiny_dino(), path), cache=shared)).values
        for path in (dino_file, tmp_path / "other.pth", dino_file)
    ]
    assert len(shared) == 2
    assert found[0] is found[2]
    assert np.abs(found[0] - found[1]).max() > 0.1


NAMES = sorted(NETWORKS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["missing", "text", "empty", "truncated", "code", "list", "other", "safetensors"])
def test_what_is_no_file_of_its_weights_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind in ("text", "empty", "safetensors"):
        path.write_text("" if kind == "empty" else "weights\n")
    elif kind == "code":
        path.write_bytes(pickle.dumps({"fc.weight": Bomb()}))
    elif kind != "missing":
        torch.save([1, 2] if kind == "list" else {"visual.other": torch.zeros(1000)}, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(UserError, match=r"weights: .*x\.(pth|safetensors).*--weights PATH"):
        choose_extractor("digits", RGB, name, path)


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_and_network_the_wanted_file_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"no network.*--weights PATH.*\.(pth|pt) from https://"):
        choose_extractor("digits", RGB, name)


def test_weights_in_torchs_cache_are_used(dino_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    cached = tiny_dino().published.cached()
    cached.parent.mkdir(parents=True)
    cached.symlink_to(dino_file)
    assert Dinov2Extractor.open(tiny_dino(), None).sha256 == sha256_of(dino_file)


@pytest.mark.parametrize("which", ["clip", "dinov2"])
def test_weights_of_another_size_say_whose_they_are(which: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if which == "clip":
        state = {
            "visual.proj": torch.zeros(1024, 768),
            "visual.conv1.weight": torch.zeros(1024, 3, 14, 14),
            "visual.positional_embedding": torch.zeros(24 * 24 + 1, 1024),
            **{f"visual.transformer.resblocks.{i}.attn.in_proj_weight": torch.zeros(1) for i in range(24)},
        }
    else:
        state = {
            "cls_token": torch.zeros(1, 1, 384),
            "pos_embed": torch.zeros(1, 1370, 384),
            "patch_embed.proj.weight": torch.zeros(384, 3, 14, 14),
            **{f"blocks.{i}.norm1.weight": torch.zeros(384) for i in range(12)},
            "blocks.0.mlp.fc1.weight": torch.zeros(1536, 384),
        }
    torch.save(state, path)
    right = {"clip": "clip-vit-l-14-336px", "dinov2": "dinov2-vit-s-14"}[which]
    with pytest.raises(UserError, match=f"--extractor {right};"):
        choose_extractor("digits", RGB, which, path)
    extractor, _ = choose_extractor("digits", RGB, right, path)
    assert extractor is not None
    with pytest.raises(UserError, match="do not fit the network"):  # the rest of the tensors is missing
        extractor.extract(blobs(1, 0), 256)


def test_networks_with_registers_are_refused(tmp_path: Path) -> None:
    torch.save({**dino_state(MLP), "register_tokens": torch.zeros(1, 4, 128)}, tmp_path / "reg.pth")
    with pytest.raises(UserError, match="register tokens"):
        Dinov2Extractor(tiny_dino(), tmp_path / "reg.pth")


def test_the_published_files_are_those_that_torch_fidelity_takes() -> None:
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchvision.models import VGG16_Weights

    for variant in clip.VARIANTS:
        theirs = {"clip": "clip-vit-b-32"}.get(variant.name, variant.name)
        assert variant.published.url == MODEL_URLS[theirs]
        assert variant.published.file == f"{theirs}-{MODEL_METADATA[theirs]['hash']}.pt"
        assert variant.published.sha256 == MODEL_METADATA[theirs]["hash"]
    assert inception.PUBLISHED.url == URL_INCEPTION_V3
    assert vgg16.PUBLISHED.url == VGG16_Weights.IMAGENET1K_V1.url


def test_scores_bear_the_networks_name_and_fid_stays_inceptions(
    dino_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "dinov2", partial(Dinov2Extractor.open, tiny_dino()))  # type: ignore[arg-type]
    for asked in ("dinov2", "dinov2-vit-l-14"):
        found = bench.evaluate(
            blobs(8, 0), blobs(8, 1), extractor=asked, weights=dino_file, metrics=["fd", "is"], cache=False
        )
        assert [m.metric for m in found.measured] == ["fd[dinov2]"]
        assert "does not classify" in found.skipped["is"]
    assert extractors.names().count("dinov2") == 1


def test_reduced_precision_is_off_inside_and_as_it_was_outside() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with exact_float32():
            assert matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.backends.cudnn.deterministic
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
