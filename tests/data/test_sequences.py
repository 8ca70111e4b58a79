"""Windows: every visit but a person's first is a target exactly once; the paper's day windows equal a naive loop."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Trainer, TrainingArguments

from hf_mobility import City, SamoeConfig, SamoeForNextLocation, SamoeTokenizer, VisitCollator
from hf_mobility.data.sequences import FIELDS, CitySequences, bounded_runs, day_windows, pad_visits, visits_to_dataset

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def make_sequences(lengths: list[int], seed: int = 0) -> CitySequences:
    """People with these numbers of visits, up to two days apart; every field holds other numbers."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = offsets[-1]
    fields = {name: 1000 * k + np.arange(n) for k, name in enumerate(FIELDS)}
    fields["timestamps"] = 1_700_000_000 + rng.integers(60, 172_800, n).cumsum()
    return CitySequences(fields, offsets, np.arange(len(lengths)))


def make_visits(lengths: tuple[int, ...] = (9, 5, 1)) -> tuple[pd.DataFrame, SamoeTokenizer]:
    rng = np.random.default_rng(0)
    n = sum(lengths)
    places = rng.integers(0, 6, n)
    visits = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(lengths)), lengths),
            "time": pd.to_datetime(1_700_000_000 + rng.integers(60, 90_000, n).cumsum(), unit="s", utc=True),
            "location_id": places.astype(str),
            "lat": 48 + places / 100,
            "lon": 11 + places % 3 / 100,
        }
    )
    return visits, SamoeTokenizer.from_city(
        City.from_visits(visits, timezone="Europe/Berlin"), SamoeConfig.from_preset("tiny")
    )


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 12), st.one_of(st.none(), st.integers(0, 99)))
def test_every_visit_but_the_first_is_a_target_exactly_once(lengths: list[int], window: int, seed: int | None) -> None:
    sequences = make_sequences(lengths)
    windows = sequences.windows(window, None if seed is None else np.random.default_rng(seed))
    assert windows.shape == (len(windows), 2)
    targets = [row for start, stop in windows.tolist() for row in range(start + 1, stop)]
    firsts = set(sequences.offsets[:-1].tolist())
    assert sorted(targets) == [row for row in range(len(sequences)) if row not in firsts]
    for start, stop in windows.tolist():
        assert 2 <= stop - start <= window + 1
        person = np.searchsorted(sequences.offsets, start, side="right")
        assert stop <= sequences.offsets[person]  # nobody else's visits


def test_without_a_generator_windows_are_cut_from_the_first_visit() -> None:
    windows = make_sequences([10, 4, 1]).windows(4)
    assert windows.tolist() == [[0, 5], [4, 9], [8, 10], [10, 14]]


