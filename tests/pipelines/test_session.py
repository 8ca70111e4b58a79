"""Sessions: an answer is that of `predict` on the visits that are kept, however they arrived."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from samoe_town import CITY, make_visits

from hf_mobility import DataError, NextLocationPipeline, SamoeConfig, SamoeForNextLocation, SamoeTokenizer

EXTENDED = SamoeConfig.from_preset("tiny", num_poi_features=5)
PAPER = SamoeConfig.from_preset("tiny", num_poi_features=5, variant="paper")
LIMITED = SamoeConfig.from_preset("tiny", num_poi_features=5, variant="released", max_position_embeddings=8)


def make_pipe(config: SamoeConfig = EXTENDED, context: int = 6, **options: object) -> NextLocationPipeline:
    torch.manual_seed(0)
    model = SamoeForNextLocation(config)
    with torch.no_grad():
        for values in model.parameters():
            values.add_(0.1 * torch.randn_like(values))
    return NextLocationPipeline(model, SamoeTokenizer.from_city(CITY, config), context=context, **options)


def equal(made: pd.DataFrame, expected: pd.DataFrame) -> None:
    expected = expected.drop(columns="expected_stay")
    pd.testing.assert_frame_equal(made, expected, rtol=1e-4, atol=1e-6)


def in_order(visits: pd.DataFrame, turn: int) -> pd.DataFrame:
    return visits[visits.groupby("user_id").cumcount() == turn]


@pytest.mark.parametrize("config", [EXTENDED, PAPER, LIMITED], ids=["extended", "paper", "released"])
def test_visit_by_visit_the_answers_are_those_of_predict(config):
    pipe, visits = make_pipe(config), make_visits((6, 3, 4))
    session = pipe.session()
    for turn in range(6):
        made = session.update(in_order(visits, turn))
        so_far = visits[visits.groupby("user_id").cumcount() <= turn]
        equal(made, pipe.predict(so_far[so_far["user_id"].isin(made["user_id"])]))


def test_several_visits_at_one_time_are_read_together():
    pipe, visits = make_pipe(), make_visits((6, 3, 4))
    session = pipe.session()
    count = visits.groupby("user_id").cumcount()
    session.update(visits[count < 2])
    equal(session.update(visits[count >= 2]), pipe.predict(visits))


@pytest.mark.parametrize("config", [EXTENDED, LIMITED], ids=["extended", "released"])
def test_an_answer_rests_on_the_context_and_half_as_many_visits_more_at_most(config):
    pipe, visits = make_pipe(config), make_visits((30, 20))
    session, kept = pipe.session(), []
    for turn in range(30):
        made = session.update(in_order(visits, turn))
        kept.append(session.visits_of(5))
        so_far = visits[(visits.groupby("user_id").cumcount() <= turn) & visits["user_id"].isin(made["user_id"])]
        for user, one in so_far.groupby("user_id"):
            expected = make_pipe(config, context=session.visits_of(user)).predict(one)
            equal(made[made["user_id"] == user].reset_index(drop=True), expected)
    limit = 9 if config is EXTENDED else 8
    assert kept[:6] == [1, 2, 3, 4, 5, 6]
    assert set(kept[6:]) == set(range(6, limit + 1))


def test_a_long_history_is_read_as_predict_reads_it():
    pipe, visits = make_pipe(), make_visits((30, 8, 2))
    equal(pipe.session().update(visits, top_k=3), pipe.predict(visits, top_k=3))


def test_columns_are_answered_as_frames_are():
    pipe, visits = make_pipe(), make_visits((6, 3, 4))
    frame = pipe.predict(visits, top_k=2)
    seconds = visits["time"].astype("int64").to_numpy() // 10**6
    made = pipe.session().answer(
        {"user_id": visits["user_id"].tolist(), "time": seconds, "location_id": visits["location_id"].tolist()}, top_k=2
    )
    assert made.user_id.tolist() == [5, 6, 7]
    assert made.location_id.ravel().tolist() == frame["location_id"].tolist()
    np.testing.assert_allclose(made.probability.ravel(), frame["probability"], rtol=1e-4)
    np.testing.assert_allclose(np.repeat(made.expected_gap, 2), frame["expected_gap"], rtol=1e-4)


def test_the_user_not_heard_of_for_the_longest_time_is_forgotten():
    pipe, visits = make_pipe(), make_visits((4, 4, 4))
    session = pipe.session(max_users=2)
    first = in_order(visits, 0)
    for user in (5, 6, 5, 7):
        turn = first if user not in session else in_order(visits, 1)
        session.update(turn[turn["user_id"] == user])
    assert len(session) == 2 and 6 not in session and session.visits_of(6) == 0
    assert session.visits_of(5) == 2 and session.visits_of(7) == 1
    again = visits[visits["user_id"] == 6]
    equal(session.update(again), pipe.predict(again))
    assert 5 not in session


def test_more_users_than_are_kept_are_refused():
    session = make_pipe().session(max_users=2)
    with pytest.raises(DataError, match="3 users in one call are more than max_users=2"):
        session.update(make_visits((2, 2, 2)))
    assert len(session) == 0


def test_visits_before_the_last_one_are_refused_and_nothing_is_taken_in():
    pipe, visits = make_pipe(), make_visits((4, 4))
    session = pipe.session()
    count = visits.groupby("user_id").cumcount()
    session.update(visits[count < 3])
    with pytest.raises(DataError, match=r"2 users have new visits before their last one, first \[5, 6\]"):
        session.update(visits[count == 1])
    equal(session.update(visits[count == 3]), pipe.predict(visits))


def test_an_unlisted_place_leaves_the_session_as_it_was():
    pipe, visits = make_pipe(), make_visits((4,))
    session = pipe.session()
    session.update(visits[:3])
    with pytest.raises(ValueError, match="does not list"):
        session.update(visits[3:].assign(location_id="nowhere"))
    equal(session.update(visits[3:]), pipe.predict(visits))


@pytest.mark.parametrize("first", [0, 2], ids=["new users", "known users"])
def test_users_of_a_call_in_which_the_model_fails_are_forgotten(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, visits = make_pipe(), make_visits((5, 4, 4))
    session, count = pipe.session(), visits.groupby("user_id").cumcount()
    other, others = visits["user_id"] == 7, visits["user_id"] != 7
    session.update(visits[other & (count < 2)])
    if first:
        session.update(visits[others & (count < first)])
    with monkeypatch.context() as broken, torch.no_grad():
        broken.setattr(pipe.model.stay_head.weight, "data", torch.full_like(pipe.model.stay_head.weight, torch.nan))
        broken.setattr(pipe.model.query_proj.weight, "data", torch.full_like(pipe.model.query_proj.weight, torch.nan))
        with pytest.raises(ValueError, match="not finite"):
            session.update(visits[others & (count == first)])
    assert len(session) == 1 and 5 not in session and session.visits_of(7) == 2
    equal(session.update(visits[others]), pipe.predict(visits[others]))
    equal(session.update(visits[other & (count == 2)]), pipe.predict(visits[other & (count <= 2)]))


def test_what_a_failing_call_left_reaches_no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, visits = make_pipe(), make_visits((6, 6))
    session, count = pipe.session(), visits.groupby("user_id").cumcount()
    first, second = visits["user_id"] == 5, visits["user_id"] == 6
    values = pipe.model.model.layers[0].self_attn.v_proj.weight
    with monkeypatch.context() as broken, torch.no_grad():
        broken.setattr(values, "data", torch.full_like(values, torch.nan))
        with pytest.raises(ValueError, match="not finite"):
            session.update(visits[first & (count < 5)])
    session.update(visits[first & (count == 0)])
    session.update(visits[second & (count < 4)])
    made = session.update(visits[(first & (count == 1)) | (second & (count == 4))])
    equal(made, pipe.predict(visits[(first & (count <= 1)) | (second & (count <= 4))]))


def test_threads_get_the_answers_of_one_after_the_other():
    pipe, visits = make_pipe(), make_visits((6,) * 8)
    session = pipe.session(max_users=8)

    def all_of(user: int) -> pd.DataFrame:
        mine = visits[visits["user_id"] == user]
        return [session.update(mine[k : k + 1]) for k in range(6)][-1]

    with ThreadPoolExecutor(4) as threads:
        made = pd.concat(threads.map(all_of, range(5, 13)), ignore_index=True)
    equal(made, pipe.predict(visits))


def test_the_temperature_of_the_city_counts():
    pipe = make_pipe()
    warm = NextLocationPipeline(pipe.model, SamoeTokenizer.from_city(CITY, EXTENDED, temperature=2.0), context=6)
    visits = make_visits((4, 3))
    equal(warm.session().update(visits), warm.predict(visits))


def test_memory_is_said_and_grows_by_users_who_are_kept():
    pipe = make_pipe()
    session = pipe.session(max_users=50)
    assert session.bytes_per_user == 0
    session.update(make_visits((2,) * 3))
    config, capacity = pipe.model.config, 9
    streams, d = 4, config.hidden_size
    keys_and_values = 4 * (capacity + 1) * (2 * config.num_hidden_layers * streams * d + 2 * d + 3)
    assert session.bytes_per_user == keys_and_values + 4 * (3 * config.num_stay_bins + 3 * (len(CITY) + 2))


def test_a_model_that_is_told_the_arrival_time_has_no_session():
    pipe = make_pipe(SamoeConfig.from_preset("tiny", num_poi_features=5, arrival_time=True))
    with pytest.raises(DataError, match="use predict"):
        pipe.session()
    with pytest.raises(DataError, match="max_users must be at least 1"):
        make_pipe().session(max_users=0)
    with pytest.raises(DataError, match="top_k"):
        make_pipe().session().update(make_visits((2,)), top_k=len(CITY) + 1)
