"""The map draws the city, the past and the guesses where they are; matplotlib is an extra."""

from __future__ import annotations

import builtins
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility.data.grid import to_km
from hf_mobility.plotting import plot_next_places


@pytest.fixture
def world(toy: SimpleNamespace) -> SimpleNamespace:
    """A city, its visits, and what somebody predicted for two users."""
    visits, city = toy.city(4)
    users = np.unique(visits["user_id"])[:2].tolist()
    rows = [5, 20, 33]
    guess = {"location_id": city.location_ids[rows], "lat": city.lat[rows], "lon": city.lon[rows]}
    own = [
        pd.DataFrame({"user_id": user, "rank": [1, 2, 3], **guess, "probability": [0.6 - shift, 0.2, 0.1 + shift]})
        for user, shift in zip(users, (0.0, 0.25))
    ]
    return SimpleNamespace(visits=visits, city=city, predictions=pd.concat(own, ignore_index=True), user=users[0])


def offsets(world: SimpleNamespace, lat: Any, lon: Any) -> np.ndarray:
    origin = (float(np.mean(world.city.lat)), float(np.mean(world.city.lon)))
    return np.stack(to_km(lat, lon, origin=origin), axis=1)


def test_places_visits_and_guesses_are_drawn_where_they_are(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ax = plot_next_places(world.predictions, world.visits, world.city, user=world.user)
    drawn = {collection.get_label(): collection for collection in ax.collections}
    assert list(drawn) == ["places of the city", "visited", "last visit", "predicted next"]
    own = world.visits[world.visits["user_id"] == world.user]
    guesses = world.predictions[world.predictions["user_id"] == world.user]

    def near(label: str, expected: np.ndarray) -> None:
        np.testing.assert_allclose(np.asarray(drawn[label].get_offsets()), expected, atol=1e-9)

    near("places of the city", offsets(world, world.city.lat, world.city.lon))
    near("last visit", offsets(world, own["lat"].iloc[-1:], own["lon"].iloc[-1:]))
    near("predicted next", offsets(world, guesses["lat"], guesses["lon"]))
    counts = own.groupby(["lat", "lon"]).size()
    near("visited", offsets(world, counts.index.get_level_values(0), counts.index.get_level_values(1)))
    np.testing.assert_allclose(drawn["visited"].get_sizes(), 12 * np.sqrt(counts.to_numpy()))


def test_rings_grow_with_probability_and_say_it(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ax = plot_next_places(world.predictions, world.visits, world.city, user=world.user)
    sizes = ax.collections[-1].get_sizes()
    assert sizes.tolist() == sorted(sizes, reverse=True)
    assert [text.get_text() for text in ax.texts] == ["60%", "20%", "10%"]
    assert str(world.user) in ax.get_title()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east, km", "north, km")


def test_axes_that_are_given_are_drawn_into(world: SimpleNamespace, tmp_path: Any) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed")
    ax = figure.Figure().subplots()
    before = world.visits.copy(deep=True)
    assert plot_next_places(world.predictions, world.visits, world.city, user=world.user, ax=ax) is ax
    ax.figure.savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1_000
    pd.testing.assert_frame_equal(world.visits, before)


def test_no_window_and_no_global_figure_is_opened(world: SimpleNamespace) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    open_before = pyplot.get_fignums()
    plot_next_places(world.predictions, world.visits, world.city, user=world.user)
    assert pyplot.get_fignums() == open_before


def test_a_user_without_prediction_or_visits_is_named(world: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="there is no prediction of user 'nobody'"):
        plot_next_places(world.predictions, world.visits, world.city, user="nobody")
    others = world.visits[world.visits["user_id"] != world.user]
    with pytest.raises(ValueError, match=f"there is no visit of user {world.user!r}"):
        plot_next_places(world.predictions, others, world.city, user=world.user)


def test_without_matplotlib_the_command_that_installs_it_is_given(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install hf_mobility\[plot\]"):
        plot_next_places(world.predictions, world.visits, world.city, user=world.user)
