"""Generation and completion of weeks: conditions, seeds, batches and frames with a stand-in model, then with the tiny
real one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from hf_mobility.baselines import CommonHour
from hf_mobility.data import DataError, simulate_city
from hf_mobility.data.io.exports import matsim_plans, od_matrix
from hf_mobility.data.week_arrays import commonest
from hf_mobility.data.weeks import read_weeks
from hf_mobility.modeling.configuration_mstar import MstarConfig
from hf_mobility.pipelines.trajectory_generation import RESULT_COLUMNS, TrajectoryGenerationPipeline
from hf_mobility.tokenization.tokenization_mstar import MstarTokenizer

TOWN = simulate_city(40, num_days=7, seed=2)
BOX = (47.9, 10.9, 48.1, 11.1)


class StandIn:
    """Draws each hour from home, work place and a random cell; notes what it was asked."""

    def __init__(self, num_hours: int = 168, num_attributes: int = 4) -> None:
        codec = SimpleNamespace(cells_per_resolution=[4, 16], level_lengths=[1, num_hours])
        self.config = SimpleNamespace(codec_config=codec, num_attributes=num_attributes)
        self.device, self.calls, self.spoils = torch.device("cpu"), [], False

    def eval(self) -> StandIn:
        return self

    def generate(
        self,
        home_ids: torch.Tensor,
        work_ids: torch.Tensor,
        attribute_ids: torch.Tensor,
        *,
        generator: torch.Generator,
        prefix_ids: torch.Tensor | None = None,
        prefix_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        self.calls.append({"home_ids": home_ids, "work_ids": work_ids, "attribute_ids": attribute_ids, **options})
        hours = self.config.codec_config.level_lengths[-1]
        draws = torch.rand(len(home_ids), hours, 2, generator=generator)
        choice = torch.stack([home_ids, work_ids], 1).repeat_interleave(hours, 1).reshape(len(home_ids), 2, hours)
        cells = torch.where(draws[..., 0] < 0.5, choice[:, 0], choice[:, 1])
        cells = torch.where(draws[..., 0] > 0.9, (draws[..., 1] * 16).long(), cells)
        if prefix_mask is not None and not self.spoils:
            cells = torch.where(prefix_mask.bool(), prefix_ids[:, -1], cells)
        return cells


def make_tokenizer(num_hours: int = 168) -> MstarTokenizer:
    return MstarTokenizer.from_grid(BOX, timezone=TOWN.timezone, rows=4, columns=4, factors=(2, 1), num_hours=num_hours)


@pytest.fixture
def pipe() -> TrajectoryGenerationPipeline:
    tokenizer = make_tokenizer()
    tokenizer.fit_conditions(tokenizer.weeks(TOWN.visits), num_attributes=4)
    return TrajectoryGenerationPipeline(StandIn(), tokenizer, batch_size=16)


@pytest.fixture(scope="module")
def real() -> TrajectoryGenerationPipeline:
    """The tiny model, untrained, over days of 24 hours."""
    module = pytest.importorskip("hf_mobility.modeling.modeling_mstar", reason="the model is not there yet")
    tokenizer = make_tokenizer(24)
    tokenizer.fit_conditions(tokenizer.weeks(TOWN.visits), num_attributes=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = module.MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny"))
    return TrajectoryGenerationPipeline(model, tokenizer, batch_size=8)


def given_ids(pipe: TrajectoryGenerationPipeline) -> dict[str, np.ndarray]:
    names = ("home_ids", "work_ids", "attribute_ids")
    return {name: torch.cat([call[name] for call in pipe.model.calls]).numpy() for name in names}


# Generation


def test_conditions_are_those_that_the_tokenizer_draws(pipe: TrajectoryGenerationPipeline) -> None:
    pipe.generate(50, seed=3, to="weeks")
    wanted = pipe.tokenizer.sample_conditions(50, seed=3)
    found = given_ids(pipe)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert [len(call["home_ids"]) for call in pipe.model.calls] == [16, 16, 16, 2]


def test_the_frame_is_the_array_in_long_form(pipe: TrajectoryGenerationPipeline) -> None:
    cells = pipe.generate(20, seed=1, to="weeks")
    frame = pipe.generate(20, seed=1, start="2024-03-25")
    assert cells.shape == (20, 168) and cells.dtype == np.int32
    assert list(frame) == RESULT_COLUMNS and len(frame) == 20 * 168
    assert np.array_equal(frame["cell"].to_numpy().reshape(20, 168), cells)
    assert frame["trajectory_id"].tolist() == np.repeat(np.arange(20), 168).tolist()
    assert np.array_equal(frame["slot"], np.tile(np.arange(168), 20))
    np.testing.assert_array_equal(pipe.tokenizer.cells_at(frame["lat"], frame["lon"]), frame["cell"])
    local = frame["time"].dt.tz_convert(TOWN.timezone)
    assert local.iloc[0] == pd.Timestamp("2024-03-25", tz=TOWN.timezone)
    hours = local.dt.hour.to_numpy().reshape(20, 168)
    assert (hours[:, :144] == np.arange(144) % 24).all()
    assert hours[0, 144:148].tolist() == [0, 1, 3, 3]  # Sunday 31 March 2024 has no 02:00 in Berlin


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_the_seed_decides_and_the_batch_size_does_not(pipe: TrajectoryGenerationPipeline, size: int) -> None:
    wanted = pipe.generate(50, seed=5, to="weeks")
    assert np.array_equal(pipe.generate(50, seed=5, to="weeks"), wanted)
    assert not np.array_equal(pipe.generate(50, seed=6, to="weeks"), wanted)
    assert np.array_equal(pipe.generate(50, seed=5, to="weeks", batch_size=size), wanted)


def test_batches_come_one_at_a_time(pipe: TrajectoryGenerationPipeline) -> None:
    batches = pipe.batches(40, seed=2)
    assert not pipe.model.calls
    first = next(batches)
    assert first.shape == (16, 168) and len(pipe.model.calls) == 1
    rest = np.concatenate([first, *batches])
    assert np.array_equal(rest, pipe.generate(40, seed=2, to="weeks"))


def test_options_are_passed_on(pipe: TrajectoryGenerationPipeline) -> None:
    pipe.generate(20, top_k=7, smoothing_window=0)
    assert all((call["top_k"], call["smoothing_window"]) == (7, 0) for call in pipe.model.calls)


def test_given_conditions_replace_drawn_ones(pipe: TrajectoryGenerationPipeline) -> None:
    home, work, kind = np.arange(16), np.full(16, 3), np.arange(16) % 4
    pipe.generate(16, home_ids=home, work_ids=work, attribute_ids=kind)
    found = given_ids(pipe)
    assert np.array_equal(found["home_ids"], home) and np.array_equal(found["attribute_ids"], kind)
    pipe.model.calls.clear()
    pipe.generate(16, seed=4, attribute_ids=kind)
    found, drawn = given_ids(pipe), pipe.tokenizer.sample_conditions(16, seed=4)
    assert np.array_equal(found["home_ids"], drawn["home_ids"]) and np.array_equal(found["attribute_ids"], kind)
    unfitted = TrajectoryGenerationPipeline(StandIn(), make_tokenizer())
    unfitted.generate(16, home_ids=home, work_ids=work, attribute_ids=np.zeros(16, int))
    with pytest.raises(ValueError, match="call fit_conditions"):
        unfitted.generate(16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 1.5}, "n must be at least 1 and an integer, got 1.5"),
        ({"to": "csv"}, "to must be 'frame' or 'weeks'"),
        ({"home_ids": [1, 2]}, "home_ids and work_ids are given together or not at all"),
        ({"home_ids": [1], "work_ids": [1, 2]}, "home_ids must be 2 integers in 0..15"),
        ({"home_ids": [1, 16], "work_ids": [1, 2]}, "home_ids must be 2 integers in 0..15"),
        ({"attribute_ids": [0, 4]}, r"attribute_ids must be 2 integers in 0..3"),
        ({"start": "2024-01-03"}, "start must be a Monday"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    pipe: TrajectoryGenerationPipeline, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipe.generate(**{"n": 2, **options})


def test_a_city_that_is_not_the_models_is_refused() -> None:
    with pytest.raises(DataError, match="The model's hours are 168, the city's are 24"):
        TrajectoryGenerationPipeline(StandIn(), make_tokenizer(24))
    other = MstarTokenizer.from_grid(BOX, timezone="UTC", rows=5, columns=4, factors=(2, 1))
    with pytest.raises(DataError, match=r"cells per resolution are \[4, 16\], the city's are \[6, 20\]"):
        TrajectoryGenerationPipeline(StandIn(), other)
    tokenizer = make_tokenizer()
    tokenizer.fit_conditions(tokenizer.weeks(TOWN.visits), num_attributes=4)
    with pytest.raises(DataError, match="The city has 4 movement attributes, the model knows 3"):
        TrajectoryGenerationPipeline(StandIn(num_attributes=3), tokenizer)


# Completion


def make_gaps(cells: np.ndarray, share: float = 0.4) -> np.ndarray:
    return np.where(np.random.default_rng(0).random(cells.shape) < share, -1, cells)


def test_known_hours_stay_and_unknown_ones_are_filled(pipe: TrajectoryGenerationPipeline) -> None:
    cells = make_gaps(pipe.generate(20, to="weeks"))
    before = cells.copy()
    full = pipe.complete(cells, to="weeks")
    assert (full >= 0).all() and np.array_equal(full[cells >= 0], cells[cells >= 0])
    assert np.array_equal(cells, before)
    told = pipe.tokenizer(cells)
    pipe.model.calls.clear()
    pipe.complete(cells)
    found = given_ids(pipe)
    assert all(np.array_equal(found[name], told[name]) for name in found)


def test_a_frame_of_records_keeps_its_people_and_dates(pipe: TrajectoryGenerationPipeline) -> None:
    visits = TOWN.visits.drop(columns="duration")
    weeks = pipe.tokenizer.weeks(visits)
    frame = pipe.complete(visits)
    assert list(frame) == [*RESULT_COLUMNS, "user_id", "known"]
    assert frame["user_id"].tolist() == np.repeat(weeks.user_id, 168).tolist()
    assert np.array_equal(frame["known"].to_numpy().reshape(-1, 168), weeks.cells >= 0)
    assert str(frame["time"].dt.tz_localize(None).iloc[0]) == f"{weeks.start[0]} 00:00:00"
    again = pipe.complete(weeks)
    pd.testing.assert_frame_equal(frame, again)


def test_week_tables_and_frames_of_hours_are_completed_as_their_cells(
    pipe: TrajectoryGenerationPipeline, tmp_path: Path
) -> None:
    """One row per week, one row per hour, the table that `read_weeks` returns, or the bare cells."""
    cells = make_gaps(pipe.generate(5, to="weeks"))
    days = np.datetime64("2024-03-04") + 7 * np.arange(5)
    wide = pd.DataFrame(cells, columns=[f"h{hour}" for hour in range(168)]).assign(user_id=list("abcde"), start=days)
    listed = wide[["user_id", "start"]].assign(cells=list(cells))
    table = pipe.complete(wide)
    assert table["user_id"].tolist() == np.repeat(list("abcde"), 168).tolist()
    assert table["time"].dt.tz_localize(None).iloc[::168].dt.date.tolist() == days.astype(object).tolist()
    listed.to_parquet(tmp_path / "weeks.parquet")
    wide.to_csv(tmp_path / "weeks.csv", index=False)
    files = [tmp_path / "weeks.parquet", str(tmp_path / "weeks.csv"), pa.Table.from_pandas(wide)]
    for weeks in (listed, read_weeks(wide), *files):
        pd.testing.assert_frame_equal(pipe.complete(weeks), table)
    for name in ("h{:02}", "H{}", "hour{}", "slot{}", "{}"):
        other = wide.rename(columns={f"h{hour}": name.format(hour) for hour in range(168)})
        pd.testing.assert_frame_equal(pipe.complete(other), table)
    renamed = listed.rename(columns={"user_id": "uid"})
    pd.testing.assert_frame_equal(pipe.complete(renamed, user_id="uid"), table)
    hours = pd.DataFrame(
        {
            "uid": np.repeat(list("abcde"), 168),
            "start": np.repeat(days, 168),
            "slot": np.tile(np.arange(168), 5),
            "cell": cells.reshape(-1),
        }
    )
    hours = hours[hours["cell"] >= 0].sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(pipe.complete(hours, user_id="uid"), table)
    assert np.array_equal(pipe.complete(cells, to="weeks"), table["cell"].to_numpy().reshape(5, 168))
    with pytest.raises(DataError, match=r"\['user_id'\] name columns, but ndarray has none"):
        pipe.complete(cells, user_id="uid")


def test_a_guess_of_unknown_hours_is_what_users_do_on_other_days(pipe: TrajectoryGenerationPipeline) -> None:
    cells = make_gaps(pipe.generate(5, to="weeks"))
    pipe.model.calls.clear()
    pipe.complete(cells)
    guess = pipe.tokenizer(CommonHour().complete(cells), conditions=False)["input_ids"]
    assert np.array_equal(np.concatenate([call["filled_ids"] for call in pipe.model.calls]), guess)
    pipe.model.calls.clear()
    pipe.complete(cells, copy_days=False)
    assert all("filled_ids" not in call for call in pipe.model.calls)
    with pytest.raises(DataError, match="draws must be a whole number from 1 on, not 0"):
        pipe.complete(cells, draws=0)


def test_weeks_of_which_nothing_is_known_are_written_for_given_users(pipe: TrajectoryGenerationPipeline) -> None:
    nothing = np.full((2, 168), -1)
    ids = {"home_ids": [1, 2], "work_ids": [3, 4], "attribute_ids": [0, 1]}
    assert pipe.complete(nothing, to="weeks", **ids).shape == (2, 168)
    some = np.concatenate([nothing, np.full((1, 168), 5)])
    ids = {name: [*values, 0] for name, values in ids.items()}
    assert (pipe.complete(some, to="weeks", **ids)[2] == 5).all()


def test_given_conditions_are_cut_into_the_same_batches(pipe: TrajectoryGenerationPipeline) -> None:
    cells = make_gaps(pipe.generate(20, to="weeks"))
    pipe.model.calls.clear()
    ids = {"home_ids": np.arange(20) % 16, "work_ids": np.arange(20) % 7, "attribute_ids": np.arange(20) % 4}
    pipe.complete(cells, **ids)
    found = given_ids(pipe)
    assert all(np.array_equal(found[name], ids[name]) for name in ids)


def test_weeks_that_cannot_be_completed_are_refused(pipe: TrajectoryGenerationPipeline) -> None:
    with pytest.raises(DataError, match="weeks of this tokenizer have 168 hours, got 24"):
        pipe.complete(np.zeros((2, 24), int))
    with pytest.raises(DataError, match=r"1 of 2 weeks have no known hour \(first weeks \[1\]\)"):
        pipe.complete(np.array([[0] * 168, [-1] * 168]))
    with pytest.raises(ValueError, match="given together or not at all"):
        pipe.complete(np.zeros((2, 168), int), home_ids=[1, 2])
    with pytest.raises(ValueError, match="home_ids must be 2 integers"):
        pipe.complete(np.zeros((2, 168), int), home_ids=[1], work_ids=[1, 2])
    with pytest.raises(ValueError, match="attribute_ids must be 2 integers"):
        pipe.complete(np.zeros((2, 168), int), attribute_ids=[0, 0, 0], batch_size=1)
    pipe.model.spoils = True
    with pytest.raises(RuntimeError, match="hours that were known"):
        pipe.complete(np.full((2, 168), 15))


# Onwards, and the real model


def test_generated_weeks_go_on_into_the_exports(pipe: TrajectoryGenerationPipeline, tmp_path: Path) -> None:
    frame = pipe.generate(30)
    table = od_matrix(frame, threshold=1)
    assert table["count"].sum() == (np.diff(frame["cell"].to_numpy().reshape(30, 168)) != 0).sum()
    assert matsim_plans(frame, tmp_path / "plans.xml.gz")["persons"] == 30


def test_the_real_model_generates_reproducibly_for_any_batch_size(real: TrajectoryGenerationPipeline) -> None:
    first = real.generate(20, seed=1, to="weeks")
    assert first.shape == (20, 24) and first.min() >= 0 and first.max() < 16
    assert np.array_equal(first, real.generate(20, seed=1, to="weeks"))
    assert not np.array_equal(first, real.generate(20, seed=2, to="weeks"))
    assert np.array_equal(first, real.generate(20, seed=1, to="weeks", batch_size=3))


def test_the_real_model_keeps_known_hours(real: TrajectoryGenerationPipeline) -> None:
    weeks = real.tokenizer.weeks(TOWN.visits).cells[:20]
    gaps = make_gaps(weeks)
    full = real.complete(gaps, to="weeks", seed=3)
    assert (full >= 0).all() and np.array_equal(full[gaps >= 0], gaps[gaps >= 0])
    votes = [real.complete(gaps, to="weeks", seed=seed) for seed in (3, 4, 5)]
    assert np.array_equal(real.complete(gaps, draws=3, to="weeks", seed=3), commonest(np.stack(votes)))


def test_a_saved_pipeline_generates_the_same(real: TrajectoryGenerationPipeline, tmp_path: Path) -> None:
    real.save_pretrained(tmp_path, min_users=1)
    loaded = TrajectoryGenerationPipeline.from_pretrained(tmp_path, batch_size=8)
    pd.testing.assert_frame_equal(loaded.generate(9, seed=4), real.generate(9, seed=4))
