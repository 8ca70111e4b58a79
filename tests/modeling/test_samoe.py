"""SAMoE's parts: sizes, initialisation, routing, losses, stay classes."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.trainer_pt_utils import LabelSmoother

from hf_mobility import City, SamoeConfig, SamoeForNextLocation, SamoeTokenizer
from hf_mobility.modeling.times_samoe import stay_class, stay_seconds

VARIANTS = ("extended", "released", "paper")


# Size and initialisation


@pytest.mark.parametrize(("size", "count"), [("base", 40_941_334), ("ultra", 261_970_622)])
def test_the_released_sizes_have_the_published_number_of_parameters(size: str, count: int) -> None:
    with torch.device("meta"):
        model = SamoeForNextLocation(SamoeConfig.from_preset(size, variant="released"))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(("layers", "width", "count"), [(6, 768, 134_407_328), (4, 256, 10_312_598)])
def test_other_sizes_of_the_papers_scaling_figure(layers: int, width: int, count: int) -> None:
    config = SamoeConfig.from_preset("base", variant="released", num_hidden_layers=layers, hidden_size=width)
    with torch.device("meta"):
        model = SamoeForNextLocation(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_there_is_no_buffer_that_a_checkpoint_could_miss() -> None:
    for variant in VARIANTS:
        with torch.device("meta"):
            assert list(SamoeForNextLocation(SamoeConfig.from_preset("tiny", variant=variant)).named_buffers()) == []


@pytest.mark.parametrize("attention_init", ["xavier", "normal"])
def test_initialisation_follows_the_released_code(attention_init: str) -> None:
    config = SamoeConfig.from_preset("small", attention_init=attention_init, num_hidden_layers=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SamoeForNextLocation(config)
    xavier = math.sqrt(2 / (4 * config.hidden_size))  # of the fused (3 d, d) matrix
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif name in ("pointer_head.pair_weights.bias", "pointer_head.offset_bias.weight"):
            continue  # they start as count tables, see below
        elif name.endswith("bias") or "pair_weights" in name:
            assert (parameter == 0).all(), name
        elif parameter.numel() > 1000:
            wanted = 0.02
            if "mlp" in name and "down_proj" in name:
                wanted = 0.02 / math.sqrt(2 * 4)
            elif attention_init == "xavier" and name.split(".")[-2] in ("q_proj", "k_proj", "v_proj"):
                wanted = xavier
            assert parameter.std().item() == pytest.approx(wanted, rel=0.1), name


def test_several_pointer_heads_start_as_count_tables() -> None:
    with torch.random.fork_rng():
        head = SamoeForNextLocation(SamoeConfig.from_preset("tiny")).pointer_head
    pairs = head.pair_weights.bias.view(8, 8)
    expected = torch.zeros(8, 8)
    expected[3, 0] = 6.0  # Markov-1
    expected[4, 2], expected[4, 5] = 6.5, 1.5  # same hour, same kind of day
    expected[5, 0], expected[5, 1] = 4.0, 4.0  # Markov-2
    expected[6, 7] = -4.0  # nearby
    assert torch.equal(pairs, expected)
    offsets = torch.tensor([2 ** ((index + 0.5) / 1.9) - 1 for index in range(16)])
    folding = (0, 10, 40, 60, 0, 60, 40, 0)  # in visits
    for index, visits in enumerate(folding):
        decay = -offsets / visits if visits else torch.zeros(16)
        torch.testing.assert_close(head.offset_bias.weight[:, index], decay)


# Routing


def captured_routers(model: Any, run: Any) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(fused, time, weights) of every layer during `run()`."""
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    hooks = [
        layer.mlp.router.register_forward_hook(lambda _, inputs, output: calls.append((*inputs, output)))
        for layer in model.model.layers
    ]
    run()
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize("variant", VARIANTS)
def test_router_weights_sum_to_one(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    weights = model(**visits, location_features=city, output_router_weights=True).router_weights
    assert len(weights) == 2
    for layer in weights:
        assert layer.shape == (3, 9, 3) and (layer >= 0).all()
        build.assert_same(layer.sum(-1), torch.ones(3, 9))


@pytest.mark.parametrize("shared", [True, False])
def test_the_hard_selector_takes_one_of_the_two_routers(build: SimpleNamespace, shared: bool) -> None:
    model, city, visits = build.all("released", selector="hard", shared_router=shared)
    seen = set()
    for layer, (fused, time, weights) in zip(
        model.model.layers, captured_routers(model, lambda: model(**visits, location_features=city))
    ):
        router = layer.mlp.router
        spatial = router.spatial(fused).softmax(-1)
        temporal = (router.spatial if shared else router.temporal)(time).softmax(-1)
        is_spatial = torch.isclose(weights, spatial, atol=1e-6).all(-1)
        is_temporal = torch.isclose(weights, temporal, atol=1e-6).all(-1)
        assert (is_spatial ^ is_temporal).all()
        first, second = router.selector(torch.cat([fused, time], -1)).unbind(-1)
        assert torch.equal(is_spatial, first >= second)
        seen |= set(is_spatial.flatten().tolist())
    assert seen == {True, False}


def test_the_hard_selector_still_learns(build: SimpleNamespace) -> None:
    """Straight-through: the same gradient as that of a softmax in the selector's place."""
    model, city, visits = build.all("paper")
    model(**visits, location_features=city, labels=visits["input_ids"]).loss.backward()
    for layer in model.model.layers:
        assert layer.mlp.router.selector.weight.grad.abs().max() > 1e-6


def test_without_routed_experts_only_the_shared_one_is_left_on_the_fused_stream(
    build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, city, visits = build.all()
    for layer in model.model.layers:
        monkeypatch.setattr(layer.mlp.router, "forward", lambda fused, time: fused.new_zeros(*fused.shape[:2], 3))
    mixture, inputs, time = model.model.layers[0].mlp, torch.randn(2, 4, 5, 16), torch.randn(2, 5, 16)
    build.assert_same(mixture(inputs, time)[:, 3], mixture.shared_expert(inputs[:, 3]))
    plain = model(**visits, location_features=city).logits
    with torch.no_grad():
        for parameter in (p for layer in model.model.layers for p in layer.mlp.experts.parameters()):
            parameter.normal_()
    assert torch.equal(model(**visits, location_features=city).logits, plain)


def test_each_structured_expert_sees_its_own_stream_only(build: SimpleNamespace) -> None:
    model, _, _ = build.all()
    mixture, inputs, time = model.model.layers[0].mlp, torch.randn(2, 4, 5, 16), torch.randn(2, 5, 16)
    plain = mixture(inputs, time)
    for stream in range(3):
        build.assert_same(plain[:, stream], mixture.experts[stream](inputs[:, stream]))


# Ablation switches


@pytest.mark.parametrize(("switch", "columns"), [("use_poi", slice(0, 60)), ("use_popularity", slice(62, 63))])
@pytest.mark.parametrize("variant", ["extended", "paper"])
def test_an_ablated_feature_has_no_influence(build: SimpleNamespace, switch: str, columns: slice, variant: str) -> None:
    kept, city, visits = build.all(variant, num_poi_features=60, num_popularity_levels=10)
    ablated = build.model(variant, num_poi_features=60, num_popularity_levels=10, **{switch: False})
    changed = city.clone()
    changed[2:, columns] = (changed[2:, columns] + 1) % 9

    def run(model: Any, table: torch.Tensor) -> torch.Tensor:
        return model(**visits, location_features=table).logits

    assert torch.equal(run(ablated, changed), run(ablated, city))
    assert not torch.allclose(run(kept, changed), run(kept, city))


# Losses


def make_labels(visits: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    labels, stays = visits["input_ids"].clone(), visits["stay_ids"].clone()
    labels[0, 3:5] = -100
    labels[2, 8] = -100
    stays[0, 2], stays[1, 5], stays[2, 8] = 0, -100, 0
    return labels, stays


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_location_loss_is_the_mean_of_minus_log_p(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    labels, _ = make_labels(visits)
    output = model(**visits, location_features=city, labels=labels)
    log_p = output.logits.log_softmax(-1)
    losses = [-log_p[b, t, labels[b, t + 1]] for b in range(3) for t in range(8) if labels[b, t + 1] != -100]
    assert len(losses) == 24 - 3
    build.assert_same(output.location_loss, torch.stack(losses).mean(), atol=2e-5)
    assert output.stay_loss is None and torch.equal(output.loss, output.location_loss)


def test_with_the_copy_head_logits_are_log_probabilities(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    build.assert_same(model(**visits, location_features=city).logits.exp().sum(-1), torch.ones(3, 9))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_stay_loss_ignores_class_0_and_is_weighted(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant, stay_loss_weight=0.3)
    labels, stays = make_labels(visits)
    output = model(**visits, location_features=city, labels=labels, stay_labels=stays)
    log_p = output.stay_logits.log_softmax(-1)
    losses = [-log_p[b, t, stays[b, t + 1]] for b in range(3) for t in range(8) if stays[b, t + 1] > 0]
    assert len(losses) == 24 - 3
    build.assert_same(output.stay_loss, torch.stack(losses).sum() / 21, atol=2e-5)  # 21 location labels
    build.assert_same(output.loss, output.location_loss + 0.3 * output.stay_loss)


def test_a_stay_loss_of_weight_0_is_not_computed(build: SimpleNamespace) -> None:
    model, city, visits = build.all(stay_loss_weight=0.0)
    output = model(**visits, location_features=city, labels=visits["input_ids"], stay_labels=visits["stay_ids"])
    assert output.stay_loss is None and torch.equal(output.loss, output.location_loss)


@pytest.mark.parametrize("variant", VARIANTS)
def test_num_items_in_batch_replaces_the_count_of_labels(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    labels, stays = make_labels(visits)
    given = {**visits, "location_features": city, "labels": labels, "stay_labels": stays}
    mean = model(**given).loss
    build.assert_same(model(**given, num_items_in_batch=210).loss, mean * 21 / 210)
    build.assert_same(model(**given, num_items_in_batch=torch.tensor(7)).loss, mean * 3)
    assert model.accepts_loss_kwargs is True


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_smoothing_is_that_of_transformers_over_the_places(
    build: SimpleNamespace, variant: str, training: bool
) -> None:
    model, city, visits = build.all(variant)
    labels, _ = make_labels(visits)
    first = 1 if model.config.use_eos else 2
    places = model(**visits, location_features=city).logits[..., first:]
    shifted = labels.where(labels == -100, labels - first)
    wanted = LabelSmoother(epsilon=0.1)({"logits": places}, shifted, shift_labels=True)
    given = {**visits, "location_features": city, "labels": labels, "smoothing": 0.1}
    loss = model.train(training)(**given).loss
    build.assert_same(loss, wanted)
    build.assert_same(model(**given, num_items_in_batch=210).loss, wanted * 21 / 210)
    loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_smoothing_counts_a_sampled_place_for_those_left_out(build: SimpleNamespace) -> None:
    """Twelve places of which four are copies of others: two of each pair, or one that counts for both."""
    model = build.model("paper", use_eos=False)
    city, visits = build.city(model.config, n=8), build.visits(model.config, n=4)
    twice = torch.cat([city, city[6:]])
    weights = torch.tensor([0.0] * 6 + [math.log(2)] * 4)
    given = {**visits, "labels": visits["input_ids"], "smoothing": 0.3}
    whole = model(**given, location_features=twice).loss
    build.assert_same(model(**given, location_features=city, candidate_log_weights=weights).loss, whole)


def test_stay_labels_without_labels_are_refused(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    with pytest.raises(ValueError, match="stay_labels are given without labels"):
        model(**visits, location_features=city, stay_labels=visits["stay_ids"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_half_batches_add_up_to_the_whole(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    labels, stays = make_labels(visits)
    given = {**visits, "labels": labels, "stay_labels": stays}
    parts = [
        model(**{k: v[rows] for k, v in given.items()}, location_features=city, num_items_in_batch=21).loss
        for rows in (slice(0, 1), slice(1, 3))
    ]
    build.assert_same(sum(parts), model(**given, location_features=city).loss)


@pytest.mark.parametrize("variant", VARIANTS)
def test_candidate_weights_of_zero_change_nothing(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    given = {**visits, "location_features": city, "labels": visits["input_ids"]}
    assert torch.equal(model(**given, candidate_log_weights=torch.zeros(14)).loss, model(**given).loss)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_weight_of_ln_3_stands_for_three_equal_places(build: SimpleNamespace, variant: str) -> None:
    """A city with a place nobody visits listed three times, and one with that place once and its weight."""
    model, city, visits = build.all(variant)
    visits["input_ids"] = visits["input_ids"].clamp(max=12)  # row 13 is visited by nobody
    thrice = torch.cat([city, city[13:], city[13:]])
    weights = torch.zeros(14)
    weights[13] = math.log(3)
    given = {**visits, "labels": visits["input_ids"]}
    weighted = model(**given, location_features=city, candidate_log_weights=weights).loss
    build.assert_same(weighted, model(**given, location_features=thrice).loss)
    assert not torch.allclose(weighted, model(**given, location_features=city).loss)


def test_logits_are_left_out_where_only_the_loss_is_needed(build: SimpleNamespace) -> None:
    model, city, visits = build.all()
    given = {**visits, "location_features": city}
    wanted = model(**given, labels=visits["input_ids"]).loss
    model.train()
    output = model(**given, labels=visits["input_ids"])
    assert output.logits is None and torch.equal(output.loss, wanted)
    assert model(**given).logits is not None


@pytest.mark.parametrize("variant", VARIANTS)
def test_closed_columns_are_minus_infinity(build: SimpleNamespace, variant: str) -> None:
    model, city, visits = build.all(variant)
    logits = model(**visits, location_features=city).logits
    assert (logits[..., 0] == -torch.inf).all() and torch.isfinite(logits[..., 2:]).all()
    assert (torch.isfinite(logits[..., 1]) if model.config.use_eos else logits[..., 1] == -torch.inf).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("keep", [1, 4, torch.tensor([0, 5, 8])], ids=["1", "4", "indices"])
def test_logits_to_keep_equals_slicing(build: SimpleNamespace, variant: str, keep: int | torch.Tensor) -> None:
    model, city, visits = build.all(variant)
    whole = model(**visits, location_features=city)
    part = model(**visits, location_features=city, logits_to_keep=keep)
    which = slice(-keep, None) if isinstance(keep, int) else keep
    build.assert_same(part.logits, whole.logits[:, which], atol=1e-6)
    build.assert_same(part.stay_logits, whole.stay_logits, atol=1e-6)  # of every position


def test_the_model_learns(build: SimpleNamespace) -> None:
    """Thirty steps on one batch bring the loss well below that of guessing."""
    config = build.config()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SamoeForNextLocation(config).train()
    city, visits = build.city(config), build.visits(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = model(**visits, location_features=city, labels=visits["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * math.log(12)


def test_a_weight_in_another_precision_than_its_neighbours_is_read_in_its_own(build: SimpleNamespace) -> None:
    """As while FSDP2 has gathered some weights in bfloat16."""
    model, table, _ = build.all("extended")
    features = model.model.visit_features
    wanted = features(table)
    features.geo.to(torch.bfloat16)
    for found, expected in zip(features(table), wanted, strict=True):
        torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)


def test_bfloat16_weights_give_finite_losses_and_float32_logits(build: SimpleNamespace) -> None:
    for variant in VARIANTS:
        model, city, visits = build.all(variant)
        model = model.to(torch.bfloat16)
        output = model(**visits, location_features=city, labels=visits["input_ids"], stay_labels=visits["stay_ids"])
        assert output.logits.dtype == torch.float32 and torch.isfinite(output.loss)


# Stay classes

GAPS = np.unique(np.concatenate([np.arange(0, 4000), np.geomspace(4000, 4e7, 3000).astype(np.int64)]))


@pytest.mark.parametrize("variant", ["extended", "released"])
def test_a_class_stands_for_a_time_of_that_class(variant: str) -> None:
    config = SamoeConfig.from_preset("tiny", variant=variant)
    classes = torch.arange(1, config.num_stay_bins)
    seconds = stay_seconds(classes, config)
    assert seconds.dtype == torch.int64 and (seconds.diff() > 0).all()
    assert torch.equal(stay_class(seconds, config), classes)
    assert stay_seconds(torch.tensor([0]), config).item() == 0


def test_classes_equal_the_published_formula() -> None:
    logarithmic, half_hours = SamoeConfig.from_preset("tiny"), SamoeConfig.from_preset("tiny", variant="released")
    gaps = torch.from_numpy(GAPS)
    wanted = [min(24, math.floor(1.6 * math.log2(1 + s / 60 / 10)) + 1) for s in GAPS.tolist()]
    assert stay_class(gaps, logarithmic).tolist() == wanted
    assert stay_class(torch.arange(0, 200) * 1800, half_hours).tolist() == [min(95, k) for k in range(200)]
    assert stay_class(torch.tensor([-5]), logarithmic).item() == 1  # clocks that run backwards


@pytest.mark.parametrize("encoding", ["log", "half_hours"])
def test_model_and_tokenizer_agree_on_the_class_of_a_gap(encoding: str) -> None:
    variant = "extended" if encoding == "log" else "released"
    config = SamoeConfig.from_preset("tiny", variant=variant, num_poi_features=1, num_popularity_levels=10)
    city = City(
        name="two",
        timezone="UTC",
        location_ids=np.array(["a", "b"]),
        lat=np.zeros(2),
        lon=np.array([0.0, 0.1]),
        poi=np.ones((2, 1)),
        poi_names=("x",),
        popularity=np.ones(2),
    )
    gaps = GAPS if encoding == "log" else np.arange(0, 300) * 1800
    visits = {
        "user_id": np.repeat(np.arange(len(gaps)), 2),
        "time": np.stack([np.full_like(gaps, 1_700_000_100), 1_700_000_100 + gaps], axis=1).ravel(),
        "location_id": np.tile(["a", "b"], len(gaps)),
    }
    stay_ids = SamoeTokenizer.from_city(city, config).encode_visits(visits)["stay_ids"].reshape(-1, 2)
    assert (stay_ids[:, 0] == 0).all()
    assert stay_ids[:, 1].tolist() == stay_class(torch.from_numpy(gaps), config).tolist()
