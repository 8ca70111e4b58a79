"""Fidelity of weeks: each measure against numbers worked out by hand and against plain loops over weeks."""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hf_mobility.data import DataError
from hf_mobility.data.week_arrays import place_hours
from hf_mobility.evaluation import fidelity, fidelity_report, hide_hours
from hf_mobility.evaluation.fidelity_metrics import SIX, MeasuredWeeks, histogram_bins, jsd
from hf_mobility.evaluation.fidelity_movement import copied_share, moves_per_day, nearest_overlap, stay_rate
from hf_mobility.evaluation.motifs import OTHER_MOTIF, daily_motifs
from hf_mobility.evaluation.report import to_markdown
from hf_mobility.tokenization.weeks import first_hour_of_cell, home_and_work

DEGREE = math.pi / 180 * 6371  # km
LON = np.array([0.0, 0.1, 0.2, 0.4, 0.8])  # cells on the equator
LAT = np.zeros(5)


def compare(real, generated, **options) -> dict[str, float]:
    options = {"slots_per_day": np.shape(real)[1], **options}
    return fidelity(np.array(real), np.array(generated), lat=LAT, lon=LON, **options)


def divergence(p: dict, q: dict) -> float:
    """JSD in nats from its definition, of counts by name."""
    total_p, total_q, out = sum(p.values()), sum(q.values()), 0.0
    for key in {*p, *q}:
        a, b = p.get(key, 0) / total_p, q.get(key, 0) / total_q
        m = (a + b) / 2
        out += sum(x / 2 * math.log(x / m) for x in (a, b) if x)
    return out


