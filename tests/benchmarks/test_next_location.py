"""The next-location benchmarks run on small simulated cities, and their helpers do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from hf_mobility import ContextMix, NextLocationPipeline, SamoeConfig, evaluate, make_task


@pytest.fixture(scope="module")
def world(toy: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A checkpoint with a city, and the task of twenty people."""
    visits, city = toy.city(20, num_days=14)
    model = toy.model(spread=None)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return SimpleNamespace(visits=visits, city=city, checkpoint=str(folder), task=make_task(visits, city))


def test_a_model_is_pretrained_on_simulated_cities(
    run_benchmark: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "tiny"
    small = ["--simulate", "2", "--users", "12", "--size", "tiny", "--epochs", "0.2", "--set", "num_pointer_heads=2"]
    run_benchmark("next_location.pretrain_samoe", *small, "--output", str(checkpoint))
    assert "2 cities" in capsys.readouterr().out
    assert json.loads((checkpoint / "config.json").read_text())["num_pointer_heads"] == 2
    assert len((checkpoint / "sources.txt").read_text().splitlines()) == 2
    assert NextLocationPipeline.from_pretrained(checkpoint).tokenizer.name == "Simville"


@dataclass
class Known:
    """A configuration with the names below."""

    mixture: bool
    selector: str
    x: float
    attribute_map: ClassVar[dict[str, str]] = {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mixture=false", False),
        ("x=True", True),
        ("x=none", None),
        ("x=0.5", 0.5),
        ("x=3", 3),
        ("selector=hard", "hard"),
    ],
)
def test_config_values_are_read_from_the_command_line(text: str, value: object) -> None:
    (found,) = import_module("benchmarks.options").config_values([text], Known).items()
    assert found == (text.partition("=")[0], value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("embeddings.train_raw", "RawConfig"),
        ("embeddings.profile_geolife", "RawConfig"),
        ("next_location.pretrain_samoe", "SamoeConfig"),
        ("generation.train_mstar_codec", "MstarCodecConfig"),
    ],
)
def test_a_name_that_no_configuration_has_is_refused(
    run_benchmark: Callable[..., None], tmp_path: Path, name: str, config: str
) -> None:
    folder = ["--save" if name.endswith("geolife") else "--output", str(tmp_path)]
    with pytest.raises(ValueError, match=f"{config} has no droput; see its documentation"):
        run_benchmark(name, *folder, "--set", "droput=0.1")


def test_the_transfer_comparison_has_baselines_first_and_a_row_per_draw_and_strength(world: SimpleNamespace) -> None:
    module = import_module("benchmarks.next_location.evaluate_transfer")
    weights = dict.fromkeys((0.2, 1.0), ContextMix.fit([world.task]))
    results, reports = module.compare(world.task, world.checkpoint, weights, [0.2], draws=2, strengths=["none"])
    names = [result.name for result in results]
    ours = [name for name in names if name.startswith("SAMoE")]
    assert names[-len(ours) :] == ours
    assert len(set(names)) == len(names)
    assert len(ours) == 1 + 2 * 2
    assert [report["draw"] for report in reports] == [0, 1]
    assert all(report["used"] == "none" and report["people"] == 4 for report in reports)
    by_name = dict(zip(names, results))
    drawn = [by_name[name] for name in ours if name.endswith("draw 1")]
    assert len(drawn) == 2  # nothing was tuned, so popularity and the identity adapter agree
    np.testing.assert_allclose(drawn[0].probability, drawn[1].probability, atol=1e-6)

    table = module.differences(results)
    assert set(table["ours"]) == set(ours)
    for row in table.to_dict("records"):
        first, second = (by_name[row[who]].metric(row["metric"]) for who in ("ours", "rival"))
        assert row["mean"] == pytest.approx(float(np.mean(first - second)), abs=1e-9)
        assert row["low"] <= row["mean"] <= row["high"]


