"""Imports are timed in pairs of processes, streams of visits are tokenized whole, and their tables are filled."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from hf_mobility import City, SamoeTokenizer, simulate_city
from hf_mobility.data.sequences import visits_to_dataset


def test_imports_are_timed_with_ours_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    module = import_module("benchmarks.speed.import_time")
    monkeypatch.setattr(module, "OURS", "sum(range(5_000_000)); ")
    monkeypatch.setattr(module, "IMPORTS", {"json": "import json"})
    monkeypatch.setattr("sys.argv", ["import_time", "--runs", "1", "--output", str(tmp_path / "import_time.csv")])
    module.main()
    table = pd.read_csv(tmp_path / "import_time.csv", comment="#")
    (row,) = table.to_dict("records")
    assert row["import"] == "json" and row["runs"] == 1 and row["with_s"] > row["without_s"] > 0
    assert row["ratio"] == row["low"] == row["high"] == pytest.approx(row["with_s"] / row["without_s"], rel=1e-3)
    made = row["with_s"], row["without_s"], row["ratio"]
    assert "| `json` | {:.2f} | {:.2f} | {:.2f} [".format(*made) in fill_blocks({"import_time": table}, ["imports"])


def test_the_ratio_of_imports_is_the_median_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("benchmarks.speed.import_time")
    ours, alone = [4.0, 3.0, 9.0], [2.0, 3.0, 3.0]
    left = {module.OURS: iter([100.0, *ours]), "": iter(alone)}  # one process warms the disk cache
    monkeypatch.setattr(module, "cpu_seconds", lambda code: next(left[code.removesuffix("import json")]))
    found = module.measure("import json", 3)
    assert found["ratio"] == statistics.median(a / b for a, b in zip(ours, alone)) == 2
    assert (found["with_s"], found["without_s"], found["low"], found["high"]) == (4, 3, 1, 3)


def test_every_visit_of_a_stream_is_tokenized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    module = import_module("benchmarks.speed.streams")
    monkeypatch.setattr(module, "FILE", 2_000)
    monkeypatch.setattr(module, "user_chunks", partial(module.user_chunks, rows=1_500))
    module.simulate(5_000, 5, tmp_path)
    visits = pd.read_parquet(tmp_path / "visits")
    row = module.tokenize(tmp_path)
    assert row["visits"] == len(visits) >= 5_000 and row["users"] == visits["user_id"].nunique()
    rows = [pd.read_parquet(path) for path in sorted((tmp_path / "rows").iterdir())]
    assert len(rows) == row["chunks"] > 2
    tokenizer = SamoeTokenizer.from_city(City.load(tmp_path / "city"))
    expected = visits_to_dataset(visits, tokenizer).to_pandas()
    pd.testing.assert_frame_equal(pd.concat(rows, ignore_index=True), expected)
    table = fill_blocks({"streams": pd.DataFrame([row | {"cpu_s": 1234.0, "peak_gib": 0.5}])}, ["streams"])
    assert f"| {len(visits):,} | {row['users']} | {row['chunks']} | 1,234 |" in table and "| 0.50 |" in table


def test_memory_is_the_peak_of_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    module = import_module("benchmarks.speed.memory")
    cases = ["city:1000:0", "predict:2000:5"]
    monkeypatch.setattr("sys.argv", ["memory", "--cases", *cases, "--output", str(tmp_path / "memory.csv")])
    module.main()
    table = pd.read_csv(tmp_path / "memory.csv", comment="#")
    assert table[["verb", "places", "users"]].to_numpy().tolist() == [["city", 1000, 0], ["predict", 2000, 5]]
    assert table["peak, GiB"].between(0.1, 8).all() and (table["seconds"] > 0).all()
    text = fill_blocks({"memory": table}, ["memory"])
    assert f"| predict | 2,000 | 5 | {table['peak, GiB'][1]:.1f} | {table['seconds'][1]:.0f} |" in text


def test_visits_for_memory_are_at_a_users_own_places() -> None:
    module = import_module("benchmarks.speed.memory")
    pois = module.made_places(3000)
    visits = module.made_visits(20, pois)
    own = visits.groupby("user_id")["location_id"].agg(lambda ids: ids.astype(int).tolist())
    assert (own.str.len() == module.VISITS).all() and own.map(lambda ids: len(set(ids))).between(2, 12).all()
    assert own.map(lambda ids: len({place // module.TOWN for place in ids})).eq(1).all()
    assert visits.groupby("user_id")["time"].is_monotonic_increasing.all()


def test_sessions_are_timed_beside_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    module = import_module("benchmarks.speed.session")
    small = ["--places", "200", "--context", "4", "--users", "3", "--repeats", "1"]
    asked = ["session", "checkpoints/samoe-small", *small, "--output", str(tmp_path / "session.csv")]
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    monkeypatch.setattr("sys.argv", asked)
    module.main()
    table = pd.read_csv(tmp_path / "session.csv", comment="#")
    assert table["measurement"].tolist() == 2 * table["measurement"][:4].tolist()
    assert table["users"].tolist() == 2 * [3, 3, 3, 1]
    assert (table["answers_per_s"] * table["ms"] / 1000).tolist() == pytest.approx(table["users"].tolist(), rel=1e-3)
    assert (table["bound_per_s"] > 0).all()
    text = fill_blocks({"session": table}, ["sessions"])
    assert f"| session, one visit each | float32 | 3 | {table['ms'][1]:,.1f} |" in text


def test_waits_on_the_page_are_told_by_action(fill_blocks: Callable[..., str]) -> None:
    measured = [f"{when}_{name}_s" for when in ("first", "later") for name in ("wait", "server_cpu", "browser_cpu")]
    rows = [["start the server", 9, 8, 0, 9, 8, 0, 1], ["click a place", 0.5, 0.3, 0.1, 0.25, 0.12, 0.08, 5]]
    text = fill_blocks({"page": pd.DataFrame(rows, columns=["action", *measured, "repeats"])}, ["page"])
    assert "| start the server | 8.00 | 0.00 | 9.00 |  |  |  |" in text
    assert "| click a place | 0.30 | 0.10 | 0.50 | 0.12 | 0.08 | 0.25 |" in text


def test_precisions_are_compared_with_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]
) -> None:
    module = import_module("benchmarks.speed.precision")
    made = simulate_city(4, num_locations=60, num_days=14, seed=0)
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    monkeypatch.setattr(module, "visits_of", lambda name, **options: (made.visits, city))
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    asked = ["precision", "checkpoints/samoe-small", "--output", str(tmp_path / "precision.csv")]
    monkeypatch.setattr("sys.argv", asked)
    module.main()
    table = pd.read_csv(tmp_path / "precision.csv", comment="#").set_index("weights")
    assert table.index.tolist() == ["float32", "bfloat16", "int8"]
    assert table["largest_difference"]["float32"] == 0
    assert table["largest_difference"][1:].between(1e-5, 0.1).all()  # another precision, and the same model
    text = fill_blocks({"precision": table.reset_index()}, ["precisions"])
    assert f"| int8 | {100 * table['acc@1']['int8']:.1f} % | {table['mrr']['int8']:.3f} |" in text


def test_the_published_forms_are_timed_beside_ours(
    tmp_path: Path, run_benchmark: Callable[..., None], fill_blocks: Callable[..., str]
) -> None:
    output = tmp_path / "published.csv"
    run_benchmark(
        "speed.published", "--quick", "--only", "codec", "generation", "samoe", "raw", "--output", str(output)
    )
    table = pd.read_csv(output, comment="#")
    first = table.groupby("work", sort=False).head(1)
    assert (first["form"] == "published form").all() and first["times as fast"].eq(1).all() and len(first) == 4
    base = table["work"].map(first.set_index("work")["s"])
    assert (base / table["s"]).tolist() == pytest.approx(table["times as fast"].tolist(), rel=0.1, abs=0.02)
    text = fill_blocks({"published": table}, ["published"])
    assert f"| {first['work'].iloc[-1]} | published form | {first['s'].iloc[-1]:.2f} | 1.0 |" in text


def test_stays_are_timed_in_parts(monkeypatch: pytest.MonkeyPatch, fill_blocks: Callable[..., str]) -> None:
    module = import_module("benchmarks.speed.stays")
    minutes = pd.to_timedelta(range(0, 200, 5), unit="min")
    time = pd.Timestamp("2024-05-01", tz="UTC") + minutes
    points = pd.DataFrame({"user_id": 1, "time": time, "lat": 48.0, "lon": [11.0] * 20 + [12.0] * 20})
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr(module, "grouping", lambda points: lambda: sum(range(1_000_000)) and 2)
    search = module.stays._find_runs
    table = module.measure(points, 2)
    assert module.stays._find_runs is search
    assert table["measurement"].tolist() == [module.ALL, module.CHECK, module.SEARCH, module.OTHER]
    assert table["stays"].tolist() == [2, pd.NA, pd.NA, 2] and table["points"].eq(40).all()
    assert (table["s"] / table["s"].iloc[-1]).tolist() == pytest.approx(table["times the other"].tolist())
    text = fill_blocks({"stays": table}, ["stays"])
    assert f"| {module.OTHER} | {table['s'].iloc[-1]:.2f} | 1.0 | 2 |" in text
