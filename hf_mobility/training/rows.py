"""Aligned arrays as a training set: row i of every column is one example.

Unusual: a batch is cut from the arrays at once, without a Python step per row.
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
