"""Models of others (a generator, a module with `sample`, a zuko flow, a folder of samples) as models of the suite."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file, save_model
from torch import nn

import bench
from baselines import checkpoint, registry, trainer
from baselines.adapters import factory, samples
from baselines.config import build_config
from baselines.contract import Draw, Noise, Pretrained
from baselines.data.likelihood import from_signed, image_nats
from baselines.errors import DivergedError, UserError
from baselines.types import ImageShape
from bench import store
from bench.measure.workload import capture_calls
from tests.command import trilemma_here

SHAPE = ImageShape(1, 8, 8, 17)
CODE = '''
import torch
from torch import nn

from helper_of_mine import SCALE


class Generator(nn.Module):
    """What torch-fidelity takes: z to uint8 0 .. 255."""

    def __init__(self, size=6, classes=0):
        super().__init__()
        self.net = nn.Linear(size + classes, 64)
        self.classes = classes

    def forward(self, z, label=None):
        if self.classes:
            z = torch.cat([z, nn.functional.one_hot(label, self.classes).to(z.dtype)], 1)
        return (self.net(z).sigmoid() * 255 * SCALE).to(torch.uint8).view(-1, 1, 8, 8)


class Own(nn.Module):
    """Draws by torch's own generator."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 64)

    def sample(self, n):
        return self.net(torch.randn(n, 4)).tanh().view(n, 1, 8, 8)


def make():
    return Generator()


def conditional():
    return Generator(classes=3)


def own():
    return Own()


class Tied(Generator):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, z):
        return super().forward(self.second(self.first(z)))


def tied():
    return Tied()


def scripted():
    return torch.jit.trace(Generator(), torch.zeros(2, 6))


def nothing():
    return "a string"


def broken():
    raise RuntimeError("no such checkpoint")
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's file with functions that make modules, beside a file that it imports."""
    (tmp_path / "helper_of_mine.py").write_text("SCALE = 1.0\n")
    (tmp_path / "made_by_me.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("helper_of_mine", "made_by_me"):  # those of another test
        monkeypatch.delitem(sys.modules, name, raising=False)
    return str(tmp_path / "made_by_me.py")


def open_adapter(name: str, shape: ImageShape = SHAPE, **values: Any) -> Any:
    model = registry.load(f"baselines.adapters.{name}").model
    return trainer.build(model, shape, build_config(model.config, values, name), 0).eval()


def same_in_any_batch(model: Any, draw: Draw) -> None:
    """Image i hangs on its own noise alone, and another seed gives others."""
    with torch.no_grad():
        whole = model.sample(4, draw, Noise(5))
        parts = torch.cat([model.sample(1, draw, Noise(5)), model.sample(3, draw, Noise(5, 1))])
        other = model.sample(4, draw, Noise(6))
    assert whole.dtype == torch.uint8
    assert whole.shape == (4, *model.shape.chw)
    assert int(whole.max()) < model.shape.levels
    assert len(whole.unique()) > 2, "the premise: there is something to see"
    assert int((whole.int() - parts.int()).abs().max()) <= 1
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("z_type", ["normal", "unit", "uniform_0_1"])
def test_a_generator_gets_the_noise_of_torch_fidelity(z_type: str, mine: str) -> None:
    """Moments of its registered sources: standard normal, normal of length 1, uniform in [0, 1)."""
    model = open_adapter("generator", factory=f"{mine}:make", z_size=6, z_type=z_type)
    assert isinstance(model, Pretrained)
    with capture_calls(model) as calls:
        model.sample(4000, Draw(), Noise(3))
    (z,) = calls.args
    assert calls.count == 1
    assert z.shape == (4000, 6)
    mean, variance = {"normal": (0, 1), "unit": (0, 1 / 6), "uniform_0_1": (0.5, 1 / 12)}[z_type]
    assert float(z.mean()) == pytest.approx(mean, abs=0.03)
    assert float(z.var()) == pytest.approx(variance, rel=0.05)
    if z_type == "unit":
        torch.testing.assert_close(z.norm(dim=1), torch.ones(4000))
    same_in_any_batch(model, Draw())


def test_a_conditional_generator_gets_each_label_as_often(mine: str) -> None:
    model = open_adapter("generator", factory=f"{mine}:conditional", z_size=6, num_classes=3)
    with capture_calls(model) as calls:
        model.sample(3000, Draw(), Noise(3))
    labels = calls.args[1]
    assert labels.dtype == torch.int64
    assert (labels.bincount(minlength=3) / 3000).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)
    same_in_any_batch(model, Draw())


