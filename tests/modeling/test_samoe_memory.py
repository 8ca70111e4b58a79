"""Places are scored and encoded in blocks: the same numbers, and no intermediate result grows with the whole city."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mobility.modeling import layers
from hf_mobility.modeling.pointer_samoe import DISTANCE_SCALES_KM, distance_basis

PLACES = 900
FORMS = [{}, {"num_pointer_heads": 4, "activity_features": True}, {"pointer_features": False}]


@pytest.fixture
def cut_small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on, blocks have 64 places, which do not divide a city of 902 rows."""

    def cut() -> None:
        monkeypatch.setattr(layers, "ROWS_AT_ONCE", 0)
        monkeypatch.setattr(layers, "BLOCK_VALUES", 1)

    return cut


class Largest(TorchDispatchMode):
    """Counts the elements of the largest result of any operation."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        counts = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *counts])
        return result


@contextmanager
def largest_result() -> Iterator[Largest]:
    with torch.no_grad(), Largest() as counter:
        yield counter


@pytest.mark.parametrize("overrides", FORMS, ids=str)
def test_blocks_of_places_are_scored_as_all_at_once(
    build: SimpleNamespace, cut_small: Callable[[], None], overrides: dict
) -> None:
    model = build.model(**overrides)
    city, visits = build.city(model.config, PLACES), build.visits(model.config, PLACES)
    with torch.no_grad():
        table = model.encode_locations(city)
        wanted = model(**visits, location_table=table).logits
        cut_small()
        torch.testing.assert_close(model.encode_locations(city).embeddings, table.embeddings)
        torch.testing.assert_close(model(**visits, location_table=table).logits, wanted, rtol=1e-5, atol=1e-5)


def test_nothing_is_larger_than_the_scores_themselves(build: SimpleNamespace, cut_small: Callable[[], None]) -> None:
    cut_small()
    model = build.model(num_pointer_heads=4, activity_features=True)
    city, visits = build.city(model.config, PLACES), build.visits(model.config, PLACES, batch=4, length=6)
    with largest_result() as encoding:
        table = model.encode_locations(city)
    assert encoding.elements == table.embeddings.numel()
    with largest_result() as scoring:
        logits = model(**visits, location_table=table).logits
    assert scoring.elements == logits.numel() == 24 * (PLACES + 2)


def test_few_rows_are_one_block_and_so_are_all_in_training() -> None:
    rows = torch.zeros(layers.ROWS_AT_ONCE + 1, 1)
    assert layers.blocks(rows, 1000) == [slice(None)]
    with torch.no_grad():
        assert layers.blocks(rows[1:], 10**9) == [slice(None)]
        cut = layers.blocks(rows, 1000)
    assert [row for block in cut for row in range(len(rows))[block]] == list(range(len(rows)))
    assert max(block.stop - block.start for block in cut) * 1000 <= layers.BLOCK_VALUES


@pytest.mark.parametrize("scale", range(5))
def test_distances_leave_no_subnormal_numbers(scale: int) -> None:
    """exp(-d / s) underflows a few kilometres away, and processors are slow where it does."""
    km = torch.stack([torch.linspace(0, 400, 4001), torch.zeros(4001)], dim=1)
    found = distance_basis(torch.zeros(1, 2), km)[0, scale]
    wanted = torch.exp(-km[:, 0].double() / DISTANCE_SCALES_KM[scale])
    assert found.min() >= 1e-30
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-30)
