"""A stranger's model is ranked by one command, results are saved once, and who looks ahead is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from command_line import call
from huggingface_hub import ModelCardData

from hf_mobility import DataError, evaluate, make_task, paired_difference
from hf_mobility.baselines import UserFrequency
from hf_mobility.benchmark import Protocol, Result, benchmark
from hf_mobility.benchmark.next_location import NextLocationBench
from hf_mobility.benchmark.results import load_results, to_eval_results, to_frame, to_model_index
from hf_mobility.data.training_record import TrainingRecord

CITY = Protocol.load("simulated-city")
SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"


class Uniform:
    """The dumbest model: all places alike."""

    name = "Uniform"

    def probabilities(self, task: Any) -> Any:
        places = len(task.city.location_ids)
        yield task.rows, np.full((len(task.rows), places), 1 / places, dtype=np.float32)


class Oracle:
    """It reads the answer."""

    name = "Oracle"

    def probabilities(self, task: Any) -> Any:
        p = np.full((len(task.rows), len(task.city.location_ids)), 1e-9)
        p[np.arange(len(p)), task.location[task.rows]] = 1
        yield task.rows, p / p.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the baselines and of `Uniform`; only read."""
    folder = tmp_path_factory.mktemp("results")
    benchmark(CITY, Uniform, output=folder)
    return folder


@pytest.fixture
def baselines(saved: Path, tmp_path: Path) -> Path:
    """A folder in which the baselines need not be made again."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / "simulated-city" / "Uniform.json").unlink()
    return tmp_path


def test_scores_are_those_of_the_evaluator(saved: Path) -> None:
    """The same numbers by hand: frequency on the protocol's own task."""
    bench = NextLocationBench(CITY, Path())
    task = bench.cases[0].task
    outcome = evaluate(UserFrequency(task.train_visits()), task)
    by_hand = pd.Series(outcome.metric("mrr")).groupby(outcome.user).mean()
    score = Result.load(saved / "simulated-city" / "UserFrequency.json").score("simville", "mrr")
    assert score is not None
    assert score.value == pytest.approx(outcome.metric("mrr").mean(), abs=1e-6)
    assert score.by_user == pytest.approx(by_hand.mean(), abs=1e-6)
    assert (score.n, score.users) == (len(task.rows), task.users)
    assert score.low < score.value < score.high and score.by_user_low < score.by_user < score.by_user_high


def test_a_model_that_knows_nothing_gets_what_chance_gets(saved: Path) -> None:
    result = Result.load(saved / "simulated-city" / "Uniform.json")
    places = len(NextLocationBench(CITY, Path()).cases[0].task.city.location_ids)
    assert result.score("simville", "nll").value == pytest.approx(np.log(places), abs=1e-4)
    assert result.score("simville", "mrr").value == pytest.approx(2 / (places + 1), abs=1e-4)
    (row,) = [row for row in result.differences if row["metric"] == "mrr"]
    assert row["high"] < 0 and result.reference == "ContextMix"


def test_differences_are_paired_by_user(saved: Path) -> None:
    bench = NextLocationBench(CITY, Path())
    (case,) = bench.cases
    mix = bench.baselines()["ContextMix"]()
    mix.fit(case.train)
    wanted = paired_difference(evaluate(Uniform(), case.task), evaluate(mix, case.task), "mrr", CITY.bootstrap)
    (row,) = [
        one for one in Result.load(saved / "simulated-city" / "Uniform.json").differences if one["metric"] == "mrr"
    ]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(tuple(wanted), abs=1e-6)


def test_what_is_saved_is_not_made_again(saved: Path) -> None:
    told: list[str] = []
    path = saved / "simulated-city" / "UserFrequency.json"
    before = path.read_bytes()
    results = benchmark(CITY, Uniform, output=saved, progress=told.append)
    assert told == ["UserFrequency: as saved", "UserMarkov: as saved", "ContextMix: as saved", "Uniform: as saved"]
    assert path.read_bytes() == before
    assert [one.model for one in results] == ["UserFrequency", "UserMarkov", "ContextMix", "Uniform"]


