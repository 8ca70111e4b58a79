"""Pictures show the data that they were given: points where they are, sizes and colours as they say; matplotlib is an
extra.
"""

from __future__ import annotations

import builtins
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_mobility import DataError, SquareGrid
from hf_mobility.data import to_km
from hf_mobility.data.io.exports import od_matrix
from hf_mobility.plotting.axes import empty_corners, round_km
from hf_mobility.plotting.coast import land_near
from hf_mobility.plotting.colours import DASHES, PALETTE, line_look
from hf_mobility.plotting.pictures import (
    plot_flows,
    plot_next_places,
    plot_regions,
    plot_trajectories,
    plot_visit_heat,
)
from hf_mobility.plotting.prepare import arc, largest_flows, region_clusters, region_colours, visit_shares


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
    with pytest.raises(ImportError, match=r"pip install 'hf_mobility\[plot\]'"):
        plot_next_places(world.predictions, world.visits, world.city, user=world.user)


# Where they went


def test_the_true_place_is_starred_and_its_rank_is_named(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    second = world.city.location_ids[20]
    ax = plot_next_places(world.predictions, world.visits, world.city, user=world.user, truth=second)
    star = next(drawn for drawn in ax.collections if drawn.get_label() == "went here (rank 2)")
    near = offsets(world, world.city.lat[20:21], world.city.lon[20:21])
    np.testing.assert_allclose(np.asarray(star.get_offsets()), near, atol=1e-9)
    missed = plot_next_places(
        world.predictions, world.visits, world.city, user=world.user, truth=world.city.location_ids[1]
    )
    assert "went here (not in the top 3)" in [drawn.get_label() for drawn in missed.collections]
    with pytest.raises(ValueError, match="the city lists no place 'Atlantis'"):
        plot_next_places(world.predictions, world.visits, world.city, user=world.user, truth="Atlantis")


def test_labels_of_guesses_side_by_side_do_not_meet(world: SimpleNamespace) -> None:
    text = pytest.importorskip("matplotlib.text", reason="matplotlib is not installed")
    close = world.predictions.assign(lat=world.city.lat[5], lon=world.city.lon[5])
    ax = plot_next_places(close, world.visits, world.city, user=world.user)
    ax.figure.canvas.draw()
    boxes = [text.Text.get_window_extent(label) for label in ax.texts]  # without the line to the ring
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])


# Scale bar, files, second cues


