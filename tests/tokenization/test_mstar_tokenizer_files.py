"""M-STAR's tokenizer in use: text, files, collators, remote code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding, default_data_collator

from hf_mobility import SamoeTokenizer
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

BOX = (47.9, 10.9, 48.1, 11.2)
FIELDS = ("lat", "lon", "cell_map", "medoids")


def make_tokenizer(**changes: Any) -> MstarTokenizer:
    options = {"timezone": "Europe/Berlin", "rows": 6, "columns": 5, "factors": (4, 2, 1), "name": "Town", **changes}
    return MstarTokenizer.from_grid(BOX, **options)


def make_cells(n: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 30, (n, 6))[:, np.arange(168) // 6 % 6]
    cells[rng.random((n, 168)) < 0.2] = -1
    return cells


TOKENIZER = make_tokenizer()


# Text


def test_the_text_path() -> None:
    assert TOKENIZER("3 0 ? 29")["input_ids"] == [3, 0, 30, 29]
    assert TOKENIZER.tokenize("3 0") == ["3", "0"]
    assert TOKENIZER.decode([3, 0, 30, 29]) == "3 0 ? 29"
    assert TOKENIZER.decode([3, 30], skip_special_tokens=True) == "3"
    batch = TOKENIZER(["3 0 7", "1"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[3, 0, 7], [1, 30, 30]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert len(TOKENIZER) == TOKENIZER.vocab_size == len(TOKENIZER.get_vocab()) == 31
    with pytest.raises(ValueError, match=r"'30' is no cell of this grid; cells are 0\.\.29"):
        TOKENIZER("1 30")


def test_weeks_survive_as_text() -> None:
    cells = make_cells(3)
    texts = [TOKENIZER.decode(np.where(week < 0, 30, week)) for week in cells]
    again = np.array(TOKENIZER(texts)["input_ids"])
    assert np.array_equal(np.where(again == 30, -1, again), cells)


# Collators


@pytest.mark.parametrize("collator", [default_data_collator, DataCollatorWithPadding(TOKENIZER)])
def test_collators_of_transformers_make_the_same_batch(collator: Callable[[list[dict[str, Any]]], Any]) -> None:
    batch = TOKENIZER(make_cells(4), return_tensors="pt")
    rows = [{name: value[i].tolist() for name, value in batch.items()} for i in range(4)]
    found = collator(rows)
    assert all(torch.equal(found[name], batch[name]) for name in batch)


# Files


@pytest.mark.parametrize("method", ["none", "medoids", "distinct_cells"])
def test_a_saved_tokenizer_is_the_same(tmp_path: Path, method: str) -> None:
    tokenizer = make_tokenizer(num_hours=168, home_hours=(0, 6))
    if method != "none":
        tokenizer.fit_conditions(make_cells(), method=method, num_attributes=3, smoothing=2.5)
    tokenizer.save_pretrained(tmp_path, min_users=1)
    loaded = MstarTokenizer.from_pretrained(tmp_path)
    for name in FIELDS:
        first, second = getattr(tokenizer, name), getattr(loaded, name)
        assert first.dtype == second.dtype and np.array_equal(first, second), name
    for name in ("name", "timezone", "num_hours", "interval_minutes", "bounds", "rows", "columns", "home_hours",
                 "attribute_method", "num_attributes"):  # fmt: skip
        assert getattr(tokenizer, name) == getattr(loaded, name), name
    first, second = tokenizer(make_cells(), return_tensors="pt"), loaded(make_cells(), return_tensors="pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert loaded("3 ? 4")["input_ids"] == [3, 30, 4]
    if method != "none":
        first, second = tokenizer.sample_conditions(99, seed=1), loaded.sample_conditions(99, seed=1)
        assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "option",
    [{"num_hours": 24}, {"interval_minutes": 30}, {"factors": (2, 1)}, {"cell_map": np.arange(30)[:, None]}],
    ids=lambda option: next(iter(option)),
)
def test_what_the_files_hold_cannot_be_changed_by_loading(tmp_path: Path, option: dict[str, Any]) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    (name,) = option
    with pytest.raises(ValueError, match=f"the files hold {name} already: make another tokenizer of their city"):
        MstarTokenizer.from_pretrained(tmp_path, **option)
    assert MstarTokenizer.from_pretrained(tmp_path, home_hours=(0, 6)).home_hours == (0, 6)


def test_a_tokenizer_is_small_and_holds_no_pickle(tmp_path: Path) -> None:
    tokenizer = MstarTokenizer.from_grid(BOX, timezone="Asia/Shanghai")
    tokenizer.fit_conditions(make_cells(), num_attributes=8)
    tokenizer.save_pretrained(tmp_path, min_users=1)
    files = [path for path in tmp_path.iterdir() if path.suffix != ".py"]
    assert {path.name for path in files} == {"city.json", "city.safetensors", "tokenizer_config.json"}
    assert sum(path.stat().st_size for path in files) < 80_000


def test_files_of_another_kind_or_version_are_refused(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    header = json.loads((tmp_path / "city.json").read_text())
    (tmp_path / "city.json").write_text(json.dumps(header | {"format_version": 99}))
    with pytest.raises(ValueError, match="format version 99; this release reads 1 and 2"):
        MstarTokenizer.from_pretrained(tmp_path)
    (tmp_path / "city.json").write_text(json.dumps({k: v for k, v in header.items() if k != "kind"}))
    with pytest.raises(ValueError, match="is of kind 'samoe'; this tokenizer reads 'mstar'"):
        MstarTokenizer.from_pretrained(tmp_path)
    assert SamoeTokenizer.vocab_files_names == MstarTokenizer.vocab_files_names  # so one can meet the other's files