def weeks_of(n: int = 40, length: int = 12, seed: int = 0, unknown: float = 0.0, sticky: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = rng.choice(5, p=[0.4, 0.3, 0.15, 0.1, 0.05], size=(n, length))
    for t in range(1, length):
        stay = rng.random(n) < sticky
        cells[stay, t] = cells[stay, t - 1]
    return np.where(rng.random((n, length)) < unknown, -1, cells)


weeks = hnp.arrays(np.int16, st.tuples(st.integers(1, 6), st.just(8)), elements=st.integers(-1, 4))


def test_the_same_weeks_in_another_order_are_at_distance_zero() -> None:
    # Sums of equal numbers in another order differ by rounding, so that a divergence may come out below zero.
    for seed in range(30):
        real = weeks_of(50, seed=seed)
        mixed = np.random.default_rng(seed).permutation(real)
        measured = compare(real, mixed)
        assert all(abs(measured[name]) < 1e-12 for name in SIX), measured


def test_the_divergence_is_that_of_its_definition() -> None:
    assert jsd([1, 0], [0, 1]) == pytest.approx(math.log(2))
    assert jsd([2, 2], [5, 0]) == pytest.approx(divergence({"a": 1, "b": 1}, {"a": 1}))
    assert jsd([2, 2], [5, 0]) == pytest.approx(0.2157615543)
    assert np.isnan(jsd([0, 0], [1, 1]))


@pytest.mark.parametrize("form", ["clean", "reference"])
@pytest.mark.parametrize("unknown", [0.0, 0.2])
def test_a_set_equals_itself(form, unknown) -> None:
    cells = weeks_of(unknown=unknown)
    out = compare(cells, cells, form=form)
    zero = {*SIX, "mean6", "od_mape", "population_mape", "jump_length", "radius_rms", "locations_per_day", "visit_rank"}
    for name in zero | {"stay_rate"}:
        assert out[name] == pytest.approx(0, abs=1e-12), name
    assert out["cpc"] == 1


def test_displacement_counts_stays_and_jump_length_does_not() -> None:
    out = compare([[0, 1, 1, 1]], [[0, 0, 0, 1]])
    assert out["displacement"] == pytest.approx(0)
    out = compare([[0, 1, 1, 1]], [[0, 1, 0, 0]])
    assert out["displacement"] == pytest.approx(divergence({0: 2, 11: 1}, {0: 1, 11: 2}))
    assert out["jump_length"] == pytest.approx(0)
    items = MeasuredWeeks.of(np.array([[0, 1, 3, 3]]), lat=LAT, lon=LON).displacement
    assert sorted(zip(items.value.tolist(), items.weight.tolist())) == [
        (0, 1),
        (round(0.1 * DEGREE, 3), 1),
        (round(0.3 * DEGREE, 3), 1),
    ]


def test_what_travels_too_far_is_punished_by_the_clean_form_and_not_by_the_reference() -> None:
    real, far = [[0, 1, 1, 1]] * 2, [[0, 3, 3, 3]] * 2
    clean, reference = compare(real, far), compare(real, far, form="reference")
    assert clean["displacement"] == pytest.approx(math.log(2) / 3)
    assert reference["displacement"] == 0  # the real maximum and all above it are dropped: only stays are left
    assert clean["radius"] == pytest.approx(math.log(2))
    near = compare([*real, [0, 2, 2, 2]], [*real, [0, 2, 2, 2]], form="reference")
    farther = compare([*real, [0, 2, 2, 2]], [*real, [0, 4, 4, 4]], form="reference")
    assert near["displacement"] == farther["displacement"] == 0
    assert compare([*real, [0, 2, 2, 2]], [*real, [0, 4, 4, 4]])["displacement"] > 0.05


def test_the_reference_has_one_bin_fewer_and_a_closed_last_edge() -> None:
    values = np.array([0.0, 0.1, 0.3, 0.75, 0.8, 1.0, 1.2])
    a, b, count = histogram_bins(values, values, bins=4, top=1.0, form="reference")
    assert (a.tolist(), count) == ([0, 0, 1, 2, -1, -1, -1], 3) and (a == b).all()
    a, _, count = histogram_bins(values, values, bins=4, top=1.0, form="clean")
    assert (a.tolist(), count) == ([0, 0, 1, 3, 3, 3, 4], 5)


def test_radius_is_the_mean_distance_to_the_middle() -> None:
    cells = np.array([[0, 0, 0, 3], [2, 2, 2, 2], [-1, 1, 3, -1], [-1, -1, -1, -1]])
    made = MeasuredWeeks.of(cells, lat=LAT, lon=LON)
    rows, mean, _ = made.radius()
    assert rows.tolist() == [0, 1, 2]
    assert mean == pytest.approx([(3 * 0.1 + 0.3) / 4 * DEGREE, 0, 0.15 * DEGREE])
    assert made.radius(rms=True).value == pytest.approx([math.sqrt((3 * 0.01 + 0.09) / 4) * DEGREE, 0, 0.15 * DEGREE])


def metres_apart(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """Great-circle km on a round Earth, rounded to metres."""
    lon1, lat1, lon2, lat2 = map(math.radians, (lon1, lat1, lon2, lat2))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return round(2 * math.asin(math.sqrt(half)) * 6371, 3)


def test_distances_of_the_reference_are_rounded_to_metres_hour_by_hour() -> None:
    """As the authors' code counts them: a bin of the radius is less than a metre wide here."""
    rng = np.random.default_rng(0)
    lat, lon = 48 + 0.02 * rng.random(30), 11 + 0.03 * rng.random(30)
    real, made = rng.integers(0, 30, (150, 12)), rng.integers(0, 30, (150, 12))

    def radii(cells: np.ndarray) -> np.ndarray:
        found = []
        for week in cells:
            x, y = lon[week], lat[week]
            found.append(np.mean([metres_apart(x.mean(), y.mean(), a, b) for a, b in zip(x, y)]))
        return np.array(found)

    def steps(cells: np.ndarray) -> np.ndarray:
        pairs = [pair for week in cells for pair in pairwise(week)]
        return np.array([metres_apart(lon[a], lat[a], lon[b], lat[b]) for a, b in pairs])

    def shares(values: np.ndarray, top: float) -> dict[int, float]:
        counts, _ = np.histogram(values, np.arange(0, top, top / 10_000))
        return {index: float(count) for index, count in enumerate(counts) if count}

    out = fidelity(real, made, lat=lat, lon=lon, form="reference", slots_per_day=12)
    a, b = radii(real), radii(made)
    assert 1 < a.max() and a.max() ** 2 / 10_000 < 0.001
    assert out["radius"] == pytest.approx(divergence(shares(a, a.max() ** 2), shares(b, a.max() ** 2)), abs=1e-9)
    a, b = steps(real), steps(made)
    assert out["displacement"] == pytest.approx(divergence(shares(a, a.max()), shares(b, a.max())), abs=1e-9)


def test_duration_counts_all_runs_in_the_clean_form_and_drops_the_last_in_the_reference() -> None:
    real, generated = [[0, 0, 1, 1, 1, 2]], [[0, 0, 0, 1, 2, 2]]
    assert compare(real, generated)["duration"] == pytest.approx(0)
    # Without their last runs: lengths 2 and 3 against 3 and 1; the longest real run, 3 hours, is dropped on top.
    assert compare(real, generated, form="reference")["duration"] == pytest.approx(math.log(2))
    never = compare([[0, 0, 0, 0]], [[0, 0, 0, 0]], form="reference")
    assert np.isnan(never["duration"]) and compare([[0, 0, 0, 0]], [[1, 1, 1, 1]])["duration"] == 0


def test_periodicity_and_locations_per_day_count_distinct_cells() -> None:
    real, generated = [[0, 1, 2, 2], [0, 0, 0, 0]], [[0, 1, 0, 1], [0, 0, 3, 0]]
    out = compare(real, generated, slots_per_day=2)
    assert out["periodicity"] == pytest.approx(divergence({3: 1, 1: 1}, {2: 2}))
    assert out["locations_per_day"] == pytest.approx(divergence({2: 1, 1: 3}, {2: 3, 1: 1}))


def test_ranks_do_not_ask_which_cell_it_is() -> None:
    real = weeks_of()
    out = compare(real, (real + 2) % 5)
    assert (
        out["g_rank"] == pytest.approx(0)
        and out["i_rank"] == pytest.approx(0)
        and out["visit_rank"] == pytest.approx(0)
    )
    out = compare([[0, 0, 0, 1], [0, 0, 0, 1]], [[0, 0, 1, 1], [2, 2, 2, 2]])
    assert out["g_rank"] == pytest.approx(divergence({1: 6, 2: 2}, {1: 4, 2: 2, 3: 2}))
    assert out["i_rank"] == pytest.approx(divergence({1: 3, 2: 1}, {1: 1.5, 2: 0.5}))
    assert out["visit_rank"] == pytest.approx(divergence({1: 2, 2: 2}, {1: 1, 2: 1, 3: 1}))


def test_flows_and_populations_by_hand() -> None:
    out = compare([[0, 1, 0]], [[0, 1, 2]])
    assert out["cpc"] == pytest.approx(2 * 1 / (2 + 2))
    assert out["od_mape"] == pytest.approx((0 + 1) / 2)
    assert out["population_mape"] == pytest.approx((0 + 0 + 1) / 3)
    out = compare([[0, 0], [0, 0], [1, 0]], [[0, 0], [0, 0], [0, 0]])
    assert out["od_mape"] == pytest.approx((1 / 2 + 1) / 2)  # 3 against 2 that stay, 0 against 1 that comes
    assert out["population_mape"] == pytest.approx(((1 / 2 + 1) / 2 + 0) / 2)
    assert np.isnan(compare([[0, 0]], [[1, 1]])["cpc"])


def test_steps_and_runs_that_touch_an_unknown_hour_are_not_counted() -> None:
    made = MeasuredWeeks.of(np.array([[0, 0, -1, 1, 1, 2], [0, 0, 1, 1, 2, 2]]), lat=LAT, lon=LON)
    lengths, cells = made.runs()
    assert list(zip(lengths.owner.tolist(), cells.tolist(), lengths.value.tolist())) == [
        (0, 2, 1),
        (1, 0, 2),
        (1, 1, 2),
        (1, 2, 2),
    ]
    assert made.runs(drop_last=True)[1].tolist() == [0, 1]
    assert made.displacement.weight.sum() == 3 + 5
    assert stay_rate(made) == pytest.approx([1, 0, 1, 0.5, 0.5])
    assert moves_per_day(made, slots_per_day=6) == pytest.approx(3 / 8 * 5)


@settings(max_examples=60, deadline=None)
@given(weeks, weeks)
def test_all_six_equal_a_loop_over_weeks(real, generated) -> None:
    if not ((real >= 0).any() and (generated >= 0).any()):
        return
    out = fidelity(real, generated, lat=LAT, lon=LON, slots_per_day=8, subsample=True)
    if len(real) != len(generated):
        return

    def by_loop(cells: np.ndarray) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {name: [] for name in SIX}
        ranks = np.zeros(10)
        for week in cells.tolist():
            known = [c for c in week if c >= 0]
            values["displacement"] += [
                round(abs(LON[a] - LON[b]) * DEGREE, 3) for a, b in pairwise(week) if min(a, b) >= 0
            ]
            runs = [(c, len(list(group))) for c, group in groupby(week)]
            for i, (c, hours) in enumerate(runs):
                if c >= 0 and all(runs[j][0] >= 0 for j in (i - 1, i + 1) if 0 <= j < len(runs)):
                    values["duration"].append(hours)
            if known:
                middle = np.mean([LON[c] for c in known])
                values["radius"].append(np.mean([abs(LON[c] - middle) for c in known]) * DEGREE)
                values["periodicity"].append(len(set(known)))
                shares = sorted((n / len(known) for n in Counter(known).values()), reverse=True)
                ranks[: len(shares)] += shares
        values["i_rank"] = ranks.tolist()
        values["g_rank"] = sorted(Counter(c for c in cells.ravel().tolist() if c >= 0).values(), reverse=True)
        return values

    a, b = by_loop(real), by_loop(generated)
    for name in ("duration", "periodicity"):
        if a[name] and b[name]:
            assert out[name] == pytest.approx(divergence(Counter(a[name]), Counter(b[name])), abs=1e-9)
        else:
            assert np.isnan(out[name])
    for name in ("g_rank", "i_rank"):
        assert out[name] == pytest.approx(divergence(dict(enumerate(a[name])), dict(enumerate(b[name]))), abs=1e-9)
    # Distances are few and far between, so that each lies in a bin of its own or above the largest real one.
    if a["displacement"] and b["displacement"]:
        top = max(a["displacement"])
        p, q = (Counter(min(round(v, 1), round(top, 1) + 1) for v in x["displacement"]) for x in (a, b))
        assert out["displacement"] == pytest.approx(divergence(p, q), abs=1e-9)


def test_motifs_are_graphs_up_to_the_names_of_places() -> None:
    def ids(*days: list[int]) -> list[int]:
        return [int(daily_motifs(np.array([day]), slots_per_day=len(day))[0][0]) for day in days]

    home, round_trip, other_round_trip = ids([3, 3, 3, 3], [0, 1, 0, 0], [4, 4, 2, 4])
    assert home != round_trip == other_round_trip
    # Two round trips from the middle of three places, begun in the middle or at an end.
    a, b, triangle, line = ids([0, 1, 0, 2, 0], [1, 0, 2, 0, 1], [0, 1, 2, 0, 0], [0, 1, 2, 2, 2])
    assert a == b and len({a, triangle, line}) == 3
    assert ids([*range(7), 0])[0] == OTHER_MOTIF
    days = np.array([[0, 1, 0, 2, 2, 2], [0, -1, 0, 1, 2, 3]])
    motifs, count = daily_motifs(days, slots_per_day=3)
    assert count.tolist() == [1, 1, 1] and len(motifs) == 3  # the day with a gap is left out
    gaps = np.array([[0, -1, 1, 1]])  # no whole day on either side: there is nothing to compare
    assert np.isnan(fidelity(gaps, gaps, lat=[48.0, 48.1], lon=[11.0, 11.1], slots_per_day=4)["motifs"])


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, (2, 9), elements=st.integers(0, 5)))
def test_two_days_share_a_motif_if_and_only_if_their_graphs_are_isomorphic(days) -> None:
    networkx = pytest.importorskip("networkx")
    graphs = []
    for day in days.tolist():
        graph = networkx.DiGraph()
        graph.add_nodes_from(day)
        graph.add_edges_from((a, b) for a, b in pairwise(day) if a != b)
        graphs.append(graph)
    same = len(daily_motifs(days, slots_per_day=9)[0]) == 1
    assert same == networkx.is_isomorphic(*graphs)


