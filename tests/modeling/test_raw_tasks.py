"""RAW's task heads: the encoder stays frozen, regions are one sparse product, users' embeddings are never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import (
    RawForRegionAnalysis,
    RawForTrajectoryPrediction,
    RawForUserProfiling,
    RawModel,
)
from hf_mobility.modeling.regions_raw import pool_visitors, visitor_matrix


def make(cls: type, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return cls(RawConfig.from_preset("tiny", **overrides)).eval()


def make_series(batch: int = 4, length: int = 9, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(batch, length, 2, generator=torch.Generator().manual_seed(seed)) - 1


# Frozen encoder


@pytest.mark.parametrize("cls", [RawForUserProfiling, RawForRegionAnalysis])
def test_only_the_classifier_is_trained(cls: type, tmp_path: Path) -> None:
    model = make(cls)
    model.save_pretrained(tmp_path)
    loaded, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    for checked in (model, loaded, cls.from_pretrained(tmp_path)):
        trained = {name for name, weight in checked.named_parameters() if weight.requires_grad}
        assert trained == {
            f"classifier.{part}" for part in ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")
        }
        checked.train()
        assert checked.training and checked.classifier.training and not checked.model.training


def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_weights() -> None:
    model = make(RawForUserProfiling, dropout=0.5).train()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        output = model(make_series(), labels=torch.tensor([0, 1, 1, 0]))
        assert not output.user_embedding.requires_grad
        output.loss.backward()
        optimiser.step()
    assert all(weight.grad is None for weight in model.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    first, second = (model(make_series()).user_embedding for _ in range(2))
    assert torch.equal(first, second)  # its dropout is off in training too


@pytest.mark.parametrize("cls", [RawForUserProfiling, RawForRegionAnalysis])
def test_the_encoder_may_be_fine_tuned(cls: type, tmp_path: Path) -> None:
    make(cls, freeze_encoder=False).save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path).train()
    assert model.model.training
    inputs = {} if cls is RawForUserProfiling else {"visitors": torch.tensor([[0, 0], [0, 1], [1, 2], [2, 3], [3, 3]])}
    model(coordinates=make_series(), labels=torch.tensor([0, 1, 1, 0]), **inputs).loss.backward()
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert missing == []


def test_an_adapter_on_a_frozen_encoder_is_trained() -> None:
    peft = pytest.importorskip("peft")
    model = make(RawForUserProfiling)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["classifier"]))
    wrapped.train()
    wrapped(coordinates=make_series(), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
    gradients = {name: weight.grad for name, weight in wrapped.named_parameters() if weight.requires_grad}
    assert len([name for name in gradients if "lora_B" in name]) == 8
    assert all(gradient is not None for gradient in gradients.values())
    assert any(gradient.abs().max() > 0 for name, gradient in gradients.items() if "lora_B" in name)


# User profiling


def test_scores_are_the_mlp_of_the_standardised_embedding() -> None:
    model, body, x = make(RawForUserProfiling, num_labels=3), make(RawModel), make_series(6)
    model.model.load_state_dict(body.state_dict())
    with torch.no_grad():
        users = body(x).user_embedding
        model.fit_standardiser(users)
        output = model(x)
        standard = (users - users.mean(0)) / users.std(0)
        head = model.classifier
        hidden = F.relu(standard @ head.dense.weight.T + head.dense.bias)
        wanted = hidden @ head.out_proj.weight.T + head.out_proj.bias
    assert output.logits.shape == (6, 3) and head.dense.out_features == 256
    torch.testing.assert_close(output.user_embedding, users)
    torch.testing.assert_close(output.logits, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(user_embeddings=users).logits, output.logits)


def test_a_head_reads_the_parts_of_the_day() -> None:
    model = make(RawForUserProfiling, user_pooling="day_parts", num_labels=3, slots_per_day=4)
    x = torch.randn(5, 8, 2)
    given = model(user_embeddings=model.model(x).user_embedding)
    torch.testing.assert_close(model(x).logits, given.logits)
    assert given.user_embedding.shape == (5, 64)
    regions = make(RawForRegionAnalysis, user_pooling="day_parts", region_pooling="log", slots_per_day=4)
    assert regions(coordinates=x, visitors=torch.tensor([[0, 2], [1, 0]])).region_embedding.shape == (2, 65)


def test_a_linear_probe_has_one_matrix() -> None:
    model = make(RawForUserProfiling, head_hidden_size=0)
    assert {name for name, _ in model.classifier.named_parameters()} == {"out_proj.weight", "out_proj.bias"}
    assert model(make_series()).logits.shape == (4, 2)


def test_columns_that_never_change_are_only_centred() -> None:
    model = make(RawForUserProfiling)
    users = torch.randn(5, 16)
    users[:, 3] = 7.0
    model.fit_standardiser(users)
    assert model.classifier.feature_mean[3] == 7 and model.classifier.feature_scale[3] == 1
    for wrong in (users[:1], users[:, :4], users[0]):
        with pytest.raises(ValueError, match=r"features must be \(n, 16\)"):
            model.fit_standardiser(wrong)


def test_statistics_are_saved_with_the_weights(tmp_path: Path) -> None:
    model = make(RawForUserProfiling)
    model.fit_standardiser(3 + 2 * torch.randn(50, 16))
    model.save_pretrained(tmp_path)
    loaded = RawForUserProfiling.from_pretrained(tmp_path)
    assert torch.equal(loaded.classifier.feature_mean, model.classifier.feature_mean)
    assert torch.equal(loaded.classifier.feature_scale, model.classifier.feature_scale)


def test_a_pre_trained_model_gets_a_new_head(tmp_path: Path) -> None:
    """Heads are missing from the checkpoint: what is initialised must be numbers, not what lay in memory."""
    trained = make(RawForTrajectoryPrediction)
    trained.save_pretrained(tmp_path)
    for cls in (RawForUserProfiling, RawForRegionAnalysis):
        model = cls.from_pretrained(tmp_path, num_labels=4)
        assert all(
            torch.equal(value, trained.model.state_dict()[name]) for name, value in model.model.state_dict().items()
        )
        head = model.classifier
        assert (head.feature_mean == 0).all() and (head.feature_scale == 1).all()
        assert head.dense.weight.abs().max() <= 0.25 and head.dense.weight.std().item() == pytest.approx(0.144, rel=0.1)
        assert head.out_proj.bias.shape == (4,) and head.out_proj.bias.abs().max() <= 1 / 16


@pytest.mark.parametrize(
    ("config", "labels", "wanted"),
    [
        ({"num_labels": 1}, torch.tensor([0.5, -1.0, 2.0, 0.0]), lambda z, y: F.mse_loss(z[:, 0], y)),
        ({"num_labels": 3}, torch.tensor([0, 2, 1, 1]), F.cross_entropy),
        ({"num_labels": 2}, torch.eye(4)[:, :2], F.binary_cross_entropy_with_logits),
        ({"num_labels": 2, "problem_type": "regression"}, torch.eye(4)[:, :2], F.mse_loss),
    ],
    ids=["regression", "classes", "several labels", "several values"],
)
def test_losses_are_those_of_transformers_classifiers(config: dict, labels: torch.Tensor, wanted: Any) -> None:
    model = make(RawForUserProfiling, **config)
    output = model(make_series(), labels=labels)
    torch.testing.assert_close(output.loss, wanted(output.logits, labels))


def test_missing_labels_do_not_count() -> None:
    classes, values = make(RawForUserProfiling), make(RawForUserProfiling, num_labels=1)
    output = classes(make_series(), labels=torch.tensor([0, -100, 1, -100]))
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[[0, 2]], torch.tensor([0, 1])))
    output = values(make_series(), labels=torch.tensor([0.5, float("nan"), 1.0, -100.0]))
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[[0, 2], 0], torch.tensor([0.5, 1.0])))
    output.loss.backward()
    assert torch.isfinite(values.classifier.dense.weight.grad).all()


def test_users_come_as_embeddings_or_as_series() -> None:
    model = make(RawForUserProfiling)
    with pytest.raises(ValueError, match="in place of coordinates"):
        model(make_series(), user_embeddings=torch.zeros(4, 16))


# Regions


def test_the_papers_toy_comes_out_right() -> None:
    """Two users, three regions; adding in place, as the published code does, gives [6, 9] twice."""
    users = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])
    visitors = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]])
    before = users.clone()
    total, counts = pool_visitors(visitor_matrix(visitors, num_users=3), users)
    assert total.tolist() == [[2, 4], [5, 8]] and counts.tolist() == [2, 3]
    assert torch.equal(users, before)


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60)


@settings(max_examples=50, deadline=None)
@given(pairs, st.integers(0, 1000), st.integers(1, 3))
def test_a_region_is_the_sum_over_its_distinct_visitors(visits: list, seed: int, min_visits: int) -> None:
    users = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
    before = users.clone()
    matrix = visitor_matrix(torch.tensor(visits), num_regions=5, num_users=7, min_visits=min_visits)
    total, counts = pool_visitors(matrix, users)
    mean, _ = pool_visitors(matrix, users, pooling="mean")
    log, _ = pool_visitors(matrix, users, pooling="log")
    for region in range(5):
        people = sorted({u for r, u in visits if r == region and visits.count((r, u)) >= min_visits})
        wanted = np.sum(users.numpy()[people], axis=0) if people else np.zeros(3)
        np.testing.assert_allclose(total[region], wanted, atol=1e-5)
        np.testing.assert_allclose(mean[region], wanted / max(len(people), 1), atol=1e-5)
        np.testing.assert_allclose(log[region], [*(wanted / max(len(people), 1)), np.log1p(len(people))], atol=1e-5)
        assert counts[region] == len(people)
    assert torch.equal(users, before)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_matrix_of_counts_is_the_same_as_pairs() -> None:
    visitors = torch.tensor([[0, 1], [2, 0], [0, 1], [0, 2], [2, 3], [2, 3], [2, 3]])
    counts = torch.zeros(4, 5).index_put_(tuple(visitors.T), torch.ones(7), accumulate=True)
    for least in (1, 2, 3):
        wanted = visitor_matrix(visitors, num_regions=4, num_users=5, min_visits=least).to_dense()
        for matrix in (counts.to_sparse_coo(), counts.to_sparse_csr()):
            assert torch.equal(visitor_matrix(matrix, num_users=5, min_visits=least).to_dense(), wanted)
        assert torch.equal(wanted, (counts >= least).float())


def test_the_sum_is_additive_over_disjoint_people() -> None:
    model = make(RawForRegionAnalysis)
    users, visitors = torch.randn(6, 16), torch.tensor([[0, 0], [0, 1], [1, 3], [0, 4], [1, 5]])
    early = visitors[:, 1] < 3
    whole, a, b = (
        model(users, visitors=some, num_regions=2).region_embedding
        for some in (visitors, visitors[early], visitors[~early])
    )
    torch.testing.assert_close(whole, a + b)


def test_the_order_of_visits_has_no_meaning_and_nothing_is_changed() -> None:
    model = make(RawForRegionAnalysis, num_labels=1)
    users = torch.randn(6, 16)
    visitors = torch.tensor([[0, 0], [0, 1], [1, 3], [0, 4], [1, 5], [0, 0]])
    before, given_pairs = users.clone(), visitors.clone()
    first = model(users, visitors=visitors).logits
    torch.testing.assert_close(model(users, visitors=visitors.flip(0)).logits, first)
    assert torch.equal(users, before) and torch.equal(visitors, given_pairs)


def test_regions_of_series_are_regions_of_their_embeddings() -> None:
    model, x = make(RawForRegionAnalysis, region_pooling="log", num_labels=1), make_series()
    visitors = torch.tensor([[0, 0], [0, 1], [2, 3]])
    mask = torch.ones(4, 9, dtype=torch.long)
    mask[1, 5:] = 0
    with torch.no_grad():
        users = model.model(x, attention_mask=mask).user_embedding
        output = model(coordinates=x, attention_mask=mask, visitors=visitors)
        torch.testing.assert_close(output.logits, model(users, visitors=visitors).logits)
    assert output.region_embedding.shape == (3, 17) and output.num_visitors.tolist() == [2, 0, 1]


def test_regions_held_out_do_not_count() -> None:
    model, users = make(RawForRegionAnalysis, num_labels=1), torch.randn(6, 16)
    visitors = torch.tensor([[0, 0], [1, 1], [2, 3], [3, 4]])
    labels = torch.tensor([1.0, float("nan"), 2.0, float("nan"), 0.5])
    output = model(users, visitors=visitors, labels=labels)
    assert output.logits.shape == (5, 1)
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[[0, 2, 4], 0], labels[[0, 2, 4]]))


def test_faulty_regions_get_a_sentence() -> None:
    model, users = make(RawForRegionAnalysis), torch.randn(6, 16)
    visitors = torch.tensor([[0, 0], [1, 6], [-1, 2]])
    with pytest.raises(
        ValueError, match=r"2 of 3 pairs lie outside 2 regions and 6 users, first \[\[1, 6\], \[-1, 2\]\]"
    ):
        model(users, visitors=visitors)
    with pytest.raises(ValueError, match=r"1 of 1 pairs lie outside 3 regions"):
        model(users, visitors=torch.tensor([[3, 0]]), num_regions=3)
    with pytest.raises(ValueError, match="visitors are needed"):
        model(users)
    with pytest.raises(ValueError, match="either user_embeddings"):
        model(visitors=visitors)
    with pytest.raises(ValueError, match="must be integer pairs"):
        model(users, visitors=torch.rand(4, 2))
    with pytest.raises(ValueError, match=r"is a matrix \(3, 5\), needed is \(3, 6\)"):
        model(users, visitors=torch.zeros(3, 5).to_sparse())


def test_no_visits_at_all_are_empty_regions() -> None:
    output = make(RawForRegionAnalysis)(torch.randn(3, 16), visitors=torch.zeros(0, 2).long(), num_regions=2)
    assert (output.region_embedding == 0).all() and output.num_visitors.tolist() == [0, 0]


def test_bfloat16_users_are_summed_in_float32() -> None:
    users = torch.randn(300, 4)
    matrix = visitor_matrix(torch.stack([torch.zeros(300).long(), torch.arange(300)], dim=1), num_users=300)
    total, _ = pool_visitors(matrix, users.bfloat16())
    assert total.dtype == torch.float32
    torch.testing.assert_close(total[0], users.bfloat16().double().sum(0).float(), atol=1e-3, rtol=1e-3)


# Training


class Rows(torch.utils.data.Dataset):
    def __init__(self, x: torch.Tensor, **columns: torch.Tensor) -> None:
        self.columns = {"coordinates": x, **columns}

    def __len__(self) -> int:
        return len(self.columns["coordinates"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: value[row] for name, value in self.columns.items()}


def train(model: Any, rows: Rows, folder: Path, *, accumulation: int = 1) -> dict[str, torch.Tensor]:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        learning_rate=1e-2,
        optim="sgd",
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("cls", [RawForTrajectoryPrediction, RawForUserProfiling])
def test_accumulated_steps_are_those_of_one_large_batch(cls: type, tmp_path: Path) -> None:
    x = make_series(8)
    labels = x if cls is RawForTrajectoryPrediction else torch.tensor([0, 1] * 4)
    found = [
        train(make(cls, head_dropout=0.0), Rows(x, labels=labels), tmp_path, accumulation=steps) for steps in (1, 4)
    ]
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-6, rtol=1e-4)


def test_the_trainer_evaluates_predictions(tmp_path: Path) -> None:
    x = make_series(8)
    model = make(RawForTrajectoryPrediction)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True
    )
    output = Trainer(model=model, args=arguments).predict(Rows(x, labels=x))
    assert output.predictions.shape == (8, 9, 2)
    with torch.no_grad():
        assert output.metrics["test_loss"] == pytest.approx(model(x, labels=x).loss.item(), rel=1e-4)