def test_another_protocol_data_or_model_is_made_again(saved: Path, tmp_path: Path) -> None:
    found = {path.stem: Result.load(path) for path in (saved / "simulated-city").glob("*.json")}
    change = {"UserFrequency": "protocol_hash", "UserMarkov": "data_hash", "Uniform": "model_hash"}
    for name, result in found.items():
        replace(result, **({change[name]: "another"} if name in change else {})).save(tmp_path)
    told: list[str] = []
    benchmark(CITY, Uniform, output=tmp_path, progress=told.append)
    assert [line.partition(":")[0] for line in told if "as saved" in line] == ["ContextMix"]


def test_results_of_an_older_protocol_are_left_out(saved: Path) -> None:
    assert load_results(saved, replace(CITY, version=2)) == []


def test_who_looks_ahead_is_refused(baselines: Path) -> None:
    with pytest.raises(DataError, match="Oracle looks ahead"):
        benchmark(CITY, Oracle, output=baselines)
    assert not (baselines / "simulated-city" / "Oracle.json").exists()


def test_no_result_names_a_user(saved: Path) -> None:
    users = {str(user) for user in NextLocationBench(CITY, Path()).cases[0].task.visits["user_id"].unique()}
    text = json.loads((saved / "simulated-city" / "Uniform.json").read_text())
    assert next(iter(text)) == "command"
    assert {row["subset"] for row in text["scores"]} == {"all", "new places", "known places"}
    assert not users & {
        str(value) for row in text["scores"] for name, value in row.items() if name in ("case", "subset")
    }


def test_a_model_cannot_take_the_name_of_a_baseline() -> None:
    with pytest.raises(ValueError, match="name of a baseline"):
        benchmark(CITY, UserFrequency())


def test_a_checkpoint_of_another_system_is_refused_before_the_work() -> None:
    with pytest.raises(DataError, match="is a mobility_mstar"):
        benchmark(CITY, SHIPPED / "mstar-cells-small")


def test_whether_the_data_were_seen_is_told(baselines: Path) -> None:
    bench = NextLocationBench(CITY, Path())
    test, train = bench.parts()

    class Trained(Uniform):
        name = "Trained"
        seen: Any = TrainingRecord.of([train])

    class Cheated(Trained):
        name = "Cheated"
        seen = TrainingRecord.of([train, test])

    class Declares(Trained):
        name = "Declares"
        seen = set(bench.hashes["test"].values())

    found = {
        kind.name: benchmark(CITY, kind(), output=baselines)[-1].has_seen
        for kind in (Uniform, Trained, Cheated, Declares)
    }
    assert {name: (one["test"], one["train"]) for name, one in found.items()} == {
        "Uniform": ("unknown", "unknown"),
        "Trained": ("no", "yes"),
        "Cheated": ("yes", "yes"),
        "Declares": ("yes", "declared no"),
    }


def test_fit_gets_the_training_visits_and_other_cities(baselines: Path) -> None:
    class Asks(Uniform):
        name = "Asks"

        def fit(self, train: Any) -> None:
            self.train = train

    model = Asks()
    benchmark(CITY, model, output=baselines)
    task = NextLocationBench(CITY, Path()).cases[0].task
    pd.testing.assert_frame_equal(model.train.visits, task.train_visits())
    assert [source.city.name for source in model.train.sources] == ["elsewhere"]
    assert (model.train.city.popularity == task.city.with_popularity(task.train_visits()).popularity).all()


def test_the_csv_holds_all_rows_below_the_command(saved: Path) -> None:
    path = saved / "simulated-city.csv"
    assert path.read_text().startswith("# benchmark('simulated-city', 'Uniform')\n")
    pd.testing.assert_frame_equal(
        pd.read_csv(path, comment="#"), to_frame(load_results(saved, CITY)), check_dtype=False
    )


