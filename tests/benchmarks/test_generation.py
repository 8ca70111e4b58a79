"""The M-STAR benchmarks on a toy city: days of 24 hours of thirty users, 16 cells, tiny models.

`load_weeks` of every script is replaced by the toy's, so that nothing heavy runs; it has tests of its own.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import MstarCodecConfig, MstarCodecModel, MstarForTrajectoryGeneration, MstarTokenizer, simulate_city
from hf_mobility.data.splits import split_weeks_by_user

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("train_mstar_codec", "train_mstar", "evaluate_mstar", "ablate_mstar", "trace_mstar")
LEVELS = [1, 4, 24]
STEPS = {"--steps": "24", "--batch-size": "32"}
UNTRAINED = np.log(32)  # loss of a generator that knows nothing about its 32 codes
FORM = {"size": "tiny", "variant": "corrected", "seed": 0}
TRAINING = {"batch_size": 32, "seed": 0}


@pytest.fixture(scope="module")
def examples() -> SimpleNamespace:
    """The modules of the scripts and what they share."""
    modules = {name: importlib.import_module(f"benchmarks.generation.{name}") for name in ("weeks", *SCRIPTS)}
    return SimpleNamespace(**modules, options=importlib.import_module("benchmarks.options"))


@pytest.fixture(scope="module")
def toy_weeks(examples: SimpleNamespace) -> Any:
    """A WeekSet of the days of thirty people; two people have hours of which nothing is known."""
    city = simulate_city(30, num_days=14, num_locations=60, radius_km=2.0, seed=5)
    lat, lon = city.visits["lat"], city.visits["lon"]
    tokenizer = MstarTokenizer.from_grid(
        lat=lat, lon=lon, timezone=city.timezone, rows=4, columns=4, factors=(2, 1), num_hours=24
    )
    weeks = tokenizer.weeks(city.visits)
    cells, person = weeks.cells.copy(), weeks.user_id
    cells[np.isin(person, np.unique(person)[:2]), 13:15] = -1
    parts = split_weeks_by_user(person, fractions=(0.5, 0.2, 0.3), seed=0)
    tokenizer.fit_conditions(cells[parts[0]], num_attributes=3, method="distinct_cells")
    return examples.weeks.WeekSet("toy", cells, tokenizer, *parts, level_lengths=LEVELS)


def run_main(module: ModuleType, weeks: Any, arguments: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Run a script's `main` on these weeks; what it asked `load_weeks` for."""
    asked = []

    def load(name: str, **options: Any) -> Any:
        asked.append((name, options))
        return weeks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_weeks", load)
        patch.setattr(sys, "argv", [module.__file__, *arguments])
        module.main()
    return asked