def test_the_rival_trained_from_scratch_is_a_function_of_its_seed(world: SimpleNamespace) -> None:
    train = import_module("benchmarks.next_location.evaluate_full_data").train
    config = SamoeConfig.from_preset("tiny")
    visits = world.task.train_visits()
    pipes = [train(visits, world.city, config, epochs=2, seed=seed) for seed in (0, 0, 1)]
    scores = [evaluate(pipe, world.task).probability for pipe in pipes]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 1e-4
    assert pipes[0].name.endswith("2 epochs")


def test_the_baselines_table_averages_over_draws(world: SimpleNamespace) -> None:
    module = import_module("benchmarks.next_location.evaluate_baselines")
    weights = dict.fromkeys((0.0, 0.05, 1.0), ContextMix.fit([world.task]))
    tables = pd.concat(module.count_rows(world.task, weights, bootstrap=0))
    rows = tables[tables["subset"] == "all"].set_index("model")
    assert rows["draws"].to_dict()["ContextMix (counts of 5 %)"] == 3
    draws = [world.task.train_visits(0.05, seed) for seed in (0, 1, 2)]
    scores = [evaluate(ContextMix(weights[0.05], few), world.task).metric("mrr").mean() for few in draws]
    assert rows.loc["ContextMix (counts of 5 %)", "mrr"] == pytest.approx(np.mean(scores))


def test_priors_count_the_moves_of_each_person_and_are_mixed_in(world: SimpleNamespace) -> None:
    module = import_module("benchmarks.next_location.evaluate_new_places")
    visits = world.task.train_visits()
    counts = module.CityCounts.of(world.city, visits)
    place = pd.Series(world.city.index_of(visits["location_id"].to_numpy(dtype=object)))
    following = place.groupby(visits["user_id"]).shift(-1)
    moves = pd.crosstab(place, following.astype("Int64"))
    for origin, row in moves.iterrows():
        expected = row.drop(origin, errors="ignore")  # staying is no move
        assert counts.transitions[[origin]].toarray()[0, expected.index].tolist() == expected.tolist()
    successors, popularity = counts.priors(np.arange(len(world.city)))
    assert set(successors.sum(axis=1).round(6)) <= {0.0, 1.0} and popularity[0].sum() == pytest.approx(1)

    pipe = NextLocationPipeline.from_pretrained(world.checkpoint, city=world.city)
    weights = np.array([[0.5, 0.0, 0.5], [0.25, 0.75, 0.0]])
    mixed = dict(_rows(module.WithPriors(pipe, counts, weights, "mixed"), world.task))
    for row, own in _rows(pipe, world.task):
        last = world.task.location[row - 1]
        known = successors[last].any()
        expected = own * 0.25 + 0.75 * successors[last] if known else 0.5 * (own + popularity[last])
        np.testing.assert_allclose(mixed[row], expected, atol=1e-6)


def _rows(predictor: Any, task: Any) -> list[tuple[int, np.ndarray]]:
    return [(row, p) for rows, block in predictor.probabilities(task) for row, p in zip(rows.tolist(), block)]


def test_what_counts_could_reach_grows_with_the_people(world: SimpleNamespace) -> None:
    few, all_people = (
        import_module("benchmarks.next_location.evaluate_new_places").reach(world.task, fraction)
        for fraction in (0.1, 1.0)
    )
    for name in ("visited by somebody", "somebody went there from here"):
        assert 0 <= few[name] <= all_people[name] <= 1
    assert all_people["among the ten commonest successors"] <= all_people["somebody went there from here"]


