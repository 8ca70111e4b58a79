"""A city's places as SAMoE encodes them, kept from call to call as long as the weights stay."""

from __future__ import annotations

from typing import Any

import torch


class EncodedCity:
    """The table that the model scores places with.

    To encode a city of 20,000 places takes longer than to predict one user. But weights may change between calls, in
    ways that leave no trace (further training, an adapter that is merged, switched or turned off). So a few rows of
    made-up features are encoded in each call, and the city again where these have changed.
    """

    def __init__(self, features: torch.Tensor, config: Any) -> None:
        """`features`: (N + 2, F), the tokenizer's `location_features`. config: of the model."""
        self.features = features
        self._probes = _probes(features.shape[1], config)
        self._table: Any = None
        self._seen: torch.Tensor | None = None

    def table(self, model: Any) -> Any:
        """The `LocationTable` of the weights as they are now, on their device."""
        found = model.encode_locations(self._probes.to(model.device)).embeddings
        if self._table is None or not _same(found, self._seen):
            self._table = model.encode_locations(self.features.to(model.device))
            self._seen = found
        return self._table


def _probes(columns: int, config: Any) -> torch.Tensor:
    """(levels, columns): no weight of the encoder is multiplied by zero, and each level of popularity occurs."""
    levels = config.num_popularity_levels
    rows = torch.rand(levels, columns, generator=torch.Generator().manual_seed(0)) + 0.5
    is_level = torch.arange(columns) == config.num_poi_features + 2
    return torch.where(is_level, torch.arange(levels, dtype=rows.dtype)[:, None], rows)


def _same(found: torch.Tensor, seen: torch.Tensor | None) -> bool:
    return seen is not None and found.device == seen.device and found.dtype == seen.dtype and torch.equal(found, seen)