@pytest.fixture(scope="module")
def runs(examples: SimpleNamespace, toy_weeks: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Folders of both stages, run from the command line, and what each script asked `load_weeks` for."""
    folder = tmp_path_factory.mktemp("runs")
    shared = ["--users", "30", "--seed", "4", "--size", "tiny", *(word for pair in STEPS.items() for word in pair)]
    codec = ["--output", str(folder / "codec"), "--report", str(folder / "codec.csv"), "--set", "dropout=0"]
    model = ["--codec", str(folder / "codec"), "--output", str(folder / "mstar"), "--settings", "paper"]
    asked = run_main(examples.train_mstar_codec, toy_weeks, [*shared, *codec])
    asked += run_main(examples.train_mstar, toy_weeks, [*shared, *model, "--report", str(folder / "tried.csv")])
    evaluation = [str(folder / "mstar"), "--users", "30", "--seed", "4", "--number", "40", "--draws", "2"]
    evaluation += ["--hourly-epochs", "1", "--hourly-width", "16", "--hourly-before", "1", "1", "--plain"]
    evaluation += ["--output", str(folder / "table.csv")]
    asked += run_main(examples.evaluate_mstar, toy_weeks, evaluation)
    return SimpleNamespace(folder=folder, asked=asked)


@pytest.fixture(scope="module")
def codec(runs: SimpleNamespace) -> MstarCodecModel:
    return MstarCodecModel.from_pretrained(runs.folder / "codec").eval()


@torch.no_grad()
def codec_loss(model: MstarCodecModel, weeks: Any) -> float:
    encoded = weeks.tokenizer(weeks.cells[weeks.validation], conditions=False, return_tensors="pt")
    return float(model(**encoded).loss)


@torch.no_grad()
def generator_loss(model: MstarForTrajectoryGeneration, weeks: Any) -> float:
    encoded = weeks.tokenizer(weeks.cells[weeks.validation], return_tensors="pt")
    return float(model(**encoded).loss)


# Weeks and their split


def test_all_three_scripts_ask_for_the_same_weeks(runs: SimpleNamespace) -> None:
    assert runs.asked == [("simulated", {"seed": 4, "users": 30})] * 3


def load_and_watch(examples: SimpleNamespace, name: str, **options: Any) -> tuple[Any, np.ndarray, list[np.ndarray]]:
    """The weeks without the costly fit of their conditions; their people; and the weeks that it was to be fitted on."""
    people, fitted = [], []

    def split(person: np.ndarray, **options: Any) -> Any:
        people.append(person)
        return split_weeks_by_user(person, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples.weeks, "split_weeks_by_user", split)
        patch.setattr(MstarTokenizer, "fit_conditions", lambda self, cells, **options: fitted.append(cells))
        weeks = examples.weeks.load_weeks(name, **options)
    return weeks, people[0], fitted


def assert_split_by_person(weeks: Any, person: np.ndarray, fitted: list[np.ndarray]) -> None:
    parts = [weeks.train, weeks.validation, weeks.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(weeks.cells)))
    owners = [set(person[part].tolist()) for part in parts]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    shares = np.array([len(own) for own in owners]) / len(np.unique(person))
    np.testing.assert_allclose(shares, (0.5, 0.2, 0.3), atol=0.06)
    assert len(fitted) == 1
    np.testing.assert_array_equal(fitted[0], weeks.cells[weeks.train])
    assert weeks.cells.min() >= -1 and weeks.cells.max() < weeks.tokenizer.num_cells
    assert weeks.cells.shape[1] == weeks.tokenizer.num_hours


def test_simulated_weeks_are_split_by_person_and_are_a_function_of_the_seed(examples: SimpleNamespace) -> None:
    weeks, person, fitted = load_and_watch(examples, "simulated", users=20, seed=1)
    assert_split_by_person(weeks, person, fitted)
    assert len(np.unique(person)) == 20 and weeks.slots_per_day == 24 and weeks.level_lengths is None
    again, other = (load_and_watch(examples, "simulated", users=20, seed=seed)[0] for seed in (1, 2))
    for name in ("cells", "train", "validation", "test"):
        np.testing.assert_array_equal(getattr(weeks, name), getattr(again, name))
    assert weeks.cells.shape != other.cells.shape or (weeks.cells != other.cells).any()


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "hours"),
    [("sf_cabs", "derived_weekly_grid_sf_cabs", 168), ("geolife_days", "daily_grid_geolife_movesim", 48)],
)
def test_real_weeks_are_split_by_person(examples: SimpleNamespace, name: str, file: str, hours: int) -> None:
    if not (examples.weeks._folder() / f"{file}.parquet").exists():
        pytest.skip(f"{file}.parquet is not in HF_MOBILITY_DATA")
    weeks, person, fitted = load_and_watch(examples, name)
    assert_split_by_person(weeks, person, fitted)
    assert weeks.tokenizer.num_hours == hours and weeks.slots_per_day == hours // (7 if hours == 168 else 1)
    assert weeks.level_lengths is None or weeks.level_lengths[-1] == hours


def test_unknown_weeks_are_refused_by_name(examples: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="unknown weeks 'atlantis'; choose one of"):
        examples.weeks.load_weeks("atlantis")


def test_a_model_of_other_weeks_is_refused(examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any) -> None:
    check = examples.weeks.check_trained_on
    check(toy_weeks, str(runs.folder / "codec"))
    other = MstarTokenizer.from_pretrained(runs.folder / "codec")
    other.fit_conditions(toy_weeks.cells[toy_weeks.test], num_attributes=3, method="distinct_cells")
    resplit = examples.weeks.WeekSet(
        "toy", toy_weeks.cells, other, toy_weeks.test, toy_weeks.validation, toy_weeks.train
    )
    with pytest.raises(ValueError, match=r"not trained on the training part of these weeks \(toy\)"):
        check(resplit, str(runs.folder / "codec"))
    with pytest.raises(ValueError, match="the same --weeks, --users and --seed"):
        run_main(
            examples.train_mstar, resplit, ["--codec", str(runs.folder / "codec"), "--output", str(runs.folder / "no")]
        )
    assert not (runs.folder / "no").exists()


def test_rounding_of_coordinates_makes_no_other_grid(
    examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any
) -> None:
    """A city that was saved elsewhere has its degrees to some 1e-8."""
    own = toy_weeks.tokenizer
    same = {name: getattr(own, name) for name in ("lon", "cell_map", "conditions")}
    for shift, refused in ((1e-7, False), (1e-3, True)):
        weeks = SimpleNamespace(name="toy", tokenizer=SimpleNamespace(lat=own.lat + shift, **same))
        with pytest.raises(ValueError, match="not trained on") if refused else nullcontext():
            examples.weeks.check_trained_on(weeks, str(runs.folder / "codec"))


def test_a_misspelt_config_value_is_refused(examples: SimpleNamespace, toy_weeks: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MstarCodecConfig has no widht"):
        run_main(examples.train_mstar_codec, toy_weeks, ["--output", str(tmp_path), "--set", "widht=8", "dropout=0"])


# Stage 1


def test_a_variant_keeps_the_shape_that_belongs_to_it(examples: SimpleNamespace) -> None:
    city = SimpleNamespace(cell_map=np.arange(64)[:, None] // [16, 4, 2, 1])
    weeks = SimpleNamespace(level_lengths=MstarCodecConfig().level_lengths, tokenizer=city)
    made = examples.train_mstar_codec.codec_config(weeks, "small", "released")
    assert made.level_resolutions == MstarCodecConfig.from_preset("base", variant="released").level_resolutions
    corrected = examples.train_mstar_codec.codec_config(weeks, "small", "corrected")
    assert corrected.level_resolutions == [0, 0, 1, 1, 2, 2, 3, 3]


def test_training_the_codec_lowers_its_loss_on_other_people(
    examples: SimpleNamespace, runs: SimpleNamespace, codec: MstarCodecModel, toy_weeks: Any
) -> None:
    assert codec.config.dropout == 0 and codec.config.level_lengths == LEVELS
    assert codec.config.cells_per_resolution == [4, 16]
    options = {"config": codec.config, "batch_size": 32, "learning_rate": 1.5e-3, "seed": 4, "folder": str(runs.folder)}
    little = examples.train_mstar_codec.train(toy_weeks, steps=1, **options)
    assert codec_loss(codec, toy_weeks) < 0.8 * codec_loss(little, toy_weeks)
    table = pd.read_csv(runs.folder / "codec.csv", comment="#")
    assert table["part"].tolist() == ["validation", "test"]
    expected = examples.train_mstar_codec.judge(codec, toy_weeks, toy_weeks.test)
    for name, value in expected.items():
        assert table[name].iloc[1] == pytest.approx(value, abs=1e-5)
    assert (runs.folder / "codec.csv").read_text().startswith("# python ")


class StandInCodec:
    """Decodes what it is told to; its codes are the rows' numbers."""

    device = torch.device("cpu")

    def __init__(self, made: np.ndarray, num_cells: int) -> None:
        self.scores = torch.nn.functional.one_hot(torch.from_numpy(made).long(), num_cells).float()

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(input_ids)).unsqueeze(1)

    def decode(self, code_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[code_ids[:, 0]]

    def code_usage(self, code_ids: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, float(len(code_ids))])


