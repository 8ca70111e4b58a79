"""Training: recomputed activations, gradients of inputs, shifted targets, and what a Trainer predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import BATCH, CASES, PLACES, TRAINED, VISITS, loss_and_gradients, recomputing
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_mobility.modeling.layers import CACHE


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
@pytest.mark.parametrize("name", TRAINED)
def test_recomputed_activations_give_the_same_gradients(name: str, reentrant: bool) -> None:
    case = CASES[name]
    wanted = loss_and_gradients(case, case.model().train())
    found = loss_and_gradients(case, recomputing(case.model().train(), reentrant=reentrant))
    assert found.keys() == wanted.keys() and len(wanted) > 10
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", ["samoe", "raw", "mstar"])
def test_a_frozen_model_passes_gradients_on_where_inputs_are_told_to(name: str) -> None:
    case = CASES[name]
    model = recomputing(case.model().train(), reentrant=True)
    model.enable_input_require_grads()
    model.requires_grad_(False)
    last = list(model.layers if name == "mstar" else model.model.layers)[-1]
    weight = next(last.parameters()).requires_grad_(True)
    model(**case.batch(model, labels=True)).loss.backward()
    assert weight.grad is not None and bool(weight.grad.any())


def test_targets_may_be_shifted_already() -> None:
    case = CASES["samoe"]
    model = case.model()
    batch = case.batch(model, labels=True)
    shifted = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    with torch.no_grad():
        wanted = model(**batch)
        both = model(**{**batch, "labels": batch["labels"].flip(1)}, shift_labels=shifted)
        alone = model(**{name: value for name, value in batch.items() if name != "labels"}, shift_labels=shifted)
    for found in (both, alone):
        torch.testing.assert_close(found.loss, wanted.loss)
        torch.testing.assert_close(found.stay_loss, wanted.stay_loss)


def test_the_last_position_of_a_part_has_a_target_where_they_are_shifted_already() -> None:
    case = CASES["samoe paper"]
    model = case.model()
    batch = case.batch(model)
    target = torch.randint(2, PLACES + 2, batch["input_ids"].shape)
    with torch.no_grad():
        found = model(**batch, shift_labels=target)
    wanted = nn.functional.cross_entropy(found.logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(found.loss, wanted)


@pytest.mark.parametrize("name", ["samoe", "samoe paper"])
def test_the_losses_of_parts_add_up_to_the_loss_of_the_whole(name: str) -> None:
    """The second part knows the first by its cache. The count of labels is the whole's, as a Trainer gives it."""
    case = CASES[name]
    model = case.model()
    batch = case.batch(model, labels=True)
    city, count = batch.pop("location_features"), torch.tensor(BATCH * (VISITS - 1))
    for key in ("labels", "stay_labels"):
        batch[f"shift_{key}"] = nn.functional.pad(batch[key][:, 1:], (0, 1), value=-100)
    parts: list[Any] = []
    with torch.no_grad():
        whole = model(**batch, location_features=city)
        for columns in (slice(0, 3), slice(3, VISITS)):
            part = {key: value[:, columns] for key, value in batch.items()}
            cache = {CACHE: parts[-1][CACHE]} if parts else {}
            parts.append(model(**part, **cache, location_features=city, num_items_in_batch=count, use_cache=True))
    for term in ("location_loss", "stay_loss", "loss"):
        torch.testing.assert_close(sum(part[term] for part in parts), whole[term])


class Rows(torch.utils.data.Dataset):
    """The rows of one batch; a city's table goes to each of them and back."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return BATCH

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: value if name == "location_features" else value[row] for name, value in self.batch.items()}


def stack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    table = {name: rows[0].pop(name) for name in ("location_features",) if name in rows[0]}
    return {**{name: torch.stack([row[name] for row in rows]) for name in rows[0]}, **table}


@pytest.mark.parametrize("name", ["samoe", "raw", "raw users", "mstar", "codec"])
def test_a_trainer_predicts_one_row_per_input(name: str, tmp_path: Path) -> None:
    """Losses of a batch are no predictions: they have no row per input and could not be put together."""
    case = CASES[name]
    model = case.model()
    batch = case.batch(model, labels=True)
    options: dict[str, Any] = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "label_names": ["labels"]}
    arguments = TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, **options)
    trainer = Trainer(model, arguments, data_collator=stack)
    predictions = trainer.predict(Rows(batch)).predictions
    arrays = predictions if isinstance(predictions, tuple) else (predictions,)
    assert {len(array) for array in arrays} == {BATCH}
    torch.testing.assert_close(torch.from_numpy(arrays[0]), case.answer(model), atol=1e-5, rtol=1e-4)
