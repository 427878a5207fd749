"""Traps that peers have or had, and the test that ours has none of them; what no other file tests is tested below.

Diffusion
- 31 steps for 30 asked: ermongroup/ddim and latent-diffusion stride by range(0, T, T // S).
  tests/models/test_diffusion_oracle.py::test_every_number_of_steps_is_exactly_that_many_distinct_timesteps
- more network calls than steps are recorded: executed beside requested NFE.
  tests/models/test_ddpm.py::test_executed_network_calls_are_the_steps_asked_for
  tests/measure/test_counters.py::test_a_sampler_that_runs_other_steps_than_asked_is_found_out
- the earlier timestep is t - T // S and not the next of the list.
  tests/models/test_diffusion_samplers.py::test_ddim_is_equation_12_on_any_timesteps
- no quadratic spacing, or another than the paper's: diffusers.
  tests/models/test_diffusion_process.py::test_quadratic_spacing_is_the_papers_where_its_squares_are_distinct
- DDIM that keeps no marginals for some eta.
  tests/models/test_diffusion_oracle.py::test_ddim_keeps_the_marginals_of_the_forward_process
  tests/models/test_diffusion_oracle.py::test_ddim_moments_agree_with_the_recursion_for_every_eta_and_spacing
- sigma-hat's noise in the last step, or with another mean.
  tests/models/test_diffusion_oracle.py::test_sigma_hat_has_the_mean_of_eta_one_and_the_larger_noise
- a jump to x_t that is not what the chain gives step by step.
  tests/models/test_diffusion_oracle.py::test_the_forward_chain_step_by_step_equals_the_jump
- a schedule that does not end in noise.
  tests/models/test_diffusion_oracle.py::test_the_linear_schedule_ends_where_the_paper_says
- no bits/dim of a diffusion model, or one that is no bound: diffusers.
  tests/models/test_ddpm.py::test_the_bound_is_its_definition_by_other_libraries
  tests/models/test_diffusion_oracle.py::test_our_bound_terms_average_to_their_closed_form
  tests/models/test_pf_ode.py::test_of_gaussian_data_it_is_the_closed_form
- a stochastic trace whose error is not told (or that has none, on axis-aligned data).
  tests/models/test_pf_ode.py::test_the_trace_averages_out_and_its_standard_error_covers
- EMA left out: 3.2 becomes 12.
  tests/models/test_ddpm.py::test_averaged_weights_are_what_samples_come_from

Likelihood
- no logit Jacobian, no log2(levels), nats called bits.
  tests/data/test_likelihood.py::test_the_traps_of_scale_give_other_numbers_than_the_closed_form
  tests/data/test_likelihood.py::test_bits_per_dim_divides_by_log_2_and_every_channel
- a discretised logistic whose levels do not sum to one where it is narrow.
  tests/data/test_likelihood.py::test_levels_sum_to_one_in_float32_down_to_log_scale_minus_7
- NaN or infinity dropped from a mean.
  tests/data/test_likelihood.py::test_a_single_nan_or_infinity_fails_the_whole_split
  tests/metrics/test_bits_per_dim.py::test_one_infinite_image_fails_the_cell
- bounds, estimates and exact values ranked together.
  tests/report/test_rows.py::test_likelihoods_of_different_kinds_are_sorted_apart_and_each_kind_has_its_own_best
- a loss that disagrees with the sampler: pytorch-generative.
  tests/models/test_autoregression.py::test_the_sampler_follows_the_density
  tests/models/test_autoregression.py::test_probabilities_of_all_images_sum_to_one
- a later pixel leaks, an allowed one is not seen (blind spot).
  tests/models/test_autoregression.py::test_no_conditional_depends_on_a_later_dimension
  tests/models/test_autoregression.py::test_the_context_that_is_used_is_all_but_a_known_blind_spot
- a cached sampler that draws other images than the naive one.
  tests/models/test_autoregression.py::test_fast_sampling_equals_naive_sampling_bit_for_bit
- batch norm that leaks between images in training mode.
  tests/models/test_autoregression.py::test_training_mode_leaks_nothing_between_images
  tests/models/test_flows.py::test_training_mode_leaks_nothing_between_images
- a flow that is another one after save and load: random orders that are not kept.
  tests/models/test_flows.py::test_a_checkpoint_keeps_the_inverse_the_log_determinants_and_the_density
  tests/models/test_glow.py::test_a_checkpoint_keeps_the_permutations_and_so_the_density
- a log-determinant of the other direction.
  tests/models/test_flows.py::test_decoding_inverts_encoding_and_the_log_determinants_cancel
  tests/models/test_flows.py::test_log_determinants_are_those_of_the_autograd_jacobian
- a likelihood that hangs on the batch.
  tests/models/test_contract.py::test_likelihoods_are_finite_per_image_and_alike_in_any_batch
- a number made up for a model that has none.
  tests/metrics/test_bits_per_dim.py::test_a_model_without_likelihood_gives_the_reason
- a gap to the best model that nobody can know.
  tests/data/test_markov_mesh.py::test_truth_is_the_brute_force_sum
- IWAE bounds in the wrong order.
  tests/models/test_vae.py::test_away_from_it_the_bounds_are_ordered_elbo_then_more_and_more_samples_then_exact

GANs
- a phase that moves the other network too, a gradient that does not reach G.
  tests/models/test_contract.py::test_each_phase_moves_its_own_parameters_only
  tests/models/test_dcgan.py::test_the_gradient_reaches_all_of_the_generator_and_each_loss_its_own_network
- a loss that is off at the optimum.
  tests/models/test_dcgan.py::test_at_equal_distributions_the_best_discriminator_answers_half_and_loses_two_ln_two
  tests/models/test_dcgan.py::test_at_other_distributions_its_loss_is_two_ln_two_less_two_jsd
- batch statistics of the images drawn together.
  tests/models/test_dcgan.py::test_sampling_uses_running_statistics_and_all_levels_are_reachable

Quality
- sqrtm that goes complex, is slow or needs 1e-6 on the diagonal: pytorch-fid, clean-fid.
  tests/metrics/test_frechet.py::test_low_rank_covariances_have_the_distance_of_their_subspace
  tests/metrics/test_frechet.py::test_moments_give_the_same_as_features_even_where_singular
- features with a common offset lose their digits.
  tests/metrics/test_frechet.py::test_a_common_offset_does_not_move_it
  tests/metrics/test_manifold.py::test_offset_and_scale_change_nothing
- small-N bias that is not told: all, but dgm-eval and FID_IS_infinity extrapolate.
  tests/metrics/test_frechet.py::test_extrapolation_takes_the_bias_out_and_its_interval_covers
  tests/test_evaluate.py::test_the_floor_is_made_of_as_many_train_images_or_says_why_not
- bootstrap intervals by percentiles, which never cover; intervals where N is below d.
  tests/metrics/test_frechet.py::test_reflected_intervals_cover_the_truth_where_percentiles_never_do
  tests/metrics/test_frechet.py::test_few_images_get_no_interval_and_the_reason
- KID by random subsets, which adds their noise: torch-fidelity, torchmetrics.
  tests/metrics/test_kernel.py::test_it_is_the_mean_over_all_pairs_of_different_images
- real and generated exchanged by their position.
  tests/metrics/test_frechet.py::test_real_and_generated_cannot_be_swapped_by_position
  tests/metrics/test_manifold.py::test_swapping_the_sets_swaps_precision_and_recall
- duplicates and underflow among distances, a point as its own neighbour.
  tests/metrics/test_manifold.py::test_duplicates_are_neighbours
  tests/metrics/test_manifold.py::test_collapse_of_both_sets_is_decided_without_rounding
  tests/metrics/test_manifold.py::test_equal_distributions_have_the_expected_coverage_and_density_one
- collapse that recall does not show.
  tests/metrics/test_manifold.py::test_collapse_onto_a_real_image_is_precise_and_recalls_nothing_else
- KID by its biased statistic, which is not 0 for equal distributions.
  tests/metrics/test_kernel.py::test_independent_sets_of_one_distribution_average_zero
- NaN in the IS on an unused class; splits that are not stated, though they change it.
  tests/metrics/test_inception_score.py::test_an_unused_class_makes_no_nan
  tests/metrics/test_inception_score.py::test_a_thousand_perfect_classes_score_less_in_ten_splits
- scores without an interval: torch-fidelity, clean-fid, pytorch-fid, torchmetrics.
  tests/test_evaluate.py::test_samples_in_a_file_are_scored_with_interval_floor_and_protocol
- a classifier of the data set whose accuracy nobody tells.
  tests/metrics/test_extractors.py::test_the_digits_classifier_has_its_told_accuracy_on_the_split_it_was_trained_on
- numbers that move with resize, antialiasing or the batch size.
  tests/metrics/test_inception.py::test_features_and_logits_equal_torch_fidelitys
  tests/metrics/test_extractors.py::test_features_do_not_depend_on_the_batch
- FID of other features than Inception's under the name FID.
  tests/metrics/test_feature_metrics.py::test_inception_alone_may_be_called_fid_and_is
- scores against train images where held-out ones are meant (3.21 and 5.27), or a protocol that is not told.
  tests/metrics/test_feature_metrics.py::test_protocols_say_split_numbers_and_extractor
  tests/test_run.py::test_every_number_carries_its_protocol
- an extractor, a selection or early stopping that sees the test split.
  tests/metrics/test_extractors.py::test_training_never_sees_the_test_split
  tests/test_trainer.py::test_the_validation_split_never_meets_an_optimiser
- rows of other protocols compared without a word; seeds that are taken for another protocol.
  tests/gate/test_quality.py::test_other_protocols_are_refused_and_never_compared_silently
  tests/report/test_rows.py::test_a_score_of_another_protocol_is_marked_with_what_differs
  tests/report/test_rows.py::test_seeds_and_the_state_of_the_model_are_never_another_protocol
- a cache that answers for other images or weights.
  tests/metrics/test_feature_metrics.py::test_images_changed_in_place_are_seen_anew
  tests/metrics/test_networks.py::test_other_weights_are_never_answered_from_the_cache
- differences without pairing by seed.
  tests/metrics/test_stats.py::test_pairing_takes_out_what_two_runs_share
- weights that are fetched on every machine, or unpickled.
  tests/metrics/test_inception.py::test_without_weights_and_network_the_error_says_how_to_give_them
  tests/metrics/test_inception.py::test_code_in_a_pickle_is_not_run
- samples that must be files; three channels and 299 pixels only.
  tests/sources/test_sources.py::test_tensors_and_generators_give_theirs
  tests/metrics/test_inception.py::test_grey_levels_become_rgb_bytes

Speed and memory
- a clock that is read before the device is done.
  tests/measure/test_clock.py::test_queued_work_is_waited_for
- the first call, or a first batch that compiles, in the mean.
  tests/measure/test_latency.py::test_the_cold_call_is_reported_apart
  tests/measure/test_throughput.py::test_the_first_batch_warms_up_and_is_not_timed
- a sampler's time without that of its network beside it.
  tests/measure/test_latency.py::test_the_ratio_to_the_limit_is_what_the_sampler_adds
- quality, time and memory in three places.
  tests/measure/test_draw.py::test_every_figure_is_measured_or_has_a_reason
- a p99 of a handful of readings.
  tests/measure/test_latency.py::test_p99_of_few_readings_says_so_and_of_many_does_not
- one direction of a flow timed for both.
  tests/measure/test_throughput.py::test_a_flow_is_timed_in_its_density_direction
- cells that share a process and its warm caches.
  tests/test_executor.py::test_every_job_has_a_process_of_its_own
- a partial last batch that lowers the rate.
  tests/measure/test_throughput.py::test_a_partial_last_batch_does_not_lower_the_rate
- memory by polling RSS, which misses spikes by up to 30 %; a peak that an earlier cell left.
  tests/measure/test_memory.py::test_a_spike_of_200_mb_reads_back_though_it_is_freed
  tests/measure/test_memory.py::test_a_small_spike_is_not_missed_after_a_large_one
- GPU memory as allocated alone; figures that are made up without a GPU.
  tests/measure/test_memory.py::test_the_drivers_figure_is_read_for_this_process_alone
  tests/measure/test_memory.py::test_without_a_gpu_its_columns_say_so
- a tracker with 1,640 samples for 290 steps; another that is off by a hundred.
  tests/measure/test_counters.py::test_every_step_is_counted_once
  tests/measure/test_clock.py::test_a_call_of_known_length_reads_back_exactly
- a multiply-add counted once here and twice there.
  tests/measure/test_counters.py::test_flops_are_two_per_multiply_add
- images that change with the batch size they are drawn in.
  tests/models/test_contract.py::test_samples_are_uint8_levels_and_image_i_does_not_depend_on_the_batch
- a speed without its machine.
  tests/measure/test_latency.py::test_the_protocol_says_where_the_time_was_taken

Runs and gates
- a gate by stored medians, which raises 15 false alarms in 40; a false-alarm rate that is not told.
  tests/gate/test_rule.py::test_unchanged_code_on_a_busy_machine_raises_no_alarm_where_a_median_does
  tests/gate/test_show.py::test_the_self_test_counts_alarms_and_finds_apart
- a crash that costs the whole run; one failing cell that stops the matrix.
  tests/test_run.py::test_a_killed_run_goes_on_where_it_was
  tests/test_run.py::test_a_failing_cell_does_not_stop_the_others
  tests/test_trainer.py::test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit
- cells that are done and are run again.
  tests/test_run.py::test_run_again_finds_every_cell_done
- a changed model under an old name that is not run again.
  tests/test_run.py::test_a_changed_model_is_stale_and_is_run_again_alone
- a page that needs the network.
  tests/report/test_report.py::test_the_page_is_one_file_that_asks_for_nothing_outside
- axes of a triangle by taste.
  tests/report/test_axes.py::test_axes_are_the_formulas_worked_out_by_hand
"""