def test_images_are_those_of_the_module_itself(mine: str) -> None:
    model = open_adapter("generator", factory=f"{mine}:make", z_size=6)
    whole = model.module(Noise(2).normal("z", 5, (6,)))
    expected = (whole.double() * 16 / 255).round()
    assert torch.equal(model.sample(5, Draw(), Noise(2)).double(), expected)


def test_a_module_with_sample_is_seeded_and_the_users_own_randomness_is_left_alone(mine: str) -> None:
    model = open_adapter("sampler", factory=f"{mine}:own", network="net")
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    with torch.no_grad(), capture_calls(model) as calls:
        first, again = (model.sample(6, Draw(), Noise(1)) for _ in range(2))
        later, other = model.sample(6, Draw(), Noise(1, 6)), model.sample(6, Draw(), Noise(2))
    assert torch.equal(torch.rand(3), expected)
    assert calls.count == 4
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)
    assert int(first.max()) < 17


@pytest.mark.parametrize(("name", "function"), [("generator", "make"), ("sampler", "own")])
def test_weights_come_from_a_safetensors_file_and_are_part_of_the_key(
    name: str, function: str, mine: str, tmp_path: Path
) -> None:
    config = registry.load(f"baselines.adapters.{name}").model.config
    which, file = f"{mine}:{function}", tmp_path / "w.safetensors"
    module = factory.make(which, "", name)
    bare = config(which)
    assert config(which).sha256 == bare.sha256, "weights that the function draws are the same each time"
    state = {key: value + 1 for key, value in module.state_dict().items()}
    save_file(state, file)
    loaded = open_adapter(name, factory=which, weights=str(file), **({"z_size": 6} if name == "generator" else {}))
    assert all(torch.equal(loaded.module.state_dict()[key], value) for key, value in state.items())
    assert config(which, str(file)).sha256 != bare.sha256
    with pytest.raises(UserError, match="it is other than it was"):
        config(which, str(file), sha256=bare.sha256)


def test_tied_weights_survive_a_checkpoint_and_a_file(mine: str, tmp_path: Path) -> None:
    model = open_adapter("generator", factory=f"{mine}:tied", z_size=6)
    checkpoint.save(tmp_path, "model", model.state_dict(), {})
    save_model(model.module, str(tmp_path / "tied.safetensors"))
    loaded = checkpoint.load(tmp_path, "model")
    assert loaded is not None
    again = open_adapter("generator", factory=f"{mine}:tied", z_size=6)
    other = open_adapter("generator", factory=f"{mine}:tied", z_size=6, weights=str(tmp_path / "tied.safetensors"))
    with torch.no_grad():
        again.module.first.weight.zero_()
        again.load_state_dict(loaded[0])
        expected = model.sample(4, Draw(), Noise(1))
        assert torch.equal(again.sample(4, Draw(), Noise(1)), expected)
        assert torch.equal(other.sample(4, Draw(), Noise(1)), expected)
    assert again.module.second.weight is again.module.first.weight