def judged_by_hand(real: list[list[int]], made: list[list[int]], slots_per_day: int) -> dict[str, float]:
    right, near, exact = [], [], []
    moves = made_moves = pairs = 0
    for week, copy in zip(real, made):
        known = [hour for hour, cell in enumerate(week) if cell >= 0]
        right += [week[hour] == copy[hour] for hour in known]
        exact.append(all(week[hour] == copy[hour] for hour in known))
        beside = set()
        for hour in known:
            if hour + 1 in known:
                pairs += 1
                made_moves += copy[hour] != copy[hour + 1]
                if week[hour] != week[hour + 1]:
                    moves += 1
                    beside |= {hour, hour + 1}
        near += [week[hour] == copy[hour] for hour in beside]
    days = pairs / slots_per_day
    return {
        "weeks": len(real),
        "accuracy": sum(right) / len(right),
        "accuracy near moves": sum(near) / len(near),
        "whole week exact": sum(exact) / len(exact),
        "moves per day": moves / days,
        "moves per day, round trip": made_moves / days,
        "codes in use, finest level": len(real),
        "codes in use, mean level": (1 + len(real)) / 2,
    }


def test_the_round_trip_is_judged_as_by_hand(examples: SimpleNamespace, toy_weeks: Any) -> None:
    real = toy_weeks.cells[toy_weeks.test[:6]].copy()
    real[0, 5:9] = -1
    rng = np.random.default_rng(0)
    made = np.where(rng.random(real.shape) < 0.1, rng.integers(0, 16, real.shape), np.maximum(real, 0))
    made[1] = np.maximum(real[1], 0)
    weeks = SimpleNamespace(cells=real, tokenizer=toy_weeks.tokenizer, slots_per_day=toy_weeks.slots_per_day)
    found = examples.train_mstar_codec.judge(StandInCodec(made, 16), weeks, np.arange(6))
    expected = judged_by_hand(real.tolist(), made.tolist(), 24)
    assert 0 < expected["accuracy near moves"] < 1 and 0 < expected["whole week exact"] < 1
    assert found == pytest.approx(expected)


# Stage 2


def test_codes_are_cached_as_the_codec_gives_them(
    examples: SimpleNamespace, codec: MstarCodecModel, toy_weeks: Any
) -> None:
    cells = toy_weeks.cells[toy_weeks.validation]
    found = examples.train_mstar.coded(codec, toy_weeks.tokenizer, cells).columns
    encoded = toy_weeks.tokenizer(cells, return_tensors="pt")
    assert torch.equal(found["code_ids"], codec.encode(encoded["input_ids"], encoded["attention_mask"]))
    assert set(found) == {"code_ids", "attention_mask", "home_ids", "work_ids", "attribute_ids"}
    assert all(torch.equal(found[name], encoded[name]) for name in set(found) - {"code_ids"})