def test_copies_and_the_nearest_training_week() -> None:
    train = np.array([[0, 0, 1, 1], [2, 2, 2, 2], [0, -1, 1, 0]])
    made = np.array([[0, 0, 1, 1], [2, 2, 2, 2], [0, 0, 1, 2], [3, 3, 3, 3]])
    assert copied_share(made, train) == 0.5
    assert copied_share(made, train, moving=True) == 0.5
    still = np.array([[2, 2, -1, 2]])
    assert copied_share(still, still) == 1 and np.isnan(copied_share(still, still, moving=True))  # a gap is no move
    assert nearest_overlap(made, train).tolist() == [1, 1, 0.75, 0]
    assert nearest_overlap(np.array([[0, -1, 1, 1]]), train).tolist() == [1]  # of its three known hours
    out = compare(made, made, train=train)
    assert (out["copied"], out["copied_moving"], out["overlap"]) == (0.5, 0.5, 0.6875)


@settings(max_examples=30, deadline=None)
@given(weeks, weeks)
def test_the_nearest_overlap_equals_a_loop(made, train) -> None:
    made = np.where((made < 0).all(axis=1, keepdims=True), 0, made)
    expected = [max(((a == b) & (a >= 0)).sum() for b in train) / (a >= 0).sum() for a in made]
    assert nearest_overlap(made, train) == pytest.approx(expected)


