"""What a plain `Trainer` needs: aligned arrays as a training set, and SAMoE's rows of one city as a batch.

A batch of `ArrayRows` is cut from the arrays at once, without a Python step per row. A batch of visits carries the
city, which a model does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class ArrayRows(torch.utils.data.Dataset):
    """Columns of equal length, e.g. what a tokenizer returns; an item is a dict of one row's tensors.

    Args:
        columns: name -> array or tensor (N, ...).

    Raises:
        ValueError: if the columns differ in length, or there are none.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = {name: torch.as_tensor(values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns must have one length, got {lengths or 'no column'}.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[index] for name, values in self.columns.items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A whole batch at once; `collate` hands it on as it is."""
        rows = torch.as_tensor(indices)
        return {name: values[rows] for name, values in self.columns.items()}

    @staticmethod
    def collate(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return batch


class VisitCollator:
    """`data_collator` of a plain `Trainer` for rows of `hf_mobility.data.sequences.visits_to_dataset`: pads on the
    right, and adds `location_features` and the classes of stays. For several cities, or batches of like length, see
    `MobilityTrainer`.

    Args:
        tokenizer: the city of all rows.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{name: values for name, values in row.items() if name != "labels"} for row in rows]
        batch = dict(self.tokenizer.pad(inputs, padding_side="right", return_tensors="pt"))
        batch["labels"] = torch.full_like(batch["input_ids"], -100)
        for line, row in zip(batch["labels"], rows):
            line[: len(row["labels"])] = torch.as_tensor(row["labels"])
        return {**batch, "stay_labels": batch["stay_ids"], "location_features": self.tokenizer.location_features}
