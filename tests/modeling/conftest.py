"""Builders that the SAMoE tests share, given as the fixture `build`. Every weight is random, so that nothing hides
behind a zero.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_mobility import SamoeConfig, SamoeForNextLocation

DAY = 86_400
HALF_HOUR = 1_800


@pytest.fixture
def torn_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """To see what is drawn for weights that a file lacks; users get a refusal."""
    monkeypatch.setattr("hf_mobility.modeling.loading._torn", lambda *args, **options: [])


def make_config(variant: str = "extended", **overrides: Any) -> SamoeConfig:
    return SamoeConfig.from_preset("tiny", variant=variant, **overrides)


@torch.no_grad()
def make_model(variant: str = "extended", *, seed: int = 0, **overrides: Any) -> SamoeForNextLocation:
    """A tiny model in evaluation mode; all parameters are drawn, biases, norms and zero-initialised ones too."""
    model = SamoeForNextLocation(make_config(variant, **overrides)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.add_(1)
    return model


def make_city(config: SamoeConfig, n: int = 12, *, seed: int = 0) -> torch.Tensor:
    """(n + 2, F): POI shares, x and y, level 1..8, and km where the model uses them; two zero rows first."""
    generator = torch.Generator().manual_seed(seed)
    columns = [
        torch.rand(n, config.num_poi_features, generator=generator),
        torch.randn(n, 2, generator=generator),
        torch.randint(1, 9, (n, 1), generator=generator).float(),
    ]
    if config.uses_distances:
        columns.append(3 * torch.randn(n, 2, generator=generator))
    rows = torch.cat(columns, dim=1)
    return torch.cat([torch.zeros(2, rows.shape[1]), rows])


def make_visits(
    config: SamoeConfig, n: int = 12, *, batch: int = 3, length: int = 9, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random visits; times ascend, and slot and weekday are those of the times."""
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.randint(600, 40_000, (batch, length), generator=generator)
    timestamps = 1_700_000_000 + gaps.cumsum(1)
    return {
        "input_ids": torch.randint(2, n + 2, (batch, length), generator=generator),
        "time_ids": timestamps // HALF_HOUR % 48,
        "weekday_ids": (timestamps // DAY + 3) % 7,
        "stay_ids": torch.randint(1, config.num_stay_bins, (batch, length), generator=generator),
        "timestamps": timestamps,
    }


def make_all(variant: str = "extended", **overrides: Any) -> tuple[SamoeForNextLocation, torch.Tensor, dict]:
    """Model, city and visits that fit together."""
    model = make_model(variant, **overrides)
    return model, make_city(model.config), make_visits(model.config)


def rows_of(visits: dict[str, torch.Tensor], which: Any) -> dict[str, torch.Tensor]:
    """The same positions of every per-visit tensor."""
    return {name: value[:, which] for name, value in visits.items()}


def assert_same(first: torch.Tensor, second: torch.Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(first, second, atol=atol, rtol=rtol)


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    return SimpleNamespace(
        config=make_config,
        model=make_model,
        city=make_city,
        visits=make_visits,
        all=make_all,
        rows_of=rows_of,
        assert_same=assert_same,
    )