def test_noisy_copies_bring_the_codes_that_would_be_right(
    examples: SimpleNamespace, codec: MstarCodecModel, toy_weeks: Any
) -> None:
    given = codec, toy_weeks.tokenizer, toy_weeks.cells[toy_weeks.train]
    clean = examples.train_mstar.coded(*given).columns
    noisy = examples.train_mstar.coded(*given, noise=0.4, copies=4).columns
    assert all(len(values) == 4 * len(toy_weeks.train) for values in noisy.values())
    for name in ("attention_mask", "home_ids", "work_ids", "attribute_ids"):
        assert torch.equal(noisy[name], torch.cat([clean[name]] * 4))
    codes, labels = (noisy[name].unflatten(0, (4, -1)) for name in ("code_ids", "labels"))
    assert torch.equal(codes[0], clean["code_ids"]) and torch.equal(labels[0], clean["code_ids"])
    flipped = (codes != labels).float().mean((1, 2))
    np.testing.assert_allclose(flipped, [0, 0.1 * 31 / 32, 0.2 * 31 / 32, 0.3 * 31 / 32], atol=0.02)
    # What is right depends on the coarser codes alone: where these are clean, it is the clean code.
    first = LEVELS[0]
    assert torch.equal(labels[..., :first], clean["code_ids"][:, :first].expand(4, -1, -1))
    untouched = (codes == clean["code_ids"])[..., : sum(LEVELS[:2])].all(-1)
    assert 0 < untouched[1:].sum() < untouched[1:].numel()
    assert torch.equal(labels[untouched], clean["code_ids"].expand(4, -1, -1)[untouched])


@pytest.mark.parametrize("values", [{"code_noise": 0.3}, {"scheduled_sampling": 0.3}], ids=["noisy codes", "own codes"])
def test_a_generator_learns_from_codes_with_errors(
    examples: SimpleNamespace, codec: MstarCodecModel, toy_weeks: Any, tmp_path: Path, values: dict[str, float]
) -> None:
    model = examples.train_mstar.new_generator(codec, toy_weeks, values=values, **FORM)
    options = {"learning_rate": 0.02, "folder": str(tmp_path), **TRAINING}
    model = examples.train_mstar.train(model, toy_weeks, steps=24, **options)
    assert values.items() <= model.config.to_dict().items()
    assert generator_loss(model, toy_weeks) < 0.9 * UNTRAINED