def test_the_bootstrap_interval_holds_the_estimate_and_does_not_move_it() -> None:
    real, made = weeks_of(200), weeks_of(200, seed=1)
    plain, out = compare(real, made), compare(real, made, bootstrap=100)
    assert out["mean6"] == plain["mean6"] and out["mean6_low"] < out["mean6"] < out["mean6_high"]
    assert out == compare(real, made, bootstrap=100)
    wide = compare(real[:50], made[:50], bootstrap=100)
    assert wide["mean6_high"] - wide["mean6_low"] > out["mean6_high"] - out["mean6_low"]


def test_more_radius_bins_find_more_noise() -> None:
    real, made = weeks_of(100), weeks_of(100, seed=1)
    assert compare(real, made, radius_bins=10_000)["radius"] > compare(real, made)["radius"]
    assert compare(real, made, radius_bins=10_000)["duration"] == compare(real, made)["duration"]


def test_the_report_shows_noise_then_baselines_then_models() -> None:
    train, real = weeks_of(120), weeks_of(60, seed=1)
    sets = {"model": weeks_of(60, seed=3, sticky=0.1), "HourlyMarkov": [weeks_of(60, seed=s) for s in (4, 5)]}
    options = {"real": real, "train": train, "lat": LAT, "lon": LON, "slots_per_day": 12}
    table = fidelity_report(sets, **options, bootstrap=20)
    assert table["model"].tolist() == ["train sample", "real itself", "HourlyMarkov", "model"]
    assert table["draws"].tolist() == [5, 1, 2, 1] and (table["n"] == 60).all()
    assert table["mean6_sd"].notna().tolist() == [True, False, True, False]
    noise, itself, markov, model = table.to_dict("records")
    assert itself["mean6"] == pytest.approx(0, abs=1e-12) and itself["copied"] < 1 == noise["copied"]
    assert noise["mean6"] < model["mean6"] and markov["mean6"] < model["mean6"]
    one = fidelity(real, sets["model"], lat=LAT, lon=LON, slots_per_day=12)
    assert model["mean6"] == one["mean6"] and model["cpc"] == one["cpc"]
    assert table.equals(fidelity_report(sets, **options, bootstrap=20))
    assert "train sample" in to_markdown(table, baselines=()).splitlines()[2]