@pytest.mark.filterwarnings("ignore")  # torch wants torch.export in its place
def test_a_torchscript_module_that_a_users_function_makes_is_a_generator(mine: str) -> None:
    model = open_adapter("generator", factory=f"{mine}:scripted", z_size=6)
    plain = open_adapter("generator", factory=f"{mine}:make", z_size=6)
    assert torch.equal(model.sample(3, Draw(), Noise(1)), plain.sample(3, Draw(), Noise(1)))


@pytest.mark.parametrize("file", ["made_by_me.py", "helper_of_mine.py"])
def test_the_source_and_what_it_imports_are_part_of_the_key(file: str, mine: str, tmp_path: Path) -> None:
    before = factory.fingerprint(f"{mine}:make", "", "generator")
    path = tmp_path / file
    path.write_text(path.read_text() + "\nMORE = 1\n")
    assert factory.fingerprint(f"{mine}:make", "", "generator") != before


def test_a_package_is_followed_to_all_of_its_parts_and_nothing_else_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pack_of_mine"
    (package / "nets").mkdir(parents=True)
    for file in ("__init__.py", "nets/__init__.py"):
        (package / file).write_text("")
    (package / "layers.py").write_text("WIDTH = 64\n")
    (package / "more.py").write_text("FROM = 1\n")
    (package / "nets" / "net.py").write_text(
        "from torch import nn\nfrom pack_of_mine.layers import WIDTH\nfrom ..more import FROM\n\n"
        "def make():\n    return nn.Linear(6, WIDTH)\n\ndef later():\n    import xmlrpc.server\n"
    )
    (package / "beside.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xmlrpc", raising=False)

    def key() -> str:
        return factory.fingerprint("pack_of_mine.nets.net:make", "", "generator")

    keys = [key()]
    for file in ("layers.py", "more.py", "nets/net.py"):
        with (package / file).open("a") as stream:
            stream.write("\nMORE = 1\n")
        keys.append(key())
    assert len(set(keys)) == 4
    (package / "beside.py").write_text("MORE = 1\n")
    assert key() == keys[-1], "a file that nothing imports"
    assert "xmlrpc" not in sys.modules


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("", r"generator\.factory: expected module:FUNCTION or file\.py:FUNCTION.* got ''"),
        ("no_such_module_here:make", r"unknown generator\.factory 'no_such_module_here:make'"),
        ("{mine}:absent", "has no absent; write def absent"),
        ("{mine}:nothing", r"to return a torch\.nn\.Module, got str"),
        ("{mine}:broken", r"fails: .*made_by_me\.py:\d+: RuntimeError: no such checkpoint"),
    ],
)
def test_a_function_that_makes_no_module_is_told(which: str, message: str, mine: str) -> None:
    with pytest.raises(UserError, match=message):
        open_adapter("generator", factory=which.replace("{mine}", mine))