def test_the_best_validation_step_is_kept(
    examples: SimpleNamespace,
    codec: MstarCodecModel,
    toy_weeks: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A learning rate that ruins the model again, in float32 on every processor."""
    monkeypatch.setattr("hf_mobility.training.presets.fast_bfloat16", lambda device: False)
    model = examples.train_mstar.new_generator(codec, toy_weeks, values={}, **FORM)
    options = {"learning_rate": 0.3, "folder": str(tmp_path), **TRAINING}
    model = examples.train_mstar.train(model, toy_weeks, steps=16, **options)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    losses = {int(words[1].rstrip(":")): float(words[-1]) for words in lines}
    assert list(losses) == list(range(2, 17, 2))
    assert min(losses, key=losses.__getitem__) < 16, "the last step is the best: nothing to choose"
    assert generator_loss(model, toy_weeks) == pytest.approx(min(losses.values()), rel=0.02)
    assert generator_loss(model, toy_weeks) < losses[16]
    assert bool((model.stay_probability > 0).all())
    np.testing.assert_array_equal(model.codec.state_dict()["cell_head.weight"], codec.state_dict()["cell_head.weight"])


def test_training_goes_on_from_a_trained_generator(
    examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any, tmp_path: Path
) -> None:
    """A learning rate of nearly nothing: what comes out is what it began with, with other dropout."""
    arguments = ["--start", str(runs.folder / "mstar"), "--shifted-copies", "2", "--set", "dropout=0.3"]
    arguments += ["--steps", "2", "--learning-rate", "1e-9", "--settings", "paper", "--output", str(tmp_path)]
    run_main(examples.train_mstar, toy_weeks, arguments)
    start = MstarForTrajectoryGeneration.from_pretrained(runs.folder / "mstar")
    tuned = MstarForTrajectoryGeneration.from_pretrained(tmp_path)
    assert tuned.config.dropout == 0.3 and start.config.dropout != 0.3
    for name, values in start.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], values, rtol=0, atol=1e-6, msg=name)


def test_no_steps_choose_the_settings_of_a_trained_generator_again(
    examples: SimpleNamespace,
    runs: SimpleNamespace,
    toy_weeks: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its weights are kept; each setting is drawn several times, and the table has the means."""
    shared = ["--steps", "0", "--settings", "paper", "--judged", "20", "--output", str(tmp_path / "again")]
    arguments = ["--start", str(runs.folder / "mstar"), "--draws", "3", "--report", str(tmp_path / "tried.csv")]
    run_main(examples.train_mstar, toy_weeks, [*arguments, *shared])
    assert "validation loss" not in capsys.readouterr().out
    start = MstarForTrajectoryGeneration.from_pretrained(runs.folder / "mstar")
    for name, values in MstarForTrajectoryGeneration.from_pretrained(tmp_path / "again").state_dict().items():
        assert torch.equal(values, start.state_dict()[name]), name
    module = examples.train_mstar
    rows = module.judged_weeks(toy_weeks, 20)
    settings = module.PAPER | {"temperature": None}
    made = [module.draw(start, toy_weeks, len(rows), seed=seed, **settings) for seed in (1, 2, 3)]
    found = pd.DataFrame([module.compare(toy_weeks, rows, weeks) for weeks in made])
    (tried,) = pd.read_csv(tmp_path / "tried.csv", comment="#").to_dict("records")
    assert tried["draws"] == 3 and tried["mean6_sd"] == pytest.approx(found["mean6"].std(), abs=1e-5)
    assert {name: tried[name] for name in found} == pytest.approx(
        found.mean(skipna=False).to_dict(), abs=1e-5, nan_ok=True
    )

    for contradiction in (["--codec", str(runs.folder / "codec")], [*arguments, "--shifted-copies", "2"]):
        with pytest.raises(SystemExit):
            run_main(module, toy_weeks, [*contradiction, *shared])
        assert "--steps 0 chooses the settings of a trained generator" in capsys.readouterr().err


def test_a_draw_without_a_value_leaves_no_mean(examples: SimpleNamespace) -> None:
    """A setting under which nobody moves in one draw must not win by the others."""
    found = examples.train_mstar.over_draws([{"n": 9, "mean6": 0.5}, {"n": 9, "mean6": np.nan}])
    assert found["n"] == 9 and np.isnan(found["mean6"])


def test_a_trained_generator_has_its_size_and_its_codec(
    examples: SimpleNamespace, toy_weeks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, problem in ((["--size", "tiny"], "--size"), (["--codec", "codec"], "not allowed with")):
        with pytest.raises(SystemExit):
            run_main(examples.train_mstar, toy_weeks, ["--start", "mstar", "--output", "none", *more])
        assert problem in capsys.readouterr().err


def test_the_best_settings_found_one_after_the_other_are_written_to_the_configuration(
    examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = examples.train_mstar
    model = MstarForTrajectoryGeneration.from_pretrained(runs.folder / "mstar")
    number = 20
    real = toy_weeks.cells[np.random.default_rng(0).permutation(toy_weeks.validation)[:number]]
    wanted = {"temperature": [1.0, 0.95, 0.9], "decoding": "viterbi", "top_k": 100}
    asked = []

    def draw(model: Any, weeks: Any, count: int, *, seed: int, **settings: Any) -> np.ndarray:
        """The real weeks, as far as the settings are the wanted ones."""
        assert count == number
        if seed == 1:
            asked.append(settings)
        share = sum(settings.get(name) == value for name, value in wanted.items()) / len(wanted)
        share *= seed - 1  # nothing of it in the first of two draws
        good = np.arange(number)[:, None] < share * number
        return np.where(good & (real >= 0), real, 3)

    monkeypatch.setattr(module, "draw", draw)
    table = module.choose(model, toy_weeks, *module.SETTINGS["search"], number=number, draws=2)
    assert len(asked) == len(table)
    assert asked[0] == module.START, "the search begins with its start"
    assert len({json.dumps(settings, sort_keys=True) for settings in asked}) == len(table), "a setting was tried twice"
    assert table["mean6"].min() < 0.75 * table["mean6"].iloc[0] and (table["draws"] == 2).all()
    best = asked[int(table["mean6"].argmin())]
    assert wanted.items() <= best.items()
    model.save_pretrained(tmp_path)
    config = MstarForTrajectoryGeneration.from_pretrained(tmp_path).config
    assert {name: getattr(config, name) for name in best} == best


def test_the_settings_of_the_paper_can_be_chosen_and_loaded(runs: SimpleNamespace) -> None:
    config = MstarForTrajectoryGeneration.from_pretrained(runs.folder / "mstar").config
    assert (config.temperature, config.top_k, config.smoothing_window, config.decoding) == (None, 10, 3, "argmax")
    tried = pd.read_csv(runs.folder / "tried.csv", comment="#")
    assert len(tried) == 1 and "confidence" in tried["settings"].iloc[0]
    assert MstarTokenizer.from_pretrained(runs.folder / "mstar").num_attributes == config.num_attributes == 3


def test_weeks_are_drawn_as_a_function_of_the_seed(
    examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any
) -> None:
    model = MstarForTrajectoryGeneration.from_pretrained(runs.folder / "mstar")
    draws = [examples.train_mstar.draw(model, toy_weeks, 150, seed=seed, temperature=1.0) for seed in (0, 0, 1)]
    assert draws[0].shape == (150, 24)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


# Evaluation


def test_the_table_has_noise_first_and_baselines_before_models(runs: SimpleNamespace) -> None:
    table = pd.read_csv(runs.folder / "table.csv", comment="#")
    assert (runs.folder / "table.csv").read_text().startswith("# python ")
    baselines = ["ResampledWeeks", "HourlyMarkov", "HourlyMarkov by home", "ExplorationReturn"]
    baselines += ["HourlyTransformer, shifted copies"]
    ours = ["M-STAR mstar", "M-STAR mstar, drawn plainly"]
    assert table["model"].tolist() == ["train sample", "real itself", *baselines, *ours]
    assert (table["data"] == "simulated").all() and (table["n"] == 40).all()
    assert table["draws"].tolist() == [5, 1] + [2] * 7
    assert table["mean6"].notna().all()


def test_the_hourly_transformer_is_drawn_as_is_best_on_the_validation_people(
    examples: SimpleNamespace, toy_weeks: Any
) -> None:
    module, number = examples.evaluate_mstar, 20
    real = toy_weeks.cells[np.random.default_rng(0).permutation(toy_weeks.validation)[:number]]
    wanted = {"temperature": 1.05, "top_k": None}

    def generate(conditions: Any, *, seed: int, **settings: Any) -> np.ndarray:
        """The real weeks in the second draw, if the settings are the wanted ones."""
        assert len(conditions) == number
        return np.where((real >= 0) & (settings == wanted) & (seed == 2), real, 3)

    assert module.best_settings(SimpleNamespace(generate=generate), toy_weeks, number, draws=2) == wanted


def test_two_checkpoints_of_one_name_and_half_a_training_are_refused(
    examples: SimpleNamespace, toy_weeks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_main(examples.evaluate_mstar, toy_weeks, ["first/best", "second/best/"])
    assert "one name in the table: M-STAR best, M-STAR best" in capsys.readouterr().err
    for before in (["1", "0", "--hourly-epochs", "1"], ["1", "1"]):
        with pytest.raises(SystemExit):
            run_main(examples.evaluate_mstar, toy_weeks, ["best", "--hourly-before", *before])
        assert "needs copies, epochs, and --hourly-epochs" in capsys.readouterr().err


# Ablation


def test_an_ablation_has_a_row_for_each_variant_way_of_drawing_and_seed(
    examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any, tmp_path: Path
) -> None:
    shared = ["--size", "tiny", "--steps", "8", "--batch-size", "16"]
    codecs = ["codec", *shared, "--variants", "corrected", "as published", "--output", str(tmp_path / "codecs.csv")]
    run_main(examples.ablate_mstar, toy_weeks, codecs)
    table = pd.read_csv(tmp_path / "codecs.csv", comment="#")
    assert table["variant"].tolist() == ["corrected"] * 2 + ["as published"] * 2
    assert table["seed"].tolist() == [0, 1] * 2 and (table["weeks"] == len(toy_weeks.validation)).all()
    assert table["accuracy"].nunique() > 1

    path = tmp_path / "generators.csv"
    generators = ["generator", *shared, "--codec", str(runs.folder / "codec"), "--judged", "20", "--output", str(path)]
    run_main(
        examples.ablate_mstar, toy_weeks, [*generators, "--seeds", "3", "--variants", "conditions hidden, four passes"]
    )
    run_main(examples.ablate_mstar, toy_weeks, [*generators, "--seeds", "3", "--variants", "four passes", "--update"])
    table = pd.read_csv(path, comment="#")
    assert table["drawing"].tolist() == [
        "-",
        "-",
        "-",
        "plain",
        "guidance 1.5",
        "plain",
        "of the 20 best codes",
        "best path",
    ]
    assert (table["n"] == 20).all() and table["mean6"].between(0, np.log(2)).all()


def test_codecs_are_ablated_without_a_codec_and_generators_with_one(
    examples: SimpleNamespace, toy_weeks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, problem in (
        (["generator"], "they need one"),
        (["codec", "--codec", "runs/codec"], "goes with generators"),
        (["codec", "--variants", "one pass"], "no variant"),
    ):
        with pytest.raises(SystemExit):
            run_main(examples.ablate_mstar, toy_weeks, arguments)
        assert problem in capsys.readouterr().err


def test_a_generator_is_traced_level_by_level(
    examples: SimpleNamespace, runs: SimpleNamespace, toy_weeks: Any, tmp_path: Path
) -> None:
    options = ["--users", "30", "--seed", "4", "--number", "9", "--part", "validation"]
    run_main(
        examples.trace_mstar, toy_weeks, [str(runs.folder / "mstar"), *options, "--output", str(tmp_path / "t.csv")]
    )
    table = pd.read_csv(tmp_path / "t.csv", comment="#").set_index("drawn from level")
    assert table.index.tolist() == ["none, real weeks", "none, round trip", *map(str, range(len(LEVELS), 0, -1))]
    assert table["mean6"].iloc[0] == 0 and table["codes"].iloc[2:].tolist() == LEVELS[::-1]
    top = table.loc["1"]
    assert top["length of features"] == top["length of residual"], "the coarsest level starts from nothing"


def test_stays_are_counted_without_unknown_hours(examples: SimpleNamespace) -> None:
    weeks = np.array([[1, 1, 2, 3, 3, 3], [4, -1, -1, 4, 5, 5]])
    shares = examples.trace_mstar.stay_shares(weeks)
    assert shares == {"stays of one slot": 3 / 6, "stays of two slots": 2 / 6}


# Pages


def test_the_tables_of_the_results_page_are_filled(fill_blocks: Callable[..., str]) -> None:
    trip = {"data": ["geolife_days"], "part": "test", "weeks": 2425, "accuracy": 0.9949, "accuracy near moves": 0.9556}
    trip |= {"whole week exact": 0.8, "moves per day": 3.5, "moves per day, round trip": 3.45}
    trip |= {"codes in use, mean level": 33.0, "codes in use, finest level": 34.0}
    codecs = {**trip, "variant": ["as published"] * 2, "seed": [0, 1], "accuracy": [0.5, 0.7], "data": "geolife_days"}
    jsd = dict.fromkeys(("displacement", "radius", "duration", "periodicity", "g_rank", "i_rank"), 0.004)
    judged = {
        "model": ["M-STAR days"],
        **jsd,
        "mean6": 0.004,
        "mean6_sd": 0.001,
        "cpc": 0.5,
        "copied_moving": 0.03,
        "draws": 10,
    }
    drawn = {"variant": ["train sample", "one pass", "one pass"], "drawing": ["-", "plain", "plain"], "seed": [1, 0, 1]}
    tables = {
        **{
            f"mstar_codec{more}": trip
            for more in ("", "_eight", "_encoder", "_cabs", "_cabs_short", "_days", "_days_nested", "_days_short")
        },
        "mstar_codec_ablation": codecs,
        "mstar_days": {**judged, "moves_per_day": 3.5},
        "mstar_ablation": {**drawn, **jsd, "mean6": [0.004, 0.006, 0.01], "moves_per_day": [3.5, 3.0, 4.0]},
        "mstar_settings": {"settings": ["{'top_k': 3}"], "mean6": 0.01, "moves_per_day": 3.0},
        "mstar_settings_days_shifted": {
            "settings": ["{'top_k': 4}"],
            "mean6": 0.01,
            "mean6_sd": 0.002,
            "moves_per_day": 3.0,
        },
        "mstar_levels": {
            "drawn from level": ["none, round trip", "2"],
            **jsd,
            "mean6": 0.004,
            "moves_per_day": 3.5,
            "length of residual": [None, 3.0],
            "length of features": [None, 8.0],
            "stays of one slot": 0.34,
            "stays of two slots": 0.1,
        },
    }
    training = {"levels": ["1, 4, 48"], "codes": 53, "accuracy": 1.0, "passes": 7, "own_codes": "no", "dropout": 0.1}
    tables["mstar_passes"] = {
        **training,
        "steps": 1200,
        "validation_loss": 1.083,
        **jsd,
        "mean6": 0.0145,
        "moves_per_day": 4.34,
    }
    blocks = ("codecs", "codec ablation", "days", "ablation", "settings", "settings days", "levels", "passes")
    text = fill_blocks(tables, [f"mstar {name}" for name in blocks])
    for row in (
        "| geolife days, test | 2,425 | 0.9949 | 0.9556 | 0.800 | 3.50 / 3.45 | 33 / 34 |",
        "| geolife days, nested cells, test | 2,425 | 0.9949 | 0.9556 | 0.800 | 3.50 / 3.45 | 33 / 34 |",
        "| geolife days, four levels, 2,048 codes, test | 2,425 | 0.9949 | 0.9556 | 0.800 | 3.50 / 3.45 | 33 / 34 |",
        "| as published | 0.600 ± 0.141 | 0.956 ± 0.000 | 0.800 ± 0.000 | 3.45 ± 0.00 | 33 ± 0 | 34 ± 0 |",
        "| **M-STAR days** | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 ± 1.0 | 0.50 | 3.50 | 3.0 % | 10 |",
        "| train sample |  | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 3.50 |",
        "| one pass | plain | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 8.0 ± 2.8 | 3.50 ± 0.71 |",
        "| `{'top_k': 3}` | 10.0 | 3.00 |",
        "| `{'top_k': 4}` | 10.0 ± 2.0 | 3.00 |",
        "| none, round trip |  | 4.0 | 4.0 | 4.0 | 3.50 | 34 % | 10 % |",
        "| 2 | 3.0 of 8.0 | 4.0 | 4.0 | 4.0 | 3.50 | 34 % | 10 % |",
        "| 1, 4, 48 | 53 | 1.0000 | 7 | no | 0.1 | 1,200 | 57 | 4.0 | 4.0 | 14.5 | 4.34 |",
    ):
        assert row in text, row


# Speed


def test_the_speed_benchmark_runs_and_its_ratios_are_those_of_its_times(
    run_benchmark: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "speed.csv"
    run_benchmark("speed.mstar_speed", "--quick", "--output", str(path))
    assert path.read_text().startswith(f"# python -m benchmarks.speed.mstar_speed --quick --output {path}\n")
    table = pd.read_csv(path, comment="#")
    assert set(table["precision"]) == {"fp32", "bf16"}
    is_product = table["measurement"].str.startswith("matrix product")
    groups = (is_product.cumsum() - is_product).to_numpy()
    assert len(table[is_product]) == len(set(groups)) == 2 * (2 + 2)
    for _, rows in table.groupby(groups):
        work, product = rows.iloc[:-1], rows.iloc[-1]
        np.testing.assert_allclose(
            work["times first"], work["ms per week"] / work["ms per week"].iloc[0], rtol=1e-3, atol=1e-3
        )
        np.testing.assert_allclose(work["share of product"], work["GFLOP/s"] / product["GFLOP/s"], rtol=1e-3, atol=1e-3)
        first, is_half = work["measurement"].iloc[0], work["precision"].iloc[0] == "bf16"
        generates = first.startswith("generation")
        assert len(work) == (6 + is_half if generates else 3 if "generator" in first else 2)
        if generates:  # what M-STAR computes is these two, its codec, and its conditions
            parts = work[work["measurement"].str.startswith("of it")]
            assert parts["GFLOP per week"].sum() < work["GFLOP per week"].iloc[0]
        assert (work["ms per week"] > 0).all()


# Two processes

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
folder, commands = Path(sys.argv[1]), json.loads(sys.argv[2])
from benchmarks.generation import train_mstar, train_mstar_codec
from benchmarks.generation.weeks import WeekSet
from accelerate import PartialState
from hf_mobility import MstarTokenizer

with np.load(folder / "weeks.npz") as saved:
    parts = [saved[name] for name in ("cells", "train", "validation", "test")]
weeks = WeekSet("toy", parts[0], MstarTokenizer.from_pretrained(folder), *parts[1:], level_lengths=[1, 4, 24])
for module, arguments in zip((train_mstar_codec, train_mstar), commands):
    module.load_weeks = lambda name, **options: weeks
    sys.argv = [module.__file__, *arguments]
    module.main()
    PartialState().wait_for_everyone()  # the second stage reads what the first process wrote after the first
assert PartialState().num_processes == 2, PartialState()
"""


def both_stages(folder: Path, batch_size: int) -> list[list[str]]:
    """Arguments of the two scripts; nothing in training is random but the order of weeks and the codebook."""
    codec, model = str(folder / "codec"), str(folder / "mstar")
    shared = ["--size", "tiny", "--steps", "24", "--batch-size", str(batch_size)]
    first = [*shared, "--output", codec, "--report", str(folder / "codec.csv"), "--set", "dropout=0"]
    second = [*shared, "--codec", codec, "--output", model, "--settings", "paper", "--set", "dropout=0", "drop_path=0"]
    return [first, [*second, "--learning-rate", "0.02"]]


@pytest.mark.slow
def test_two_processes_train_both_stages_as_one_does(
    examples: SimpleNamespace,
    toy_weeks: Any,
    tmp_path: Path,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Halves of a batch on two processes. Not equal to one process: the codebook starts from other random weeks."""
    toy_weeks.tokenizer.save_pretrained(tmp_path, min_users=1)
    parts = ("cells", "train", "validation", "test")
    np.savez(tmp_path / "weeks.npz", **{name: getattr(toy_weeks, name) for name in parts})
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone")
    commands = json.dumps(both_stages(tmp_path / "two", batch_size=16))
    paths = [str(tmp_path / "script.py"), str(tmp_path)]
    printed = run_python(*launcher, *paths, commands).stdout
    for name, arguments in zip(SCRIPTS, both_stages(tmp_path / "one", batch_size=32)):
        run_main(getattr(examples, name), toy_weeks, arguments)

    # Only the first process prints and saves.
    assert printed.count("whole week exact") == printed.count(" parameters, ") == 1
    assert len({line for line in printed.splitlines() if line.startswith("step ")}) == 8 == printed.count("step ")
    for stage, kind, loss in (
        ("codec", MstarCodecModel, codec_loss),
        ("mstar", MstarForTrajectoryGeneration, generator_loss),
    ):
        one, two = (loss(kind.from_pretrained(tmp_path / name / stage), toy_weeks) for name in ("one", "two"))
        assert two == pytest.approx(one, rel=0.05), stage
    assert max(one, two) < 0.8 * UNTRAINED
