"""Counters against closed forms: a known number of steps, weights and multiply-adds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.contract import Draw
from baselines.errors import UserError
from bench.measure.counters import forward_flops, parameters, work
from bench.measure.workload import capture_calls, observe


@pytest.mark.parametrize("steps", [1, 2, 10, 290, 1000])
@pytest.mark.parametrize("images", [1, 5])
def test_every_step_is_counted_once(bench, steps, images):
    workload = bench.workload(steps=steps)
    _, calls = observe(workload, images)
    assert calls.count == steps
    nfe = work(workload.draw, calls).measurements[0]
    assert (nfe.metric, nfe.value) == ("nfe", steps)
    assert f"{steps} steps requested, {steps} calls" in nfe.note


def test_a_sampler_that_runs_other_steps_than_asked_is_found_out(bench):
    _, calls = observe(bench.workload(steps=31), 1)
    nfe = work(Draw(steps=30), calls).measurements[0]
    assert nfe.value == 31
    assert nfe.note.startswith("30 steps requested, 31 calls")


def test_counting_changes_no_image_and_leaves_no_hook(bench):
    workload = bench.workload(steps=4)
    images, calls = observe(workload, 3)
    assert torch.equal(images, workload.images(3))
    assert calls.count == 4  # the second draw was not counted
    assert not workload.model.net._forward_pre_hooks


def test_the_hook_is_removed_when_a_draw_fails(bench):
    model = bench.workload().model
    with pytest.raises(RuntimeError, match="broken"), capture_calls(model):
        raise RuntimeError("broken")
    assert not model.net._forward_pre_hooks


def test_kept_inputs_are_the_first_calls_even_if_overwritten_later():
    net = nn.Linear(3, 3)
    model = nn.Module()
    model.network, model.net = "net", net
    canvas = torch.arange(6.0).view(2, 3)
    with torch.no_grad(), capture_calls(model) as calls:
        for _ in range(3):
            net(canvas)
            canvas += 1
    assert torch.equal(calls.args[0], torch.arange(6.0).view(2, 3))
    assert calls.count == 3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("NoNetwork", "has no network"), ("ThroughMethod", "'net' was never called as a module")],
)
def test_without_seen_calls_the_counters_are_skipped_with_the_reason(bench, kind, reason):
    workload = bench.workload(kind)
    measured = work(workload.draw, observe(workload, 1)[1])
    assert not measured.measurements
    assert set(measured.skipped) == {"nfe", "flops[forward]", "flops[image]"}
    assert all(reason in text for text in measured.skipped.values())


def test_calls_of_changing_shape_are_counted_but_one_does_not_stand_for_all(bench):
    workload = bench.workload("Growing", steps=6)
    measured = work(workload.draw, observe(workload, 1)[1])
    assert measured.value("nfe") == 6
    assert "change their shape" in measured.skipped["flops[image]"]


def test_an_unknown_network_names_the_submodules_there_are(bench, monkeypatch):
    workload = bench.workload()
    monkeypatch.setattr(type(workload.model), "network", "unet")
    with pytest.raises(UserError, match=r"expected the name of a submodule, got 'unet'; it has net"):
        observe(workload, 1)


def _flops(module: nn.Module, *args: torch.Tensor) -> int:
    model = nn.Module()
    model.network, model.net = "net", module.eval()
    with torch.no_grad(), capture_calls(model) as calls:
        module(*args)
    return forward_flops(calls)


T, D, H = 7, 16, 32
X = torch.randn(1, T, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("module", "args", "multiply_adds"),
    [
        (nn.Linear(5, 11), (torch.zeros(1, 5),), 5 * 11),
        (nn.Linear(5, 11), (torch.zeros(4, 5),), 4 * 5 * 11),
        (nn.Conv2d(3, 8, 3, padding=1), (torch.zeros(1, 3, 10, 12),), 3 * 8 * 9 * 10 * 12),
        (nn.Conv2d(6, 6, 3, groups=6), (torch.zeros(1, 6, 10, 10),), 6 * 9 * 8 * 8),
        (nn.ConvTranspose2d(3, 5, 4, 2, 1), (torch.zeros(1, 3, 8, 8),), 3 * 5 * 16 * 64),
        (nn.LSTM(D, H, batch_first=True), (X,), T * 4 * H * (D + H)),
        (nn.GRU(D, H, batch_first=True), (X,), T * 3 * H * (D + H)),
        (nn.MultiheadAttention(D, 2, batch_first=True), (X, X, X), T * 4 * D * D + 2 * T * T * D),
        (nn.ReLU(), (X,), 0),
    ],
    ids=["linear", "batch", "conv", "depthwise", "transposed", "lstm", "gru", "attention", "element-wise"],
)
def test_flops_are_two_per_multiply_add(module, args, multiply_adds):
    assert _flops(module, *args) == 2 * multiply_adds


def test_counting_flops_leaves_the_backends_as_they_were():
    before = (
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
    )
    _flops(nn.Linear(2, 2), torch.zeros(1, 2))
    assert before == (
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
    )


def test_flops_of_an_image_are_those_of_all_its_calls(bench):
    workload = bench.workload(steps=9)
    measured = work(workload.draw, observe(workload, 1)[1])
    assert measured.value("flops[forward]") == 2 * 16 * 16
    assert measured.value("flops[image]") == 9 * 2 * 16 * 16


def test_parameters_count_frozen_ones_apart_and_shared_ones_once():
    first, second = nn.Linear(3, 4), nn.Linear(4, 4)
    second.bias = first.bias
    second.weight.requires_grad_(False)
    measured = parameters(nn.Sequential(first, second, nn.BatchNorm2d(2, affine=False)))
    assert measured.value("parameters") == 3 * 4 + 4 + 4 * 4
    assert measured.value("parameters[trainable]") == 3 * 4 + 4
    assert {m.scope for m in measured.measurements} == {"train"}
    assert "5 numbers in buffers" in measured.measurements[0].note  # mean, variance (2 each) and the count


def test_the_bare_forward_runs_under_the_precision_of_the_call():
    seen = []

    class Net(nn.Linear):
        def forward(self, x):
            seen.append(super().forward(x).dtype)
            return x

    model = nn.Module()
    model.network, model.net = "net", Net(2, 2)
    with torch.no_grad(), capture_calls(model) as calls, torch.autocast("cpu", torch.bfloat16):
        model.net(torch.zeros(1, 2))
    calls.forward()
    with torch.autocast("cpu", torch.bfloat16):  # nor does the state of the caller leak in
        with capture_calls(model) as plain, torch.autocast("cpu", enabled=False):
            model.net(torch.zeros(1, 2))
        plain.forward()
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
