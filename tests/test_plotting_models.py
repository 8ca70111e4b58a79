"""Pictures of models: routing weights and attention equal the model's own, averaged by hand; curves show what was
logged.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import (
    DataError,
    MobilityEmbeddingPipeline,
    NextLocationPipeline,
    RawConfig,
    RawModel,
    RawTokenizer,
    SamoeTokenizer,
)
from hf_mobility.plotting.models import (
    EXPERTS,
    attention_by_hour,
    expert_weights,
    plot_attention,
    plot_experts,
    plot_training,
)
from hf_mobility.plotting.prepare import training_log

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


# Experts of SAMoE


@pytest.fixture(scope="module")
def samoe(toy: SimpleNamespace) -> SimpleNamespace:
    visits, city = toy.city(18)  # more people than a batch holds
    model = toy.model()
    pipe = NextLocationPipeline(model, SamoeTokenizer.from_city(city, model.config))
    return SimpleNamespace(visits=visits, pipe=pipe, weights=expert_weights(pipe, visits))


def test_expert_weights_are_those_that_the_model_records(samoe: SimpleNamespace) -> None:
    assert len(samoe.weights) == len(samoe.visits)
    assert samoe.weights["location_id"].tolist() == samoe.visits["location_id"].tolist()
    local = samoe.visits["time"].dt.tz_convert(samoe.pipe.tokenizer.timezone).dt.hour
    assert samoe.weights["hour"].tolist() == local.tolist()
    np.testing.assert_allclose(samoe.weights[list(EXPERTS)].sum(axis=1), 1, atol=1e-6)
    last = samoe.visits[samoe.visits["user_id"] == samoe.visits["user_id"].iloc[-1]]
    with torch.no_grad():
        output = samoe.pipe.model(**samoe.pipe.tokenizer(last, return_tensors="pt"), output_router_weights=True)
    by_hand = torch.stack(output.router_weights).mean(0)[0].numpy()
    own = samoe.weights[samoe.weights["user_id"] == last["user_id"].iloc[0]]
    np.testing.assert_allclose(own[list(EXPERTS)], by_hand, atol=2e-6)
    second = expert_weights(samoe.pipe, last, layer=1)
    np.testing.assert_allclose(second[list(EXPERTS)], output.router_weights[1][0].numpy(), atol=2e-6)


def test_long_histories_are_cut_to_the_context_of_the_pipeline(samoe: SimpleNamespace) -> None:
    short = NextLocationPipeline(samoe.pipe.model, samoe.pipe.tokenizer, context=4)
    expected = samoe.visits.groupby("user_id").tail(4)
    assert expert_weights(short, samoe.visits)["location_id"].tolist() == expected["location_id"].tolist()


def test_the_routing_map_shows_leaders_by_place_and_means_by_hour(samoe: SimpleNamespace) -> None:
    axes = plot_experts(samoe.weights)
    means = samoe.weights.groupby("location_id")[list(EXPERTS)].mean() - samoe.weights[list(EXPERTS)].mean()
    leaders = means.idxmax(axis=1).value_counts()
    for name, dots in zip(EXPERTS, axes[0].collections):
        assert len(dots.get_offsets()) == leaders.get(name, 0)
        assert dots.get_label() == f"{name} ({leaders.get(name, 0)} places)"
    for name, line in zip(EXPERTS, [line for line in axes[1].lines if len(line.get_xdata()) == 24]):
        expected = samoe.weights.groupby("hour")[name].mean().reindex(range(24))
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected)
    largest = max(dots.get_sizes().max() for dots in axes[0].collections if len(dots.get_sizes()))
    assert largest == pytest.approx(8 + 24 * np.sqrt(10))


def test_models_without_experts_and_layers_that_are_not_there_are_refused(
    samoe: SimpleNamespace, toy: SimpleNamespace
) -> None:
    plain = NextLocationPipeline(toy.model(mixture=False), samoe.pipe.tokenizer)
    with pytest.raises(ValueError, match="no experts: its configuration says mixture=False"):
        expert_weights(plain, samoe.visits)
    with pytest.raises(ValueError, match="layer must lie in 0"):
        expert_weights(samoe.pipe, samoe.visits, layer=99)
    with pytest.raises(DataError, match=r"lack the column.s. hour"):
        plot_experts(samoe.weights.drop(columns="hour"))


# Attention of RAW


@pytest.fixture(scope="module")
def raw() -> SimpleNamespace:
    """Hourly points of 18 people over two days, and a model of random weights."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=48, freq="h", tz="UTC")
    parts = [
        pd.DataFrame(
            {"user_id": user, "time": times, "lat": rng.uniform(47.9, 48.1, 48), "lon": rng.uniform(11, 11.2, 48)}
        )
        for user in range(18)
    ]
    config = RawConfig.from_preset("tiny", slots_per_day=24, max_position_embeddings=48)
    tokenizer = RawTokenizer.from_bounds((47.8, 10.9, 48.2, 11.3), timezone="UTC", config=config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RawModel(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    model.set_attn_implementation("eager")
    return SimpleNamespace(points=pd.concat(parts), pipe=MobilityEmbeddingPipeline(model, tokenizer))


def test_attention_by_hour_is_the_mean_of_the_models_own(raw: SimpleNamespace) -> None:
    table = attention_by_hour(raw.pipe, raw.points)
    assert table["hour"].tolist() == np.repeat(np.arange(24), 24).tolist()
    found = table["attention"].to_numpy().reshape(24, 24)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(table["even"].to_numpy().reshape(24, 24).sum(axis=1), 1, atol=1e-9)
    batch = raw.pipe.tokenizer(raw.points, return_tensors="pt")
    with torch.no_grad():
        layers = raw.pipe.model(**batch, output_attentions=True).attentions
    mean = torch.stack(layers).mean((0, 1, 2)).numpy()  # (48, 48)
    looks = (mean[:24] + mean[24:]) / 2
    np.testing.assert_allclose(found, looks[:, :24] + looks[:, 24:], atol=1e-5)
    # of 1 slot so far on the first day and 25 on the second, midnight is 1 of 1 and 2 of 25
    assert table["even"].iloc[0] == pytest.approx((1 + 2 / 25) / 2)


def test_attention_does_not_depend_on_the_batches(raw: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days begin with the first record of all, also for a person who is read alone and comes a day later."""
    first = raw.points["time"] < pd.Timestamp("2024-01-02", tz="UTC")
    points = raw.points[~(first & (raw.points["user_id"] >= 12))]
    tables = []
    for size in (1, 100):
        monkeypatch.setattr("hf_mobility.plotting.models._PER_BATCH", size)
        tables.append(attention_by_hour(raw.pipe, points))
    pd.testing.assert_frame_equal(*tables, check_exact=False, atol=1e-5)


def test_the_attention_map_shows_shares_and_their_ratio_to_even_ones(raw: SimpleNamespace) -> None:
    table = attention_by_hour(raw.pipe, raw.points)
    axes = plot_attention(table.sample(frac=1, random_state=0))
    shares, ratio = (np.asarray(ax.images[0].get_array()) for ax in axes)
    np.testing.assert_allclose(shares, table["attention"].to_numpy().reshape(24, 24))
    np.testing.assert_allclose(ratio, (table["attention"] / table["even"]).to_numpy().reshape(24, 24))
    low, high = axes[1].images[0].norm.vmin, axes[1].images[0].norm.vmax
    assert low * high == pytest.approx(1) and low <= ratio.min() and ratio.max() <= high * 1.0001


def test_hours_that_never_occur_are_left_blank(raw: SimpleNamespace) -> None:
    table = attention_by_hour(raw.pipe, raw.points)
    table.loc[table["hour"] >= 12, ["attention", "even"]] = np.nan
    for ax in plot_attention(table):
        values = np.ma.filled(ax.images[0].get_array(), np.nan)
        assert np.isnan(values[12:]).all() and np.isfinite(values[:12]).all()


def test_other_attention_than_eager_is_refused(raw: SimpleNamespace) -> None:
    model = RawModel(raw.pipe.model.config)
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="this model uses 'sdpa'; load it with attn_implementation='eager'"):
        attention_by_hour(MobilityEmbeddingPipeline(model, raw.pipe.tokenizer), raw.points)
    raw.pipe.model.set_attn_implementation("eager")


# Training curves

LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 3.0, "learning_rate": 1e-3},
    {"step": 20, "loss": 2.0, "learning_rate": 5e-4},
    {"step": 20, "eval_loss": 2.5, "eval_runtime": 1.0},
    {"step": 30, "loss": 1.0, "learning_rate": 0.0},
    {"step": 30, "eval_loss": 2.75},
    {"step": 30, "train_loss": 2.0, "train_runtime": 9.0},
]


def test_training_curves_show_what_was_logged(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": LOG}), encoding="utf-8")
    trainer = SimpleNamespace(state=SimpleNamespace(log_history=LOG))
    for source in (LOG, trainer, tmp_path, str(tmp_path / "trainer_state.json")):
        ax = plot_training(source)
        curves = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
        assert curves == {
            "training loss": [[10, 3], [20, 2], [30, 1]],
            "evaluation loss": [[20, 2.5], [30, 2.75]],
            "lowest: 2.5 at step 20": [[20, 2.5]],
        }
        right = next(other for other in ax.figure.axes if other is not ax)
        assert right.lines[0].get_xydata().tolist() == [[10, 1e-3], [20, 5e-4], [30, 0]]


def test_logs_of_a_real_trainer_are_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    data = [{"x": torch.ones(1), "labels": torch.zeros(1)}] * 4

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": ((x * self.weight - labels) ** 2).mean()}

    options = {"max_steps": 3, "logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    trainer = transformers.Trainer(Line(), transformers.TrainingArguments(str(tmp_path), **options), train_dataset=data)
    trainer.train()
    assert training_log(trainer)["loss"].notna().sum() == 3
    assert plot_training(trainer).lines[0].get_xdata().tolist() == [1, 2, 3]


def test_empty_logs_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Nothing was logged"):
        training_log([{"step": 1, "train_runtime": 2.0}])
    with pytest.raises(FileNotFoundError, match=r"There is no file .*trainer_state\.json"):
        training_log(tmp_path)