def test_a_scale_bar_is_a_round_number_of_kilometres_and_as_long_as_it_says(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert [round_km(most) for most in (0.3, 1, 1.99, 2, 7.4, 49, 50)] == pytest.approx([0.2, 1, 1, 2, 5, 20, 50])
    ax = plot_next_places(world.predictions, world.visits, world.city, user=world.user)
    ax.figure.canvas.draw()
    bar = next(artist for artist in ax.artists if hasattr(artist, "size_bar"))
    label = bar.txt_label.get_text()
    km = float(label.split()[0]) / (1 if label.endswith("km") else 1000)
    left, right = ax.get_xlim()
    assert km <= (right - left) / 4 < 2.5 * km
    (shape,) = bar.size_bar.get_children()
    assert shape.get_width() == pytest.approx(km)  # in data coordinates, which are km


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_pictures_are_written_as_pixels_and_as_lines(world: SimpleNamespace, tmp_path: Any, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ax = plot_trajectories(world.visits, city=world.city)
    ax.figure.savefig(tmp_path / f"map.{kind}")
    start = (tmp_path / f"map.{kind}").read_bytes()[:100]
    assert {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind] in start


def test_no_two_lines_look_alike() -> None:
    assert len({line_look(index) for index in range(28)}) == 28
    assert {line_look(index)[1] for index in range(4)} == set(DASHES)


def test_legend_and_scale_bar_take_two_of_the_emptiest_corners(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    time = pd.date_range("2024-01-01", periods=6, freq="h", tz="UTC")
    lower = pd.DataFrame(
        {"user_id": 1, "time": time, "lat": [48.1, 48, 48, 48, 48, 48.0], "lon": 11 + np.arange(6) / 50}
    )
    ax = plot_trajectories(lower.assign(lat=[48.1, *5 * [48.0]]))
    assert empty_corners(ax)[0] == "upper right" and set(empty_corners(ax)[:2]) != {"lower left", "lower right"}
    ax.figure.canvas.draw()
    bar = next(artist for artist in ax.artists if hasattr(artist, "size_bar"))
    boxes = [artist.get_window_extent() for artist in (ax.get_legend(), bar)]
    assert not boxes[0].overlaps(boxes[1])


def test_colours_are_told_apart_by_colour_blind_readers() -> None:
    """Simulated by Vienot, Brettel and Mollon (1999): the two cones of which one is missing share one axis."""
    rgb = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in PALETTE[:7]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for blind in (protan, deutan):
        seen = np.clip(linear @ to_lms.T @ blind.T @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
        apart = np.abs(seen[:, None] - seen[None]).sum(-1) + 9 * np.eye(7)
        assert apart.min() > 0.12


# The coast


def test_the_coast_is_where_it_is() -> None:
    """Points on land and in water around San Francisco, Singapore and Lisbon; none inland, none on the open sea."""
    from matplotlib.path import Path

    def on_land(lat: float, lon: float) -> bool:
        rings = land_near(lat - 0.3, lon - 0.3, lat + 0.3, lon + 0.3)
        assert rings
        return any(Path(ring).contains_point((lat, lon)) for ring in rings)

    for lat, lon in ((37.76, -122.45), (1.35, 103.82), (38.75, -9.15)):
        assert on_land(lat, lon)
    for lat, lon in ((37.75, -122.6), (37.70, -122.30), (1.2, 103.9), (38.6, -9.4)):
        assert not on_land(lat, lon)
    assert land_near(48.0, 11.0, 48.2, 11.3) == [] == land_near(30.0, -40.0, 30.5, -39.5)
    for ring in land_near(37.6, -122.6, 37.9, -122.2, margin=1.0):
        assert (ring >= np.array([36.6, -123.6]) - 1e-9).all() and (ring <= np.array([38.9, -121.2]) + 1e-9).all()


def test_a_picture_of_a_city_by_the_sea_has_land_and_keeps_its_limits() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    frame = pd.DataFrame({"user_id": 1, "time": [0, 1], "lat": [37.7, 37.85], "lon": [-122.5, -122.2]})
    with_coast, without = plot_trajectories(frame), plot_trajectories(frame, coast=False)
    assert with_coast.get_xlim() == without.get_xlim() and with_coast.get_ylim() == without.get_ylim()
    assert with_coast.patches and not without.patches
    assert any("Natural Earth" in text.get_text() for text in with_coast.texts)


# Trajectories


def test_every_person_has_a_line_through_their_rows_in_order_of_time(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    shuffled = world.visits.sample(frac=1, random_state=0)
    ax = plot_trajectories(shuffled, city=world.city)
    lines = [line for line in ax.lines if len(line.get_xdata()) > 1]
    people = np.unique(world.visits["user_id"])
    assert len(lines) == len(people) == 4
    for line, person in zip(lines, people):
        rows = world.visits[world.visits["user_id"] == person]
        expected = offsets(world, rows["lat"], rows["lon"])
        np.testing.assert_allclose(np.stack(line.get_data(), axis=1), expected, atol=1e-9)
        assert line.get_label() == f"{person} ({len(rows)} rows)"
    assert len({tuple(line.get_color()) for line in lines}) == 4
    ends = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [line.get_marker() for line in ends] == ["s", "^"] * 4
    assert "4 users" in ax.get_title()


def test_generated_weeks_are_lines_by_trajectory_and_many_lines_have_no_legend(world: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    rows = np.arange(24)
    weeks = pd.DataFrame({"trajectory_id": rows // 2, "time": rows, "lat": 48.0, "lon": 11 + rows / 100})
    ax = plot_trajectories(weeks, by="trajectory_id")
    assert sum(len(line.get_xdata()) == 2 for line in ax.lines) == 12
    assert ax.get_legend() is None and "12 trajectories" in ax.get_title()
    with pytest.raises(DataError, match=r"lacks the column\(s\) user_id"):
        plot_trajectories(weeks)
    with pytest.raises(DataError, match="no rows"):
        plot_trajectories(weeks.iloc[:0], by="trajectory_id")


# Flows


def test_text_of_the_data_is_drawn_letter_for_letter(world: SimpleNamespace, tmp_path: Any) -> None:
    """Two dollars are mathematics to matplotlib, and an unknown command in it ends the drawing."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    users = world.visits["user_id"].unique()[:3]
    frame = world.visits[world.visits["user_id"].isin(users)]
    names = dict(zip(users.tolist(), (r"$\\nothing{$", "_hidden", "a$b$c")))
    ax = plot_trajectories(frame.assign(user_id=frame["user_id"].map(names)), city=world.city)
    ax.figure.savefig(tmp_path / "lines.png")
    drawn = [text.get_text() for text in ax.get_legend().get_texts()]
    shown = [text.split(" (")[0].replace(r"\$", "$").lstrip("\N{ZERO WIDTH SPACE}") for text in drawn]
    assert set(names.values()) <= set(shown)
    own = world.predictions[world.predictions["user_id"] == world.user].assign(user_id=r"$\\nothing{$")
    visits = world.visits[world.visits["user_id"] == world.user].assign(user_id=r"$\\nothing{$")
    plot_next_places(own, visits, world.city, user=r"$\\nothing{$").figure.savefig(tmp_path / "next.png")


def test_flows_are_curves_between_their_cells_as_thick_as_their_count() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    lat, lon = np.array([48.0, 48.0, 48.1, 50.0]), np.array([11.0, 11.1, 11.1, 20.0])
    cells = np.repeat([[0, 1], [1, 0], [1, 2], [2, 2]], [10, 20, 40, 99], axis=0)
    ax = plot_flows(od_matrix(cells, threshold=1, stays=True), lat, lon, top=2)
    (bundle, dots) = ax.collections[:2]
    used = (lat[:3].mean(), lon[:3].mean())
    places = np.stack(to_km(lat, lon, origin=used), axis=1)
    # the two largest without the stays in cell 2; the larger is drawn last
    assert bundle.get_array().tolist() == [20, 40]
    np.testing.assert_allclose(bundle.get_linewidths(), [0.5 + 4.5 * 0.5, 5.0])
    ends = [(segment[0], segment[-1]) for segment in bundle.get_segments()]
    np.testing.assert_allclose(ends, [places[[1, 0]], places[[1, 2]]], atol=1e-9)
    assert len(dots.get_offsets()) == 3
    assert ax.get_title() == "The 2 largest flows"
    legend = ax.get_legend()
    shown = {text.get_text(): line.get_linewidth() for text, line in zip(legend.get_texts(), legend.get_lines())}
    assert shown == pytest.approx({"40": 5.0, "20": 0.5 + 4.5 / 2, "4": 0.5 + 4.5 / 10})


def test_a_flow_and_the_one_back_bow_apart_to_the_right() -> None:
    there, back = arc(np.array([0.0, 0.0]), np.array([0.0, 10.0])), arc(np.array([0.0, 10.0]), np.array([0.0, 0.0]))
    assert there[6].tolist() == [1.5, 5.0]  # northwards, right is east
    assert back[6].tolist() == [-1.5, 5.0]


def test_flows_are_summed_over_hours_and_faults_are_named() -> None:
    hourly = pd.DataFrame({"hour": [1, 2, 3], "origin": [0, 0, 1], "destination": [1, 1, 1], "count": [2, 3, 50]})
    assert largest_flows(hourly, 2, 9).to_numpy().tolist() == [[0, 1, 5]]
    with pytest.raises(DataError, match="no flow between two places"):
        largest_flows(hourly.iloc[2:], 2, 9)
    with pytest.raises(DataError, match=r"Flows go to cells 0..1, but 1 have coordinates"):
        largest_flows(hourly, 1, 9)


# Heat maps


def test_heat_maps_show_each_cells_share_on_one_scale() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    grid = SquareGrid(48.0, 11.0, 48.2, 11.3, 2, 3)
    lat, lon = grid.centre(np.array([0, 0, 0, 5]))
    real = pd.DataFrame({"lat": lat, "lon": lon})
    generated = pd.DataFrame(dict(zip(("lat", "lon"), grid.centre(np.array([0, 2])))))
    axes = plot_visit_heat(real, generated, grid)
    pictures = [ax.images[0].get_array() for ax in axes]
    assert np.ma.filled(pictures[0], 0).tolist() == [[0.75, 0, 0], [0, 0, 0.25]]
    assert np.ma.filled(pictures[1], 0).tolist() == [[0.5, 0, 0.5], [0, 0, 0]]
    assert axes[0].images[0].norm is axes[1].images[0].norm
    assert (axes[0].images[0].norm.vmin, axes[0].images[0].norm.vmax) == (0.25, 0.75)
    west, east, south, north = axes[0].images[0].get_extent()
    high, wide = grid.cell_km
    np.testing.assert_allclose([east - west, north - south], [3 * wide, 2 * high])
    assert axes[0].images[0].origin == "lower"
    assert axes[0].figure.get_suptitle() == "50% of the two maps overlap"
    assert [ax.get_title() for ax in axes] == ["real: 4 rows, 2 cells", "generated: 2 rows, 2 cells"]
    far = pd.concat([real, real.head(3) + 10])
    titles = [ax.get_title() for ax in plot_visit_heat(far, generated, grid)]
    assert titles == ["real: 4 rows, 2 cells", "generated: 2 rows, 2 cells"], "rows outside the grid are not drawn"
    with pytest.raises(DataError, match="None of the 4 rows lies inside"):
        visit_shares(real + 10, grid)


# Regions


@pytest.fixture
def regions() -> SimpleNamespace:
    """Three well separated groups of regions: 6, 4 and 2 cells of a grid."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [6, 4, 2])
    values = np.array([[9, 0, 0, 1], [0, 9, 0, 1], [0, 0, 9, 1]])[group] + 0.1 * rng.normal(size=(12, 4))
    grid = SquareGrid(48.0, 11.0, 48.2, 11.3, 4, 5)
    cells = rng.permutation(len(grid))[:12]
    table = pd.DataFrame(values, columns=[f"e{k}" for k in range(4)])
    table.insert(0, "region_id", grid.cell_id(cells))
    return SimpleNamespace(table=table, grid=grid, cells=cells, group=group)


def test_regions_are_coloured_by_cluster_and_the_rest_stays_clear(regions: SimpleNamespace) -> None:
    colors = pytest.importorskip("matplotlib.colors", reason="matplotlib is not installed")
    axes = plot_regions(regions.table, regions.grid, clusters=3)
    mixed, named = (ax.images[0].get_array().reshape(-1, 4) for ax in axes)
    expected = np.array([colors.to_rgb(colour) for colour in PALETTE[:3]])[regions.group]
    np.testing.assert_allclose(named[regions.cells, :3], expected)
    np.testing.assert_allclose(mixed[regions.cells, :3], region_colours(regions.table)[0])
    for picture in (mixed, named):
        assert np.flatnonzero(picture[:, 3]).tolist() == sorted(regions.cells.tolist())
    assert [text.get_text() for text in axes[1].get_legend().texts] == ["1 (6)", "2 (4)", "3 (2)"]


def test_component_colours_are_the_principal_components(regions: SimpleNamespace) -> None:
    colours, explained = region_colours(regions.table)
    values = regions.table[["e0", "e1", "e2", "e3"]].to_numpy()
    values = (values - values.mean(0)) / values.std(0)
    covariance, axes = np.linalg.eigh(values.T @ values)
    np.testing.assert_allclose(explained, covariance[::-1][:3] / covariance.sum())
    for index in range(3):
        scores = values @ axes[:, -1 - index]
        clipped = np.clip(scores, *np.percentile(scores, [2, 98]))
        assert abs(np.corrcoef(clipped, colours[:, index])[0, 1]) == pytest.approx(1)
    assert colours.min() == 0 and colours.max() == 1
    one = regions.table[["region_id", "e0"]]
    assert region_colours(one)[0][:, 1:].tolist() == [[0.5, 0.5]] * 12  # components that are not there


def test_clusters_are_numbered_by_size_whatever_the_seed(regions: SimpleNamespace) -> None:
    for seed in range(3):
        assert region_clusters(regions.table, clusters=3, seed=seed).tolist() == regions.group.tolist()
    with pytest.raises(DataError, match=r"clusters must lie in 1..10 for 12 regions, not 11"):
        region_clusters(regions.table, clusters=11)


def test_regions_of_another_grid_and_embeddings_without_numbers_are_refused(regions: SimpleNamespace) -> None:
    with pytest.raises(DataError, match=r"regions are no cells of the grid \(first: "):
        plot_regions(regions.table, SquareGrid(48.0, 11.0, 48.2, 11.3, 1, 1))
    with pytest.raises(DataError, match="need columns e0, e1"):
        plot_regions(regions.table[["region_id"]], regions.grid)
    with pytest.raises(DataError, match="1 of 12 rows hold values that are not finite"):
        plot_regions(regions.table.assign(e0=[np.nan, *range(11)]), regions.grid)