def test_weights_that_cannot_be_taken_are_told(mine: str, tmp_path: Path) -> None:
    def opened(file: str) -> None:
        open_adapter("generator", factory=f"{mine}:make", weights=str(tmp_path / file))

    torch.save({"net.weight": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt \(a pickle or TorchScript.* never opened\); write one by safetensors"):
        opened("w.pt")
    with pytest.raises(UserError, match=r"no such file: .*none\.safetensors"):
        opened("none.safetensors")
    for state, message in (
        ({"net.weight": torch.zeros(2)}, "size mismatch for net.weight"),
        ({"net.weight": torch.zeros(64, 6)}, r"Missing key.*net\.bias"),
        ({**factory.make(f"{mine}:make", "", "x").state_dict(), "more": torch.zeros(1)}, "Unexpected key.*more"),
    ):
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=f"does not fit: .*{message}"):
            opened("w.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot read"):
        opened("bad.safetensors")


def test_answers_of_another_size_or_range_are_told(mine: str) -> None:
    wide = open_adapter("generator", ImageShape(3, 8, 8, 256), factory=f"{mine}:make", z_size=6)
    with pytest.raises(UserError, match=r"expected images \(2, 3, 8, 8\).* got \(2, 1, 8, 8\)"):
        wide.sample(2, Draw(), Noise(0))
    signed = open_adapter("generator", factory=f"{mine}:make", z_size=6, pixels="signed")
    with pytest.raises(UserError, match=r"expected real numbers .* got torch\.uint8; uint8 is 'bytes'"):
        signed.sample(2, Draw(), Noise(0))
    levels = open_adapter("generator", factory=f"{mine}:make", z_size=6, pixels="levels")
    with pytest.raises(UserError, match=r"expected levels 0 \.\. 16, got \d+; are they 'bytes'"):
        levels.sample(2, Draw(), Noise(0))
    whole = open_adapter("sampler", factory=f"{mine}:own", pixels="bytes")
    with pytest.raises(UserError, match=r"expected uint8 .* got torch\.float32"):
        whole.sample(2, Draw(), Noise(0))
    size = open_adapter("generator", factory=f"{mine}:make", z_size=7)
    with pytest.raises(UserError, match=r"fails on \(2, 7\) torch\.float32: .*mat1 and mat2"):
        size.sample(2, Draw(), Noise(0))
    with pytest.raises(UserError, match=r"sampler\.factory: expected a module with a method sample\(n\)"):
        open_adapter("sampler", factory=f"{mine}:make")
    with pytest.raises(UserError, match=r"sampler\.network: expected a submodule, got 'ne'; it has net"):
        open_adapter("sampler", factory=f"{mine}:own", network="ne")
    with pytest.raises(UserError, match="takes no steps"):
        open_adapter("sampler", factory=f"{mine}:own").sample(2, Draw(steps=3), Noise(0))


def test_pixels_beyond_the_range_are_clamped_a_little_and_refused_where_most_are() -> None:
    from baselines.adapters.pixels import to_images

    generator = torch.Generator().manual_seed(0)
    y = torch.rand(5, 64, generator=generator) * 2.2 - 1.1
    assert torch.equal(to_images(y, 5, SHAPE, "signed", "x"), from_signed(y.view(5, 1, 8, 8), 17))
    torch.testing.assert_close(to_images((y + 1) / 2, 5, SHAPE, "unit", "x"), to_images(y, 5, SHAPE, "signed", "x"))
    with pytest.raises(UserError, match=r"expected pixels in \[0, 1\] .* got \d+% of them outside"):
        to_images((y + 1.1) * 116, 5, SHAPE, "unit", "x")
    with pytest.raises(DivergedError, match="NaN"):
        to_images(y / 0 * 0, 5, SHAPE, "unit", "x")
    with pytest.raises(UserError, match="expected a tensor of 5 images, got list"):
        to_images([1], 5, SHAPE, "unit", "x")


# zuko


def save_flow(path: Path, features: int = 64) -> nn.Module:
    zuko = pytest.importorskip("zuko", reason="needs zuko: pip install 'trilemma-bench[peers]'")
    torch.manual_seed(1)
    flow: nn.Module = zuko.flows.MAF(features, transforms=2, hidden_features=(16,))
    save_file(flow.state_dict(), path)
    return flow


FLOW = {"flow": "MAF", "transforms": 2, "hidden_features": [16]}


@pytest.mark.parametrize("space", ["unit", "signed", "logit"])
def test_a_zuko_flows_density_is_brought_to_pixels(space: str, tmp_path: Path) -> None:
    """One pixel: p(y) integrates over (0, 1) to what the flow gives to the image of (0, 1), in each space."""
    flow, file = save_flow(tmp_path / "f.safetensors", 1), tmp_path / "f.safetensors"
    shape = ImageShape(1, 1, 1, 2)
    model = open_adapter("zuko_flow", shape, weights=str(file), space=space, alpha=0.01, **FLOW)
    y = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    with torch.no_grad():
        total = float(model.log_density(y.view(-1, 1, 1, 1)).double().exp().mean())
        ends = torch.tensor([0.0, 1.0])
        if space == "logit":
            ends = torch.logit(0.01 + 0.98 * ends)
        elif space == "signed":
            ends = 2 * ends - 1
        z = flow().transform(ends.view(2, 1)).flatten()  # type: ignore[operator]
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    assert total == pytest.approx(float((cdf[1] - cdf[0]).abs()), rel=1e-3)


@pytest.mark.parametrize("space", ["unit", "signed", "logit"])
def test_a_zuko_flow_draws_what_zuko_draws_and_has_bits(space: str, tmp_path: Path) -> None:
    flow, file = save_flow(tmp_path / "f.safetensors"), tmp_path / "f.safetensors"
    model = open_adapter("zuko_flow", weights=str(file), space=space, **FLOW)
    same_in_any_batch(model, Draw())
    torch.manual_seed(0)
    with torch.no_grad():
        mine = model.sample(2000, Draw(), Noise(0)).double()
        theirs = flow().sample((2000,))  # type: ignore[operator]
        theirs = torch.sigmoid(theirs) if space == "logit" else (theirs + 1) / 2 if space == "signed" else theirs
        theirs = (theirs * 17).floor().clamp(0, 16).view(2000, 1, 8, 8).double()
        nats = image_nats(model, mine[:10].to(torch.uint8), "dequantised", Noise(1)).total
    error = (mine.var(0) / 2000 + theirs.var(0) / 2000).sqrt()
    assert float(((mine.mean(0) - theirs.mean(0)) / error).abs().max()) < 4.5
    assert bool(torch.isfinite(nats).all())


def test_what_a_zuko_flow_needs_is_told(mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.safetensors"
    save_flow(file)
    weights = str(file)
    for values, message in (
        ({}, "expected either factory .* or flow .* got neither"),
        ({"factory": f"{mine}:make", "flow": "MAF"}, "got both"),
        ({"flow": "MAF"}, r"zuko_flow\.weights: expected a \.safetensors file .* got none"),
        ({"flow": "MAP", "weights": weights}, "no flow 'MAP' in zuko.flows; did you mean 'MAF'"),
        ({"flow": "MAF", "weights": weights}, "does not fit"),
        ({"flow": "CNF", "weights": weights}, "CNF takes no transforms and hidden_features"),
        ({"factory": f"{mine}:make"}, r"expected a zuko\.flows\.Flow, got Generator"),
        ({**FLOW, "weights": weights, "alpha": 0.7}, r"alpha: expected .* got 0\.7"),
    ):
        with pytest.raises(UserError, match=message):
            open_adapter("zuko_flow", **values)
    (tmp_path / "flow_of_mine.py").write_text("import zuko\n\ndef make():\n    return zuko.flows.MAF(9)\n")
    with pytest.raises(UserError, match=r"expected a flow over 64 features, 1x8x8 pixels .* got \(9,\)"):
        open_adapter("zuko_flow", factory=f"{tmp_path / 'flow_of_mine.py'}:make")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs zuko, .* pip install 'trilemma-bench\[peers\]'"):
        open_adapter("zuko_flow", weights=weights, **FLOW)


# A folder of samples


def save_images(folder: Path, n: int = 12, size: int = 8, mode: str = "L") -> Path:
    folder.mkdir()
    for i in range(n):
        image = Image.new(mode, (size, size), i * 10 if mode == "L" else (i * 10, 0, 255))
        image.save(folder / f"{i}.png")
    return folder


def test_a_folder_shows_each_image_once_in_an_order_of_the_seed(tmp_path: Path) -> None:
    model = open_adapter("samples", folder=str(save_images(tmp_path / "s")))
    shown = torch.cat([model.sample(5, Draw(), Noise(3)), model.sample(7, Draw(), Noise(3, 5))])
    expected = sorted(round(i * 10 * 16 / 255) for i in range(12))
    assert sorted(shown[:, 0, 0, 0].tolist()) == expected
    assert not torch.equal(shown, model.sample(12, Draw(), Noise(4)))
    with pytest.raises(UserError, match=r"has 12 images, and image 13 is asked for; take samples = 12"):
        model.sample(3, Draw(), Noise(3, 10))


def test_a_folder_is_known_by_its_content(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "s")
    before = samples.Config(str(folder)).sha256
    assert samples.Config(str(save_images(tmp_path / "t"))).sha256 == before, "another place, the same content"
    Image.new("L", (8, 8), 77).save(folder / "3.png")
    assert samples.Config(str(folder)).sha256 != before
    with pytest.raises(UserError, match="it is other than it was"):
        samples.Config(str(folder), before)


def test_a_folder_that_cannot_be_shown_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (
        ("", "expected a folder of images, got none"),
        (str(tmp_path / "none"), "no such folder"),
        (str(tmp_path / "empty"), "expected image files in .*, found none"),
        (str(save_images(tmp_path / "big", 2, 9)), r"expected images of 8x8 pixels.* got 9x9"),
        (str(save_images(tmp_path / "rgb", 2, 8, "RGB")), "expected grey images.* got colours"),
    ):
        with pytest.raises(UserError, match=message):
            open_adapter("samples", folder=folder)


# Through the worker


def test_a_matrix_measures_all_of_them_like_any_other(mine: str, tmp_path: Path) -> None:
    save_flow(tmp_path / "f.safetensors")
    folder, name = save_images(tmp_path / "s", 24), "baselines.adapters."
    matrix = tmp_path / "others.toml"
    matrix.write_text(f"""
datasets = ["digits"]
[measure]
samples = 24
batch = 12
latency_s = 0.02
likelihood_images = 2
[[models]]
model = "{name}generator"
config = {{ factory = "{mine}:make", z_size = 6 }}
[[models]]
model = "{name}sampler"
config = {{ factory = "{mine}:own", network = "net" }}
[[models]]
model = "{name}zuko_flow"
config = {{ flow = "MAF", transforms = 2, hidden_features = [16], weights = "{tmp_path}/f.safetensors" }}
[[models]]
model = "{name}samples"
config = {{ folder = "{folder}" }}
""")
    frame = bench.run(str(matrix), results=tmp_path / "results", jobs=1)
    assert not frame.attrs["failed"]
    found = {kind: frame[frame["model"] == name + kind] for kind in ("generator", "sampler", "zuko_flow", "samples")}
    quality = {"precision[digits-cnn]", "coverage[digits-cnn]"}
    for kind, rows in found.items():
        metrics = set(rows["metric"])
        assert quality <= metrics, (kind, metrics)
        assert ("images_per_s" in metrics) == (kind != "samples")
        assert ("host_peak_bytes" in metrics) == (kind != "samples")
        assert "training_s" not in metrics
    assert found["generator"].query("metric == 'nfe'")["value"].tolist() == [1]
    assert "bits_per_dim[dequantised]" in set(found["zuko_flow"]["metric"])
    records = {r.cell.model: r for r in store.load(tmp_path / "results").records if r.cell.draw is not None}
    assert records[f"{name}samples"].skipped["images_per_s"] == "replays data: its speed means nothing"


def test_the_command_of_the_docstring_works(mine: str, tmp_path: Path) -> None:
    key, matrix = "baselines.adapters.generator", tmp_path / "small.toml"
    matrix.write_text("""
datasets = ["digits"]
[measure]
samples = 24
latency_s = 0.02
[[models]]
model = "histogram"
""")
    said = ["--model", key, "--set", f"{key}.factory=made_by_me.py:make", "--set", f"{key}.z_size=6"]
    ran = trilemma_here(tmp_path, "run", "small.toml", *said, "--jobs", "1", PYTHONPATH=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert key in ran.stdout + ran.stderr