@pytest.mark.data
def test_hours_in_the_same_cell_are_one_visit() -> None:
    """One cab, hour by hour, in a loop."""
    module = import_module("benchmarks.next_location.other_kind")
    path = import_module("benchmarks.open_data").data_folder() / "derived_weekly_grid_sf_cabs.parquet"
    if not path.exists():
        pytest.skip("the taxi weeks are not in HF_MOBILITY_DATA")
    visits, city = module.cab_visits(num_cabs=3)
    assert visits["user_id"].nunique() == 3
    assert len(city) == 900
    cab = visits["user_id"].iloc[0]
    weeks = pd.read_parquet(path)
    expected: list[tuple[pd.Timestamp, str]] = []
    last: Any = None
    for week in weeks[weeks["user_id"] == cab].sort_values("week_start_local").itertuples():
        for hour, cell in enumerate(week.cells):
            if cell < 0:
                continue  # nobody knows; the cab may be where it was
            if cell != last:
                local = pd.Timestamp(week.week_start_local) + pd.Timedelta(hours=hour)
                name = f"r{cell // 30}c{cell % 30}"
                expected.append((local.tz_localize("America/Los_Angeles").tz_convert("UTC"), name))
            last = cell
    own = visits[visits["user_id"] == cab]
    assert list(zip(own["time"], own["location_id"])) == expected
    assert (city.index_of(own["location_id"]) >= 0).all()


