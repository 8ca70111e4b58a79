"""`ArrayRows`: a batch is what stacking its rows one by one would give, and the Trainer takes it as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate
from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments

from hf_mobility import ArrayRows, MstarConfig, MstarForTrajectoryGeneration, training_arguments


def make_columns(rows: int = 7) -> dict[str, np.ndarray | torch.Tensor]:
    rng = np.random.default_rng(0)
    return {
        "input_ids": rng.integers(0, 9, (rows, 2, 5)),
        "weights": torch.from_numpy(rng.random((rows, 3), np.float32)),
        "home_ids": rng.integers(0, 9, rows),
    }


@pytest.mark.parametrize("indices", [[3], [6, 0, 3], [2, 2], list(range(7))])
def test_a_batch_is_its_rows_stacked_one_by_one(indices: list[int]) -> None:
    rows = ArrayRows(make_columns())
    batch = ArrayRows.collate(rows.__getitems__(indices))
    stacked = default_collate([rows[index] for index in indices])
    assert batch.keys() == stacked.keys() == make_columns().keys()
    for name in stacked:
        assert batch[name].dtype == stacked[name].dtype
        assert torch.equal(batch[name], stacked[name])


def test_a_data_loader_gives_every_row_once_and_in_order() -> None:
    columns = make_columns()
    batches = list(DataLoader(ArrayRows(columns), batch_size=3, collate_fn=ArrayRows.collate))
    assert [len(batch["home_ids"]) for batch in batches] == [3, 3, 1]
    for name, values in columns.items():
        assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.as_tensor(values))


def test_changing_a_batch_does_not_change_the_columns() -> None:
    columns = make_columns()
    before = {name: torch.as_tensor(values).clone() for name, values in columns.items()}
    for values in ArrayRows(columns).__getitems__([0, 1]).values():
        values.zero_()
    assert all(torch.equal(torch.as_tensor(columns[name]), values) for name, values in before.items())


def test_columns_of_unequal_length_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"one length, got \{'cells': 4, 'home_ids': 3\}"):
        ArrayRows({"cells": np.zeros((4, 2)), "home_ids": np.zeros(3)})
    with pytest.raises(ValueError, match="got no column"):
        ArrayRows({})


class Line(PreTrainedModel):
    """y = a x, with its mean squared error."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.slope = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor, y: torch.Tensor, return_loss: bool = True) -> dict[str, torch.Tensor]:
        self.seen.append(len(x))
        return {"loss": (self.slope * x - y).square().mean()}


def test_a_trainer_learns_from_rows_and_is_judged_on_others(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 40)
    rows = ArrayRows({"x": x, "y": 2 * x})
    options = {"num_train_epochs": 20, "learning_rate": 0.5, "optim": "sgd", "warmup_steps": 0}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "bf16": False, "use_cpu": True}
    arguments = training_arguments(str(tmp_path), preset="mstar", per_device_train_batch_size=16, **options, **quiet)
    model = Line(PreTrainedConfig())
    judged = ArrayRows({"x": x, "y": x})
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=judged, data_collator=ArrayRows.collate)
    trainer.train()
    assert sorted(model.seen) == [8] * 20 + [16] * 40
    assert model.slope.item() == pytest.approx(2, abs=0.1)
    expected = float((model.slope.detach() * x - x).square().mean())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_plain_trainer_evaluates_mstar_without_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")).eval()
    codec, rows = model.config.codec, 6
    columns = {"code_ids": torch.randint(codec.codebook_size, (rows, codec.num_codes_per_week))}
    columns |= {name: torch.arange(rows) % codec.num_cells for name in ("home_ids", "work_ids")}
    columns["attribute_ids"] = torch.zeros(rows, dtype=torch.long)
    options = {"label_names": [], "remove_unused_columns": False, "use_cpu": True, "report_to": "none"}
    arguments = TrainingArguments(str(tmp_path), disable_tqdm=True, **options)
    with torch.no_grad():
        expected = float(model(**columns).loss)
    trainer = Trainer(model, arguments, eval_dataset=ArrayRows(columns), data_collator=ArrayRows.collate)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected)