def test_a_random_first_cut_is_new_each_time_and_reproducible() -> None:
    sequences = make_sequences([40] * 5)
    first, again, other = (sequences.windows(8, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_people_with_one_visit_give_no_window() -> None:
    assert make_sequences([1, 1]).windows(4).shape == (0, 2)


def test_a_subset_holds_these_people_in_this_order() -> None:
    sequences = make_sequences([3, 4, 2])
    part = sequences.subset(np.array([2, 0]))
    assert part.users.tolist() == [2, 0] and part.offsets.tolist() == [0, 2, 5] and len(part) == 5
    for name in FIELDS:
        assert part.fields[name].tolist() == sequences.fields[name][[7, 8, 0, 1, 2]].tolist()


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_day_windows_equal_a_naive_loop(lengths: list[int], days: int, least: int, seed: int) -> None:
    sequences = make_sequences(lengths, seed)
    day = sequences.fields["timestamps"] // 86_400
    wanted = []
    for start, stop in zip(sequences.offsets[:-1].tolist(), sequences.offsets[1:].tolist()):
        for first in sorted({int(day[row]) for row in range(start, stop)}):
            rows = [row for row in range(start, stop) if first <= day[row] < first + days]
            if len(rows) >= least:
                wanted.append([rows[0], rows[-1] + 1])
    assert day_windows(sequences, days=days, min_visits=least).tolist() == wanted


def test_sequences_of_visits_are_what_the_tokenizer_encodes() -> None:
    visits, tokenizer = make_visits()
    sequences, encoded = CitySequences.from_visits(visits, tokenizer), tokenizer.encode_visits(visits)
    assert len(sequences) == 15 and sequences.offsets.tolist() == [0, 9, 14, 15]
    assert all(np.array_equal(sequences.fields[name], encoded[name]) for name in FIELDS)


def test_a_dataset_has_a_row_per_window_and_labels_without_the_first() -> None:
    visits, tokenizer = make_visits()
    dataset, encoded = visits_to_dataset(visits, tokenizer, max_length=4), tokenizer.encode_visits(visits)
    assert set(dataset.column_names) == {*FIELDS, "labels"}
    windows = [(0, 5), (4, 9), (9, 14)]
    for row, (start, stop) in zip(dataset, windows, strict=True):
        for name in FIELDS:
            assert row[name] == encoded[name][start:stop].tolist()
        assert row["labels"] == [-100, *row["input_ids"][1:]]


def test_the_rows_of_a_dataset_are_what_a_model_takes() -> None:
    visits, tokenizer = make_visits()
    model = SamoeForNextLocation(SamoeConfig.from_preset("tiny"))
    for row in visits_to_dataset(visits, tokenizer).with_format("torch"):
        batch = {name: value[None] for name, value in row.items()}
        model(**batch, location_features=tokenizer.location_features).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_the_collator_pads_the_rows_and_adds_the_city() -> None:
    visits, tokenizer = make_visits()
    rows = list(visits_to_dataset(visits, tokenizer, max_length=6))
    before = copy.deepcopy(rows)
    batch = VisitCollator(tokenizer)(rows)
    padded = pad_visits([{name: np.asarray(row[name]) for name in FIELDS} for row in rows])
    assert batch.keys() == {*padded, "labels", "stay_labels", "location_features"}
    for name, values in padded.items():
        assert batch[name].tolist() == values.tolist(), name
    labels = np.where(padded["attention_mask"] == 1, padded["input_ids"], -100)
    labels[:, 0] = -100
    assert batch["labels"].tolist() == labels.tolist() and batch["stay_labels"].tolist() == padded["stay_ids"].tolist()
    assert torch.equal(batch["location_features"], tokenizer.location_features)
    assert rows == before


def test_a_plain_trainer_trains_on_a_dataset(tmp_path: Path) -> None:
    """Nothing of this package's training but the collator that adds the city."""
    visits, tokenizer = make_visits((12, 12, 7))
    dataset, collate = visits_to_dataset(visits, tokenizer, max_length=5), VisitCollator(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SamoeForNextLocation(SamoeConfig.from_preset("tiny"))
        before = model.query_proj.weight.detach().clone()
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            per_device_train_batch_size=3,
            learning_rate=1e-2,
            use_cpu=True,
            report_to="none",
        )
        result = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate).train()
    assert np.isfinite(result.training_loss) and result.global_step == 4
    assert not torch.equal(model.query_proj.weight, before)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_padded_visits_are_the_visits_and_zeros(lengths: list[int]) -> None:
    sequences = make_sequences(lengths)
    items = [
        {name: value[start:stop] for name, value in sequences.fields.items()}
        for start, stop in zip(sequences.offsets[:-1], sequences.offsets[1:])
    ]
    batch = pad_visits(items)
    assert set(batch) == {*FIELDS, "attention_mask"}
    for name, rows in batch.items():
        assert rows.dtype == np.int64 and rows.shape == (len(lengths), max(lengths))
        for row, item, n in zip(rows, items, lengths):
            wanted = np.ones(n) if name == "attention_mask" else item[name]
            assert np.array_equal(row[:n], wanted) and not row[n:].any()


def test_unknown_places_are_handled_as_the_tokenizer_does() -> None:
    visits, tokenizer = make_visits()
    strange = visits.assign(location_id=visits["location_id"].where(visits.index > 0, "elsewhere"))
    with pytest.raises(ValueError, match="does not list"):
        CitySequences.from_visits(strange, tokenizer)
    assert len(CitySequences.from_visits(strange, tokenizer, unknown="drop")) == 14


@given(LENGTHS, st.integers(1, 120), st.integers(1, 40), st.none() | st.integers(1, 4))
def test_runs_are_as_long_as_their_bounds_allow(lengths: list[int], tokens: int, scores: int, size: int | None) -> None:
    costs = np.sort(lengths)
    runs = list(bounded_runs((costs, tokens), (np.minimum(costs, 3), scores), size=size))
    assert np.concatenate([np.arange(len(costs))[run] for run in runs]).tolist() == list(range(len(costs)))

    def fits(run: slice) -> bool:
        rows = run.stop - run.start
        longest = costs[run.stop - 1]
        return rows * longest <= tokens and rows * min(longest, 3) <= scores and (size is None or rows <= size)

    for run in runs:
        assert fits(run) or run.stop - run.start == 1
        assert run.stop == len(costs) or not fits(slice(run.start, run.stop + 1))
