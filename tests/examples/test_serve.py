"""The example of a server answers as the pipeline does, and refuses faulty visits in one sentence."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hf_mobility import NextLocationPipeline

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHECKPOINT = EXAMPLES.parent / "checkpoints" / "samoe-small"

testclient = pytest.importorskip("fastapi.testclient", reason="the example needs fastapi, from the extra `demo`")


@pytest.fixture(scope="module")
def pipe() -> NextLocationPipeline:
    return NextLocationPipeline.from_pretrained(CHECKPOINT)


@pytest.fixture
def client() -> Iterator[Any]:
    make_app = runpy.run_path(str(EXAMPLES / "serve.py"), run_name="serve")["make_app"]
    with testclient.TestClient(make_app(CHECKPOINT)) as client:
        yield client


def some_visits(pipe: NextLocationPipeline) -> pd.DataFrame:
    places = pipe.city.location_ids[[3, 8, 3, 5, 8]]
    times = pd.date_range("2024-03-01 07:00", periods=5, freq="5h", tz="Europe/Berlin")
    lat, lon = (getattr(pipe.city, name)[[3, 8, 3, 5, 8]] for name in ("lat", "lon"))
    return pd.DataFrame({"user_id": list("abaab"), "time": times, "location_id": places, "lat": lat, "lon": lon})


def records(visits: pd.DataFrame) -> list[dict[str, Any]]:
    columns = visits[["user_id", "location_id"]].assign(time=[time.isoformat() for time in visits["time"]])
    return columns.to_dict("records")


def test_visits_that_arrive_one_by_one_are_answered_as_the_pipeline_does(
    client: Any, pipe: NextLocationPipeline
) -> None:
    visits = some_visits(pipe)
    for row in range(len(visits)):
        (answer,) = client.post("/visits", params={"top_k": 3}, json=records(visits[row : row + 1])).json()
        user = visits["user_id"][row]
        expected = pipe.predict(visits[: row + 1].query("user_id == @user"), top_k=3)
        assert answer["user_id"] == user and answer["location_ids"] == expected["location_id"].tolist()
        assert answer["probabilities"] == pytest.approx(expected["probability"].tolist(), rel=1e-3)
        assert answer["expected_gap_hours"] == pytest.approx(expected["expected_gap"][0] / 3600, rel=1e-3)
    assert client.get("/health").json()["users"] == 2


def test_faulty_visits_are_refused_in_one_sentence(client: Any, pipe: NextLocationPipeline) -> None:
    (visit,) = records(some_visits(pipe)[:1])
    for fault, said in (
        ([{**visit, "location_id": "nowhere"}], "does not list"),
        ([{**visit, "time": "2024-03-01T08:00:00"}], "timezone"),
        ([], "send 1 to 10,000 visits"),
    ):
        response = client.post("/visits", json=fault)
        assert response.status_code == 422 and said in response.text
    assert client.get("/health").json() == {"users": 0, "bytes": 0}