def test_an_update_of_a_table_keeps_other_rows_and_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = import_module("benchmarks.tables").save_table
    monkeypatch.setattr("sys.argv", ["examples/a.py"])
    save(pd.DataFrame({"city": ["x", "y"], "mrr": [0.1, 0.2]}), tmp_path / "t.csv")
    monkeypatch.setattr("sys.argv", ["examples/a.py", "--cities", "y", "z"])
    for _ in range(2):  # scripts save after every city
        save(pd.DataFrame({"city": ["y", "z"], "mrr": [0.3, 0.4]}), tmp_path / "t.csv", update=["city"])
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert text.startswith("# python examples/a.py; python examples/a.py --cities y z\ncity,mrr\n")
    assert text.endswith("x,0.1\ny,0.3\nz,0.4\n")
    save(pd.DataFrame({"city": ["z"], "mrr": [0.5]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").endswith("city,mrr\nz,0.5\n")


def test_the_tables_of_the_results_page_are_filled(fill_blocks: Callable[..., str]) -> None:
    scores = {"acc@1": 0.25, "acc@5": 0.5, "acc@10": 0.625, "mrr": 0.375, "nll": 4.0, "ece": 0.125, "n": 9, "users": 2}
    scores |= {"mrr_low": 0.25, "mrr_high": 0.5}
    zero = {
        "city": ["calgary", "chicago", "washington_dc", "gowalla_austin"],
        "subset": "all",
        "model": "SAMoE zero-shot, 0 %",
    }
    curve = {
        "city": ["calgary", "chicago"] * 2,
        "model": ["SAMoE zero-shot, 0 %"] * 2 + ["SAMoE + LoRA auto, 1 % draw 0"] * 2,
    }
    reach = {"city": ["calgary"], "share of people": 0.05, "new places": 309, "visited by somebody": 0.25}
    priors = {"city": "calgary", "model": ["alone", "alone", "mixed", "mixed"], "subset": ["all", "new places"] * 2}
    gains = {"mrr gain": [np.nan, np.nan, 0.0018, 0.0018], "mrr gain low": 0.0009, "mrr gain high": 0.0029}
    tables = {
        "transfer": zero | scores,
        "transfer_seed1": zero | scores | {"mrr": 0.5},
        "curve": curve | {"subset": "all"} | scores,
        "new_places_reach": reach,
        "new_places_priors": priors | scores | gains,
        "strengths": {"model": ["no adaptation, 512"], **scores},
        "dense": {"model": "user Markov", "subset": ["all", "new places"], **scores, "seconds": [1250, 1250]},
    }
    text = fill_blocks(tables, ["seeds", "curve", "new places reach", "new places priors", "strengths", "dense"])
    for row in (
        "| **samoe-small** | 0.250/0.375 | 0.250/0.375 | 0.250/0.375 | 0.250/0.375 | 0.250/0.375 |",
        "| check-ins only, seed 1 | 0.250/0.500 | 0.250/0.500 | 0.250/0.500 | 0.250/0.500 | 0.250/0.500 |",
        "| Acc@1/MRR | Calgary | Chicago |",
        "| SAMoE + LoRA auto, 1 % | 0.250/0.375 | 0.250/0.375 |",
        "| Calgary | 5 % | 309 | 0.250 |",
        "| Calgary | alone | 0.250/0.375 | 0.625/0.375 |  |",
        "| Calgary | mixed | 0.250/0.375 | 0.625/0.375 | +0.0018 [+0.0009, +0.0029] |",
        "| no adaptation, 512 | 0.250 | 0.500 | 0.375 | 4.000 |",
        "| user Markov | 0.250 | 0.500 | 0.625 | 0.375 [0.250, 0.500] | 4.000 | 0.625 | 1,250 |",
    ):
        assert row in text, row


def test_groups_pool_the_users_of_cities_and_average_the_draws(world: SimpleNamespace, toy: SimpleNamespace) -> None:
    module = import_module("benchmarks.next_location.evaluate_groups")
    tasks = [world.task, make_task(*toy.city(12, seed=5))]
    base = NextLocationPipeline.from_pretrained(world.checkpoint, city=world.city)
    found = [module.results_of(task, base, 2) for task in tasks]
    assert [len(draws) for draws in found[0].values()] == [1, 1, 2, 1, 1, 1, 2, 1, 1]
    first, second = (results["SAMoE, 0 %"][0] for results in found)
    both = module.pooled([first, second])
    assert len(np.unique(both.user)) == tasks[0].users + tasks[1].users
    assert len(np.unique(both.rows)) == len(both.rows) == len(first.rows) + len(second.rows)
    own = [pd.Series(one.metric("mrr")).groupby(one.user).mean() for one in (first, second)]
    together = {name: [module.pooled([a, b]) for a, b in zip(found[0][name], found[1][name])] for name in found[0]}
    masks = {"some": np.arange(len(both.rows)) % 2 == 0}
    table = module.measures(together, masks, 5).set_index(["model", "subset"])
    assert table.loc[("SAMoE, 0 %", "all"), "user_mrr"] == pytest.approx(pd.concat(own).mean())
    draws = [one.metric("mrr")[masks["some"]].mean() for one in together["SAMoE, 5 %"]]
    assert table.loc[("SAMoE, 5 %", "some"), "mrr"] == pytest.approx(np.mean(draws))
    pairs = module.differences(together, masks, 5)
    row = pairs[(pairs["ours"] == "SAMoE, 5 %") & (pairs["metric"] == "mrr") & (pairs["per"] == "visit")].iloc[0]
    mix = np.mean([one.metric("mrr")[masks["some"]].mean() for one in together[row["rival"]]])
    assert row["mean"] == pytest.approx(np.mean(draws) - mix)


def test_swapped_days_are_those_of_another_user_at_the_same_hours(world: SimpleNamespace) -> None:
    module = import_module("benchmarks.next_location.evaluate_anomalies")
    visits = module.swapped(world.task, seed=0)
    original = world.task.visits
    last = set(map(tuple, original[world.task.target][["user_id", "time"]].to_numpy()))
    given = visits[visits["swapped"]]
    assert given["user_id"].nunique() >= 3 and (given.groupby("user_id")["day"].nunique() == 1).all()
    assert visits.loc[visits["swapped"], "last_day"].all()
    clock = original["time"].dt.strftime("%H:%M:%S") + original["location_id"]
    for user, rows in given.groupby("user_id"):
        own = rows["time"].dt.strftime("%H:%M:%S") + rows["location_id"]
        donors = [
            other for other in original["user_id"].unique() if set(own) <= set(clock[original["user_id"] == other])
        ]
        assert any(other != user for other in donors)
        kept = visits[(visits["user_id"] == user) & (visits["day"] == rows["day"].iloc[0])]
        assert kept["swapped"].all()
    kept = visits[~visits["swapped"]]
    gone = len(original) - len(kept)
    assert 0 < gone <= len(last)
    ids = set(map(tuple, original[["user_id", "time", "location_id"]].to_numpy()))
    assert set(map(tuple, kept[["user_id", "time", "location_id"]].to_numpy())) <= ids


def test_the_area_under_the_curve_of_users_drawn_once_is_the_plain_one() -> None:
    module = import_module("benchmarks.next_location.evaluate_anomalies")
    rng = np.random.default_rng(0)
    days = pd.DataFrame({"user": np.repeat(np.arange(30), 5), "swapped": np.tile([0, 0, 0, 0, 1], 30)})
    days["a"] = days["swapped"] + rng.normal(size=150)
    days["b"] = rng.normal(size=150)
    pairs = [a > b for a in days.loc[days["swapped"] == 1, "a"] for b in days.loc[days["swapped"] == 0, "a"]]
    assert module.auroc(days, days["a"]) == pytest.approx(np.mean(pairs))
    low, high = module.difference(days, "a", "b", 50)
    assert low < module.auroc(days, days["a"]) - module.auroc(days, days["b"]) < high
    assert module.difference(days, "a", "a", 5) == (0.0, 0.0)


def test_the_tables_by_user_and_group_are_filled(fill_blocks: Callable[..., str]) -> None:
    cities = ["calgary", "chicago", "washington_dc", "gowalla_austin", "four cities", "cabs"]
    models = ["context mix, 5 %", "context mix, 100 %, chosen weights", "SAMoE, 5 %"]
    subsets = ["all", "history < 15", "between"]
    scores = {"acc@1": 0.25, "mrr": 0.375, "nll": 4.0, "ece": 0.125}
    scores |= {f"user_{name}": value / 2 for name, value in scores.items()} | {"n": 1200, "users": 30}
    keys = pd.MultiIndex.from_product([cities, models, subsets], names=["city", "model", "subset"])
    pairs = pd.MultiIndex.from_product(
        [cities, ["SAMoE, 5 %"], models[:2], subsets, ["acc@1", "mrr"], ["visit", "user"]],
        names=["city", "ours", "rival", "subset", "metric", "per"],
    )
    gains = pairs.to_frame(index=False).assign(mean=0.0125, low=-0.0025, high=0.0275, users=30)
    gains.loc[gains["per"] == "visit", "low"] = 0.0025
    weights = {"city": ["calgary"] * 2, "model": ["shipped weights", "chosen: shipped"], "mrr": [0.4, 0.41], "nll": 3.5}
    found = pd.MultiIndex.from_product([["boston", *cities[:4]], ["new place", "score"], [0, 1]])
    found = found.to_frame(index=False, name=["city", "score", "draw"]).assign(kind="target")
    found.loc[found["city"] == "boston", "kind"] = "source"
    found["auroc"] = 0.75 + 0.125 * (found["score"] == "score") + 0.01 * found["draw"]
    found["low over new place"], found["high over new place"] = 0.1, 0.15
    tables = {
        "groups": keys.to_frame(index=False).assign(**scores).to_dict("list"),
        "groups_pairs": gains.to_dict("list"),
        "mix_weights": weights,
        "anomalies": found.to_dict("list"),
    }
    blocks = ["users", "visits", "user pairs", "groups", "groups few", "history by city", "elsewhere", "mix weights"]
    text = fill_blocks(tables, [*blocks, "anomalies", "anomaly gains"])
    gain, sure = "+0.013 [-0.003, +0.028]", "**+0.013 [+0.003, +0.028]**"
    for row in (
        f"| **SAMoE, 5 %** |{' 0.125/0.188 |' * 5} 2.000 | 0.062 |",
        f"| context mix, 5 % |{' 0.250/0.375 |' * 5} 4.000 | 0.125 |",
        f"| SAMoE, 5 % - context mix, 5 % | mrr, per user |{f' {gain} |' * 5}",
        f"| between the two | 30 | 1,200 | 0.125 | 0.125 | {gain} | {sure} |",
        f"| history < 15 |{f' {gain}, 30 |' * 5}",
        "| 160 San Francisco cabs | **SAMoE, 5 %** | 0.250/0.375 | 0.125/0.188 | 4.000 | 0.125 |",
        "| chosen by `for_task` | 0.410 / 3.500 |",
        f"| **score** | 0.880 |{' 0.880 |' * 4} 0.880 |",
        f"| new place |{' +0.125 [+0.100, +0.150] |' * 4}",
    ):
        assert row in text, f"{row}\n{text}"
