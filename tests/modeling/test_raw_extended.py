"""RAW's `extended` variant: records in kilometres -> a mixture of places at any time to come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from scipy.optimize import minimize

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.destinations_raw import (
    RawDestinations,
    draw,
    geometric_median,
    middle,
    negative_log_density,
)
from hf_mobility.modeling.modeling_raw_extended import (
    RawExtendedForTrajectoryPrediction,
    RawExtendedModel,
    distance_weight,
)
from hf_mobility.modeling.pairs_raw import NOWHERE, clock, pair_features

DAY = 96


@torch.no_grad()
def make_model(seed: int = 0, **overrides: object) -> RawExtendedForTrajectoryPrediction:
    """A tiny model in evaluation mode; every parameter is drawn, so that nothing hides behind a zero or a one."""
    config = RawConfig.from_preset("tiny", variant="extended", **overrides)
    model = RawExtendedForTrajectoryPrediction(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + float(name.endswith("norm.weight")))
    return model


def make_inputs(batch: int = 3, records: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    slots = 1_800_000 + torch.randint(1, 40, (batch, records), generator=generator).cumsum(1)
    return {
        "positions": 3 * torch.randn(batch, records, 2, generator=generator),
        "slots": slots,
        "target_slots": slots[:, -1:] + torch.tensor([1, 10, 96]),
    }


def make_mixture(components: int = 7, seed: int = 0) -> RawDestinations:
    generator = torch.Generator().manual_seed(seed)
    return RawDestinations(
        log_weights=torch.randn(2, components, generator=generator).log_softmax(-1),
        centres=4 * torch.randn(2, components, 2, generator=generator),
        scales=0.1 + torch.rand(2, components, generator=generator),
    )


@torch.no_grad()
def test_the_mixture_holds_the_records_and_sums_to_one() -> None:
    model, inputs = make_model(), make_inputs()
    found = model(**inputs).destinations
    records = inputs["positions"].shape[1]
    assert found.log_weights.shape == (3, 3, records + model.config.mixture_components)
    torch.testing.assert_close(found.log_weights.exp().sum(-1), torch.ones(3, 3))
    expected = inputs["positions"].unsqueeze(1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(found.centres[:, :, :records], expected, rtol=0, atol=1e-5)
    assert (found.scales >= model.config.mixture_min_scale).all()


def test_the_density_of_a_mixture_integrates_to_one() -> None:
    found = make_mixture()
    axis = torch.linspace(-150, 150, 3001)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    one = RawDestinations(log_weights=found.log_weights[0], centres=found.centres[0], scales=1 + found.scales[0])
    mass = sum(float((-negative_log_density(one, rows)).exp().sum()) for rows in grid.split(100)) * 0.1**2
    assert mass == pytest.approx(1, abs=2e-3)


def test_the_geometric_median_is_the_minimum_of_the_mean_distance() -> None:
    found = make_mixture()
    weights = found.log_weights.exp()
    made = middle(found)
    for row in range(2):
        points, weight, scale = (x[row].double().numpy() for x in (found.centres, weights, found.scales))

        def total(at: object, points=points, weight=weight, scale=scale) -> float:
            return float((weight * (((points - at) ** 2).sum(-1) + scale**2) ** 0.5).sum())

        best = minimize(total, points.mean(0), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).x
        torch.testing.assert_close(made[row].double(), torch.from_numpy(best), rtol=0, atol=2e-3)


def test_a_point_with_most_of_the_weight_is_the_geometric_median() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    torch.testing.assert_close(geometric_median(points, torch.ones(3), 0.001), torch.zeros(2), rtol=0, atol=2e-3)


def test_the_predicted_point_teaches_the_weights() -> None:
    weights = torch.tensor([0.4, 0.3, 0.3], requires_grad=True)
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    geometric_median(points, weights, 0.5)[0].backward()
    assert weights.grad is not None and weights.grad[1] > 0 > weights.grad[2]


def test_draws_have_the_weights_and_the_radii_of_the_mixture() -> None:
    found = RawDestinations(
        log_weights=torch.tensor([[0.25, 0.75]]).log(),
        centres=torch.tensor([[[0.0, 0.0], [1000.0, 0.0]]]),
        scales=torch.tensor([[1.0, 2.0]]),
    )
    generator = torch.Generator().manual_seed(0)
    shape = (20_000, 1, 2)
    drawn = draw(found, torch.rand(shape, generator=generator), torch.randn(shape, generator=generator))[:, 0]
    right = drawn[:, 0] > 500
    assert float(right.float().mean()) == pytest.approx(0.75, abs=0.01)
    radius = torch.linalg.vector_norm(drawn - torch.tensor([1000.0, 0.0]), dim=-1)[right]
    # of P(r > x) = (1 + x^2 / 3 s^2)^(-3/2) one half is at x = s sqrt(3 (2^(2/3) - 1))
    assert float(radius.median()) == pytest.approx(2 * (3 * (2 ** (2 / 3) - 1)) ** 0.5, rel=0.03)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model, inputs = make_model(), make_inputs()
    padded = {
        "positions": torch.cat([torch.full((3, 4, 2), 77.0), inputs["positions"]], dim=1),
        "slots": torch.cat([torch.zeros(3, 4, dtype=torch.long), inputs["slots"]], dim=1),
        "attention_mask": torch.tensor([[0] * 4 + [1] * 9] * 3),
        "target_slots": inputs["target_slots"],
    }
    plain, other = model(**inputs), model(**padded)
    torch.testing.assert_close(other.predictions, plain.predictions, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        other.destinations.log_weights[..., 4:], plain.destinations.log_weights, rtol=0, atol=1e-4
    )
    assert (other.destinations.log_weights[..., :4].exp() == 0).all()


@torch.no_grad()
def test_a_moved_user_is_predicted_moved() -> None:
    model, inputs = make_model(), make_inputs()
    move = torch.tensor([[[40.0, -7.0]]])
    moved = model(**{**inputs, "positions": inputs["positions"] + move})
    torch.testing.assert_close(moved.predictions, model(**inputs).predictions + move, rtol=0, atol=1e-3)


@torch.no_grad()
def test_whole_weeks_later_nothing_changes() -> None:
    model, inputs = make_model(), make_inputs()
    weeks = 5 * 7 * DAY
    later = {**inputs, "slots": inputs["slots"] + weeks, "target_slots": inputs["target_slots"] + weeks}
    torch.testing.assert_close(model(**later).predictions, model(**inputs).predictions, rtol=0, atol=1e-5)
    tomorrow = {**inputs, "slots": inputs["slots"] + DAY, "target_slots": inputs["target_slots"] + DAY}
    assert (model(**tomorrow).predictions - model(**inputs).predictions).abs().max() > 1e-3


@torch.no_grad()
def test_users_and_times_do_not_see_one_another() -> None:
    model, inputs = make_model(), make_inputs()
    together = model(**inputs).predictions
    for user in range(3):
        for time in range(3):
            one = {name: values[user : user + 1] for name, values in inputs.items()}
            one["target_slots"] = one["target_slots"][:, time : time + 1]
            torch.testing.assert_close(model(**one).predictions[0, 0], together[user, time], rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_state_knows_the_past_only() -> None:
    body, inputs = make_model().model, make_inputs()
    changed = inputs["positions"].clone()
    changed[:, 5:] += 1
    plain, other = (
        body(positions=positions, slots=inputs["slots"]).last_hidden_state
        for positions in (inputs["positions"], changed)
    )
    torch.testing.assert_close(other[:, :5], plain[:, :5], rtol=0, atol=1e-6)
    assert (other[:, 5:] - plain[:, 5:]).abs().max() > 1e-3


@torch.no_grad()
def test_only_the_newest_records_are_read() -> None:
    model = make_model(context_records=6, state_records=4)
    inputs = make_inputs()
    newest = {**inputs, "positions": inputs["positions"][:, -6:], "slots": inputs["slots"][:, -6:]}
    torch.testing.assert_close(model(**inputs).predictions, model(**newest).predictions, rtol=0, atol=1e-5)
    assert model.model(inputs["positions"], inputs["slots"]).last_hidden_state.shape[1] == 4


def test_labels_that_are_nan_do_not_count() -> None:
    model, inputs = make_model(), make_inputs()
    labels = torch.randn(3, 3, 2)
    labels[0, 1] = torch.nan
    output = model(**inputs, labels=labels)
    found, counted = output.destinations, ~labels.isnan().any(-1)
    apart = (output.predictions - labels).nan_to_num().square().sum(-1).add(1e-4).sqrt()
    weight = distance_weight(torch.tensor([1, 10, 96]), model.config)
    assert weight[0] == model.config.distance_weight > weight[1] > weight[2]
    each = negative_log_density(found, labels.nan_to_num()) + weight * apart
    torch.testing.assert_close(output.loss, each[counted].mean(), rtol=1e-4, atol=1e-5)
    output.loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@torch.no_grad()
def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    model, inputs = make_model(), make_inputs()
    model.save_pretrained(tmp_path)
    loaded = RawExtendedForTrajectoryPrediction.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**inputs).predictions, model(**inputs).predictions, rtol=0, atol=0)
    body = RawExtendedModel.from_pretrained(tmp_path)
    positions, slots = inputs["positions"], inputs["slots"]
    expected = model.model(positions, slots).last_hidden_state
    torch.testing.assert_close(body(positions, slots).last_hidden_state, expected, rtol=0, atol=0)


def test_samples_are_the_same_for_the_same_seed() -> None:
    model, inputs = make_model(), make_inputs()
    found = model(**inputs).destinations
    one, same, other = (model.draw(found, 5, seed) for seed in (0, 0, 1))
    assert one.shape == (5, 3, 3, 2)
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert (one - other).abs().max() > 0


def test_what_is_missing_is_said() -> None:
    model, inputs = make_model(), make_inputs()
    with pytest.raises(ValueError, match="target_slots are needed"):
        model(positions=inputs["positions"], slots=inputs["slots"])
    with pytest.raises(ValueError, match="in km and slots"):
        model(target_slots=inputs["target_slots"])
    with pytest.raises(ValueError, match="padding lies on the left"):
        mask = torch.ones(3, 9, dtype=torch.long)
        mask[0, -1] = 0
        model(**inputs, attention_mask=mask)
    with pytest.raises(StrictDataclassError, match="mixture_components above 0"):
        RawConfig.from_preset("tiny", variant="extended", mixture_components=0)


def test_the_clock_counts_days_from_a_thursday() -> None:
    share, weekday = clock(torch.tensor([0, 95, 96, 4 * 96 + 48]), DAY)
    torch.testing.assert_close(share, torch.tensor([0, 95 / 96, 0, 0.5]))
    assert weekday.tolist() == [3, 3, 4, 0]


def test_a_pair_says_where_the_user_went_the_last_time() -> None:
    """Two days: at home, then at work ten slots later. Asked at home, ten slots ahead, yesterday's work is alike."""
    positions = torch.tensor([[[0.0, 0.0], [8.0, 0.0], [3.0, 3.0], [0.0, 0.0]]])
    slots = torch.tensor([[100 * DAY, 100 * DAY + 10, 100 * DAY + 60, 101 * DAY]])
    features = pair_features(positions, slots, slots[:, -1:] + 10, slots_per_day=DAY)
    assert features.shape == (1, 1, 4, 22)
    alike = features[0, 0, :, 15]  # near here then, within 200 m
    assert alike.argmax() == 1 and alike[1] == pytest.approx(1) and alike[[0, 2]].max() < 0.01
    at_that_hour = features[0, 0, :, 10]
    assert at_that_hour.argmax() == 1


def test_padding_is_nowhere_near_a_record() -> None:
    positions, slots = torch.zeros(1, 3, 2), torch.tensor([[NOWHERE, NOWHERE, 5_000]])
    features = pair_features(positions, slots, torch.tensor([[5_010]]), slots_per_day=DAY)
    assert features.isfinite().all()