from __future__ import annotations

import ast
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import bench
from baselines import registry, trainer
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.process import make_process, subsequence
from baselines.diffusion.sampling import SAMPLERS
from baselines.errors import UserError
from baselines.nets.autoregressive_flow import AffineAutoregressive
from baselines.types import ImageShape
from bench.metrics.frechet import frechet_distance

Array = NDArray[np.float64]
TOTAL = 1000
METRICS = ["fd", "kid", "is", "precision", "recall", "density", "coverage"]


def named() -> list[tuple[str, str]]:
    """(file, test) of each line of the table above."""
    return re.findall(r"^  (tests/\S+\.py)::(test_\w+)$", str(__doc__), re.MULTILINE)


def test_the_table_names_tests_that_there_are() -> None:
    root = Path(__file__).parents[1]
    assert len(named()) > 70
    assert len(set(named())) == len(named())
    for file, test in named():
        there = {
            node.name for node in ast.walk(ast.parse((root / file).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert test in there, f"{file} has no {test}"
    claims = [line for line in str(__doc__).splitlines() if line.startswith("- ")]
    assert len(claims) == len(set(claims)) > 50
    assert not re.findall(r"^- .*\n(?!  )", str(__doc__), re.MULTILINE), "each claim has its test below it"


# Timesteps


def ddim_distance(timesteps: Sequence[int], mean: float = 0.6, variance: float = 0.05) -> float:
    """Fréchet distance of DDIM (eta 0) over these timesteps on N(mean, variance), by the exact denoiser in closed form.

    Song et al. 2020, eq. 12, with eps* = sqrt(1 - a) (x - sqrt(a) mu) / C, C = a variance + 1 - a: the mean's error m
    and the variance V go by one gain a step.
    """
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TOTAL, dtype=torch.float64), 0).tolist()
    start = abar[timesteps[-1]]
    off, var = -(start**0.5) * mean, 1.0
    for t, s in zip(reversed(timesteps), [*reversed(timesteps[:-1]), -1], strict=True):
        a, b = abar[t], abar[s] if s >= 0 else 1.0
        gain = ((a * b) ** 0.5 * variance + ((1 - b) * (1 - a)) ** 0.5) / (a * variance + 1 - a)
        off, var = gain * off, gain**2 * var
    return off**2 + (var**0.5 - variance**0.5) ** 2


def test_six_hundred_of_a_thousand_steps_start_at_the_chains_end_and_not_at_599() -> None:
    """diffusers' `leading` steps by T // S = 1, so that x_T is given to the network as x_599."""
    ours, truncated = subsequence(600, TOTAL, "uniform"), list(range(600))
    assert ours[-1] == 998
    assert ddim_distance(subsequence(500, TOTAL, "uniform")) > ddim_distance(ours)
    assert ddim_distance(ours) > ddim_distance(list(range(TOTAL)))
    assert ddim_distance(truncated) > 50 * ddim_distance(ours), "the premise: it would show"


def test_thirty_steps_are_thirty_calls_where_a_stride_makes_thirty_one() -> None:
    """`range(0, T, T // S)` of ermongroup/ddim and latent-diffusion."""
    assert len(range(0, TOTAL, TOTAL // 30)) == 31, "the premise"
    process, called = make_process("linear", TOTAL, 1e-4, 0.02), []

    def eps(x: torch.Tensor, t: float) -> torch.Tensor:
        called.append(t)
        return x

    with torch.no_grad():
        SAMPLERS["ddim"].run(torch.zeros(1, 1, 2, 2), Denoiser(eps, process), Draw("ddim", 30), iter(()))
    assert called == [float(t) for t in reversed(subsequence(30, TOTAL, "uniform"))]
    assert len(called) == 30


@pytest.mark.parametrize("spacing", ["linspace", "leading", "karras"])
def test_a_spacing_of_another_library_is_refused_and_never_taken_for_ours(spacing: str) -> None:
    """Rounded linspace spacing is worse in few steps; who asks for it by name must not get another one unsaid."""
    entry = registry.load("ddpm").model
    with pytest.raises(UserError, match=rf"spacing.*uniform.*{spacing}|spacing.*{spacing}.*uniform"):
        entry.build.check_draw(build_config(entry.config, {}, "ddpm"), Draw("ddim", 10, spacing=spacing))  # type: ignore[attr-defined]
    ten = subsequence(10, TOTAL, "uniform")
    assert ten != [round(t) for t in np.linspace(0, TOTAL - 1, 10)], "the premise: it is another one"


# Metrics, as users call them


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def put(path: Path, features: Array, logits: Array | None = None) -> Path:
    arrays: dict[str, Any] = {"features": features} if logits is None else {"features": features, "logits": logits}
    np.savez(path, **arrays)
    return path


def scores(samples: Path, reference: Path, metrics: Sequence[str] = METRICS) -> dict[str, float]:
    found = bench.evaluate(samples, reference, metrics=list(metrics), cache=False)
    return {m.metric.split("[")[0]: m.value for m in found.measured}


def test_the_inception_score_is_of_the_samples_and_not_of_the_reference(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Both sets have logits; the reference's own IS was printed beside a model's name."""
    x, sure, unsure = rng.normal(size=(120, 4)), 50 * np.eye(6)[np.arange(120) % 6], np.zeros((120, 6))
    better, worse = put(tmp_path / "sure.npz", x, sure), put(tmp_path / "unsure.npz", x + 1, unsure)
    assert scores(better, worse)["is"] == pytest.approx(6, rel=1e-6)
    assert scores(worse, better)["is"] == pytest.approx(1, rel=1e-6)


def test_precision_and_density_are_of_the_samples_recall_and_coverage_of_the_reference(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Samples that collapsed to one of two real clusters are precise and recall half; exchanged it is the other way.

    Peers that take two feature sets by position give the one for the other without a word.
    """
    near = np.array([[0.0] * 5, [50.0] * 5])
    real = rng.normal(size=(200, 5)) + near[np.arange(200) % 2]
    found = scores(put(tmp_path / "one.npz", rng.normal(size=(200, 5))), put(tmp_path / "two.npz", real))
    assert found["precision"] > 0.8
    assert found["recall"] < 0.6
    assert found["density"] > 0.8
    assert found["coverage"] < 0.6
    back = scores(tmp_path / "two.npz", tmp_path / "one.npz")
    assert back["precision"] == found["recall"]
    assert back["recall"] == found["precision"]
    assert back["coverage"] > 0.8


def test_no_score_hangs_on_the_order_of_the_images(tmp_path: Path, rng: np.random.Generator) -> None:
    """Splits and subsets in file order make IS and KID of a sorted folder another number."""
    real, fake = rng.normal(size=(150, 5)), rng.normal(0.3, 1, size=(140, 5))
    logits = 3 * rng.normal(size=(140, 4)) + 4 * np.eye(4)[np.sort(np.arange(140) % 4)]
    order = rng.permutation(140)
    reference = put(tmp_path / "real.npz", real, real[:, :4])
    first = scores(put(tmp_path / "a.npz", fake, logits), reference)
    shuffled = scores(put(tmp_path / "b.npz", fake[order], logits[order]), reference)
    assert set(first) == set(METRICS)
    assert shuffled == pytest.approx(first, rel=1e-9)


def test_float32_features_are_summed_in_float64(tmp_path: Path, rng: np.random.Generator) -> None:
    """torchmetrics' `.double()` casts nothing (`set_dtype` does); with an offset float32 sums have no digits left."""
    pair = {name: (rng.normal(shift, 1, (300, 4)) + 1e4).astype(np.float32) for name, shift in (("r", 0), ("g", 0.1))}
    wide = {name: values.astype(np.float64) for name, values in pair.items()}
    for name, values in {**pair, "R": wide["r"], "G": wide["g"]}.items():
        put(tmp_path / f"{name}.npz", values)
    continuous = ["fd", "kid"]
    exact = scores(tmp_path / "G.npz", tmp_path / "R.npz", continuous)
    assert scores(tmp_path / "g.npz", tmp_path / "r.npz", continuous) == exact
    centred = {name: values - 1e4 for name, values in wide.items()}
    assert exact["fd"] == pytest.approx(frechet_distance(real=centred["r"], generated=centred["g"]), rel=1e-6)
    naive = pair["g"].T @ pair["g"] / np.float32(300) - np.outer(pair["g"].mean(0), pair["g"].mean(0))
    assert abs(float(np.trace(naive)) - 4) > 0.5, "the premise: float32 sums would show"


def test_float64_models_draw_in_float64() -> None:
    """Constants or noise kept in float32 leave a float64 run with seven digits (diffusers' alphas_cumprod)."""
    noise = Noise(3, dtype=torch.float64).normal("x_T", 2, (1, 4, 4))
    assert noise.dtype == torch.float64
    assert bool((noise != noise.float().double()).any())
    process = make_process("linear", TOTAL, 1e-4, 0.02)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TOTAL, dtype=torch.float64), 0)
    assert process.abar.dtype == torch.float64
    torch.testing.assert_close(process.abar, abar, rtol=1e-13, atol=0)
    x = SAMPLERS["ddim"].run(noise, Denoiser(lambda x, t: 0 * x, process), Draw("ddim", 7, clip=False), iter(()))
    last = subsequence(7, TOTAL, "uniform")[-1]
    torch.testing.assert_close(x, noise / abar[last].sqrt(), rtol=1e-11, atol=0)


def test_a_file_with_other_images_under_its_old_name_size_and_time_is_read_anew(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """torch-fidelity keeps features by the input's name, clean-fid statistics by a name of the user's."""
    path, real = tmp_path / "samples.npz", tmp_path / "real.npz"

    def write(target: Path, low: int) -> None:
        np.savez(target, images=rng.integers(low, 200, (60, 1, 8, 8)).astype(np.uint8))

    def distance() -> float:
        found = bench.evaluate(path, real, extractor="pixels8x8", metrics=["fd"], cache=tmp_path / "cache")
        return found.value("fd[pixels8x8]")

    write(real, 0)
    write(path, 0)
    before, stat = distance(), path.stat()
    assert distance() == before
    write(path, 100)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size, "the premise: name, size and time are those of before"
    assert distance() > 2 * before


class _Means(torch.nn.Module):
    """Features of an image: its mean and its corners' levels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.double() / 255
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0], x[:, 0, -1, -1]], 1)


def test_the_images_of_a_partial_last_batch_count(rng: np.random.Generator) -> None:
    """`drop_last=True` of a loader leaves up to a batch of them out."""
    images = torch.from_numpy(rng.integers(0, 256, (203, 1, 8, 8)).astype(np.uint8))
    real = torch.from_numpy(rng.integers(0, 256, (151, 1, 8, 8)).astype(np.uint8))
    found = bench.evaluate(images, real, extractor=_Means(), metrics=["fd"], cache=False)
    (fd,) = found.measured
    rows = {name: _Means()(x.expand(-1, 3, -1, -1)).numpy() for name, x in (("generated", images), ("real", real))}
    assert fd.value == pytest.approx(frechet_distance(**rows), rel=1e-9)
    fewer = frechet_distance(real=rows["real"], generated=rows["generated"][:200])
    assert abs(fewer / fd.value - 1) > 1e-3, "the premise: it would show"


def test_evaluating_and_drawing_leave_the_users_random_numbers_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    """Subsets drawn by np.random and seeds set for all of torch change what the user draws next."""
    put(tmp_path / "a.npz", rng.normal(size=(90, 4)), rng.normal(size=(90, 3)))
    put(tmp_path / "b.npz", rng.normal(size=(90, 4)), rng.normal(size=(90, 3)))
    model = made("dcgan")

    def state() -> tuple[object, ...]:
        words = np.random.get_state()[1]  # noqa: NPY002
        return random.getstate(), np.asarray(words).tolist(), torch.get_rng_state().tolist()

    for seed in (random.seed, np.random.seed, torch.manual_seed):  # to a state that nobody else left
        seed(987_654_321)
    before = state()
    bench.evaluate(tmp_path / "a.npz", tmp_path / "b.npz", cache=False)
    with torch.no_grad():
        model.sample(2, Draw(), Noise(0))
    assert state() == before


# Flows


def made(name: str) -> Any:
    entry = registry.load(name).model
    return trainer.build(entry, ImageShape(1, 3, 3, 4), build_config(entry.config, {}, name), 0).eval()


def counting(plain: Callable[..., Any], passes: dict[str, int]) -> Callable[..., Any]:
    def counted(*given: Any, **more: Any) -> Any:
        passes[plain.__name__] = passes.get(plain.__name__, 0) + 1
        return plain(*given, **more)

    return counted


@pytest.mark.parametrize(("name", "fast"), [("maf", "log_density"), ("iaf", "sample")])
def test_a_masked_flow_has_its_density_and_an_inverse_one_its_samples_in_one_pass(
    name: str, fast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nflows and zuko put `inverse`, labels of the two directions can be backwards."""
    passes: dict[str, int] = {}
    for way in ("_shift_and_log_scale", "_in_turn"):
        monkeypatch.setattr(AffineAutoregressive, way, counting(getattr(AffineAutoregressive, way), passes))
    model = made(name)
    layers = sum(isinstance(part, AffineAutoregressive) for part in model.modules())
    for direction in ("log_density", "sample"):
        passes.clear()
        with torch.no_grad():
            if direction == "sample":
                model.sample(2, Draw(), Noise(0))
            else:
                model.log_density(torch.full((2, 1, 3, 3), 0.3))
        assert layers > 1
        assert passes == {"_shift_and_log_scale" if direction == fast else "_in_turn": layers}