def test_results_become_entries_of_cards_and_of_the_hub(saved: Path) -> None:
    results = load_results(saved, CITY)
    data = ModelCardData(model_name="mine", eval_results=to_model_index(results, CITY, model="Uniform"))
    (entry,) = data.to_dict()["model-index"][0]["results"]
    assert [metric["name"] for metric in entry["metrics"]] == ["mrr: Uniform"]  # no row of a baseline
    (hub,) = yaml.safe_load(to_eval_results(results[-1], CITY, dataset_id="me/mobility"))
    assert hub["dataset"] == {"id": "me/mobility", "task_id": "simulated-city_simville_mrr"}
    assert hub["value"] == results[-1].score("simville", "mrr").value
    assert "test data seen: unknown" in hub["notes"]


def test_the_command_ranks_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\nclass Mine:\n    name = 'Mine'\n\n    def probabilities(self, task):\n"
        "        n = len(task.city.location_ids)\n        yield task.rows, np.full((len(task.rows), n), 1 / n)\n"
    )
    options = ("--protocol", "simulated-city", "--model", f"{tmp_path / 'mine.py'}:Mine", "-o", tmp_path / "results")
    shown = call("benchmark", *options).output
    assert "ContextMix" in shown and "Mine minus ContextMix, MRR: simville -" in shown
    saved = json.loads((tmp_path / "results" / "simulated-city" / "Mine.json").read_text())
    assert saved["kind"] == "entry point" and str(tmp_path) not in json.dumps(saved)


def test_the_command_lists_protocols_and_names_what_is_missing(tmp_path: Path) -> None:
    assert "simulated-city (next_location, no data files)" in call("benchmark", "--list").output
    assert "--protocol simulated-city" in call("benchmark", code=2).output
    told = call("benchmark", "--protocol", "geolife-horizons", "--data", tmp_path, code=1).output
    assert "gps_geolife_beijing.parquet does not exist" in told
    told = call("benchmark", "--protocol", "simulated-city", "--model", "absent.py:Mine", code=1).output
    assert "There is no file absent.py" in told


def test_the_shipped_checkpoint_is_ranked(baselines: Path) -> None:
    result = benchmark(CITY, SHIPPED / "samoe-small", output=baselines)[-1]
    assert result.kind == "checkpoint" and result.source == "samoe-small"
    assert result.has_seen["test"] == "declared no"
    assert 0.3 < result.score("simville", "mrr").value < 0.6


@pytest.mark.slow
def test_a_checkpoint_is_adapted_where_the_protocol_says_so(tmp_path: Path, toy: SimpleNamespace) -> None:
    toy.model().save_pretrained(tmp_path)
    bench = NextLocationBench(replace(CITY, known={"share_of_users": 0.2, "adapt": True}), Path())
    (case,) = bench.cases
    assert case.train.visits["user_id"].nunique() == round(0.2 * case.task.users)
    model = bench.checkpoint(str(tmp_path), name="tiny")
    model.fit(case.train)
    assert (model.pipe.tokenizer.city.popularity == case.train.city.popularity).all()
    assert hasattr(model.pipe.model, "peft_config")
    assert np.isfinite(bench.outcome(model, case).metric("nll")).all()


def test_users_of_a_test_city_are_dropped_from_sources_of_the_same_service() -> None:
    sets = [replace(one, about={"service": "one"}) for one in CITY.sets]
    shared = replace(CITY, sets=tuple(sets))
    task = make_task(*_visits_and_city(shared))
    with pytest.raises(DataError, match="no rows"):
        list(NextLocationBench(shared, Path()).cases[0].train.sources)  # both number their users from 0
    assert task.users


def _visits_and_city(protocol: Protocol) -> tuple[Any, Any]:
    bench = NextLocationBench(protocol, Path())
    return bench.cases[0].task.visits, bench.cases[0].task.city
