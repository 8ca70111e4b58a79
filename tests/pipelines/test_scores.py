"""How unusual visits are: every column against a loop over the visits of each user."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_mobility import City, DataError, NextLocationPipeline
from hf_mobility.pipelines.scores import conformal_p_values
from hf_mobility.tokenization.grid import haversine_km

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "samoe-small"


def test_every_column_is_what_a_loop_over_the_visits_gives(world: SimpleNamespace) -> None:
    table = world.pipe.score(world.visits)
    assert len(table) == len(world.visits)
    places = list(world.city.location_ids)
    for user, own in list(table.groupby("user_id"))[:4]:
        history = world.visits[world.visits["user_id"] == user].reset_index(drop=True)
        assert own["location_id"].tolist() == history["location_id"].tolist()
        assert (own["time"].to_numpy() == history["time"].dt.floor("s").to_numpy()).all()
        others = world.visits[world.visits["user_id"] != user]["location_id"]
        first = own.iloc[0]
        assert first["new_place"] and first[["surprisal", "p_value", "distance_km", "score"]].isna().all()
        for i in range(1, len(own)):
            row, known = own.iloc[i], history.iloc[:i]
            p = world.by_hand(world.pipe, known).numpy().astype(float)
            assert row["surprisal"] == pytest.approx(-np.log(p[places.index(row["location_id"])]), rel=1e-4)
            assert row["expected_surprisal"] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-4)
            assert row["new_place"] == (row["location_id"] not in set(known["location_id"]))
            near = haversine_km(history["lat"][i], history["lon"][i], known["lat"], known["lon"]).min()
            assert row["distance_km"] == pytest.approx(near, abs=1e-9)
            share = (np.sum(others == row["location_id"]) + 1) / (len(others) + len(places))
            assert row["surprisal_others"] == pytest.approx(-np.log(share))
            expected = row["surprisal"] - row["surprisal_others"] + np.log(1 + near / 0.1)
            assert row["score"] == pytest.approx(expected)
            so_far = own["surprisal"].iloc[1 : i + 1]
            assert row["p_value"] == pytest.approx(np.mean(so_far >= row["surprisal"]))


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40))
def test_p_values_are_shares_of_what_came_so_far(values: list[float]) -> None:
    user = np.zeros(len(values) + 1, dtype=np.int64)
    found = conformal_p_values(user, np.array([np.nan, *values]))
    assert np.isnan(found[0])
    for i, value in enumerate(values):
        assert found[i + 1] == pytest.approx(np.mean(np.array(values[: i + 1]) >= value))


def test_p_values_of_exchangeable_visits_raise_the_promised_share_of_alarms() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(100), 200)
    found = conformal_p_values(user, rng.gamma(2, 1 + user % 5))
    late = np.tile(np.arange(200), 100) >= 50
    assert np.mean(found[late] <= 0.1) == pytest.approx(0.1, abs=0.01)


def test_what_comes_later_changes_no_score_but_for_what_others_do(world: SimpleNamespace) -> None:
    table = world.pipe.score(world.visits)
    cut = world.visits[world.visits.groupby("user_id").cumcount() < 9]
    early = table[table.groupby("user_id").cumcount() < 9].reset_index(drop=True)
    columns = ["user_id", "location_id", "surprisal", "expected_surprisal", "p_value", "new_place", "distance_km"]
    pd.testing.assert_frame_equal(world.pipe.score(cut)[columns], early[columns], rtol=1e-4)


def test_a_place_that_the_city_does_not_list_is_refused_moved_or_left_out(world: SimpleNamespace) -> None:
    position = world.visits.groupby("user_id").cumcount()
    visits = world.visits.assign(location_id=world.visits["location_id"].where(position != 3, "atlantis"))
    with pytest.raises(ValueError, match="atlantis"):
        world.pipe.score(visits)
    assert len(world.pipe.score(visits, unknown="drop")) == (visits["location_id"] != "atlantis").sum()
    pd.testing.assert_frame_equal(world.pipe.score(visits, unknown="nearest"), world.pipe.score(world.visits))


def test_users_with_one_visit_have_a_row_without_a_score(world: SimpleNamespace) -> None:
    once = world.visits.groupby("user_id").head(1)
    table = world.pipe.score(once)
    assert len(table) == len(once) and table["score"].isna().all() and table["surprisal_others"].notna().all()
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        world.pipe.score(once, batch_size=0)


def test_batches_change_rounding_only(world: SimpleNamespace) -> None:
    pd.testing.assert_frame_equal(world.pipe.score(world.visits, batch_size=1), world.pipe.score(world.visits))


def test_a_visit_far_from_home_ground_scores_above_the_users_usual_ones() -> None:
    """A trained model: a user who always goes between two places is suddenly seen elsewhere."""
    ids, lat = np.array(["home", "work", "far", "farther"]), np.array([50.0, 50.01, 50.2, 50.3])
    place = np.arange(40) % 2
    place[35] = 3
    frames = []
    for user, line in ((1, place), (2, np.where(np.arange(40) % 3 == 0, 2, 3))):
        time = pd.date_range("2024-01-01", periods=40, freq="8h", tz="UTC")
        frames.append(pd.DataFrame({"user_id": user, "time": time, "location_id": ids[line], "lat": lat[line]}))
    visits = pd.concat(frames).assign(lon=8.0)
    pipe = NextLocationPipeline.from_pretrained(SHIPPED, city=City.from_visits(visits, timezone="UTC"))
    own = pipe.score(visits).query("user_id == 1").reset_index(drop=True)
    assert own["score"].iloc[10:].idxmax() == 35 and own["p_value"].iloc[35] < 0.1