def test_the_report_hides_the_hours_that_real_weeks_do_not_know() -> None:
    complete, train = weeks_of(60, seed=1), weeks_of(120, unknown=0.3)
    real = np.where(weeks_of(60, seed=2, unknown=0.3) < 0, -1, complete)
    options = {"real": real, "train": train, "lat": LAT, "lon": LON, "slots_per_day": 12}
    matched = fidelity_report({"truth": complete}, **options).iloc[-1]
    assert matched["mean6"] == pytest.approx(0, abs=1e-12) and matched["cpc"] == 1
    assert fidelity_report({"truth": complete}, **options, match_unknown=False).iloc[-1]["mean6"] > 0.01
    assert hide_hours(complete, real).tolist() == real.tolist() and (complete >= 0).all()


def test_sets_of_different_sizes_are_refused_or_cut() -> None:
    real, made = weeks_of(30), weeks_of(50, seed=1)
    with pytest.raises(DataError, match=r"as many generated weeks as real ones, not 50 and 30; .*subsample=True"):
        compare(real, made)
    out = compare(real, made, subsample=True, seed=3)
    assert out["n"] == 30 and out == compare(real, made, subsample=True, seed=3)
    options = {"lat": LAT, "lon": LON, "slots_per_day": 12}
    with pytest.raises(DataError, match="needs 50 training weeks, as many as real ones, but there are 30"):
        fidelity_report({"a": made}, real=made, train=real, **options)
    assert (fidelity_report({"a": made}, real=made, train=real, subsample=True, **options)["n"] == 30).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generated": np.zeros((2, 4))}, r"generated is float64 of shape \(2, 4\)"),
        ({"generated": np.zeros(4, dtype=int)}, "integer array"),
        ({"generated": np.zeros((2, 5), dtype=int)}, "5 hours a week where 4"),
        (
            {"generated": np.array([[0, 5, 1, 1], [0, -2, 1, 1]])},
            r"generated: 2 cell ids .* to 4 \(first: \[5, -2\], .*\[0, 1\]",
        ),
        ({"generated": np.zeros((0, 4), dtype=int)}, "at least one week"),
        ({"lat": np.zeros(4)}, r"lat has shape \(4,\) and lon \(5,\)"),
        ({"lat": np.array([0, 0, 0, 0, 91.0])}, r"first cells: \[4\]"),
        ({"slots_per_day": 3}, "4 slots do not divide into days of slots_per_day=3"),
        ({"form": "paper"}, "use 'clean' or 'reference'"),
        ({"form": "reference", "radius_bins": 100}, "fixes 10000 radius bins"),
        ({"radius_bins": 0}, "at least 1"),
    ],
)
def test_bad_input_gets_one_sentence(change, message) -> None:
    cells = np.array([[0, 1, 1, 1], [0, 0, 0, 2]])
    arguments = {"real": cells, "generated": cells, "lat": LAT, "lon": LON, "slots_per_day": 4, **change}
    with pytest.raises(ValueError, match=message):
        fidelity(arguments.pop("real"), arguments.pop("generated"), **arguments)


def test_the_reports_own_names_are_taken() -> None:
    cells = weeks_of(10)
    with pytest.raises(ValueError, match="'real itself' is one of the report's own rows"):
        fidelity_report({"real itself": cells}, real=cells, train=cells, lat=LAT, lon=LON, slots_per_day=12)


def test_weeks_as_arrays_by_hand() -> None:
    cells = np.array([[2, 2, -1, 0, 2, 0], [-1] * 6])
    assert [x.tolist() for x in place_hours(cells)] == [[0, 0], [0, 2], [2, 3]]
    assert first_hour_of_cell(cells)[0].tolist() == [0, 0, 2, 3, 0, 3]
    week = np.full((3, 168), 4)
    week[0, :120].reshape(5, 24)[:, 9:18] = 1  # at work on weekdays
    week[1, 120:].reshape(2, 24)[:, 9:18] = 1  # away at the weekend only
    week[2] = -1
    home, work = home_and_work(week)
    assert home.tolist() == [4, 4, -1] and work.tolist() == [1, 4, -1]
    assert home_and_work(week, first_weekday=5)[1].tolist() == [1, 4, -1]
    assert home_and_work(np.repeat(week, 2, axis=1), slots_per_day=48)[1].tolist() == [1, 4, -1]
