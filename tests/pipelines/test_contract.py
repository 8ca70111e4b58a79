"""What all pipelines promise alike: how they are loaded, what their verbs are given, and what comes back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hf_mobility import (
    City,
    DataError,
    MobilityEmbeddingPipeline,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    NextLocationPipeline,
    RawConfig,
    RawForTrajectoryPrediction,
    RawTokenizer,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    SquareGrid,
    TrajectoryGenerationPipeline,
    TrajectoryPredictionPipeline,
    simulate_city,
)
from hf_mobility.data import frames
from hf_mobility.data.simulation.points import simulated_points
from hf_mobility.pipelines.base import MobilityPipeline
from hf_mobility.pipelines.scores import SCORE_COLUMNS

TOWN = simulate_city(9, num_days=4, num_locations=50, seed=3, name="Simville")
POINTS = simulated_points(TOWN, interval_seconds=1800, seed=0)
GRID = SquareGrid.around(POINTS["lat"], POINTS["lon"], cell_km=6.0)
BOX = (47.9, 10.9, 48.1, 11.1)
EXACT = {"atol": 2e-5, "rtol": 1e-4}


def make_city(seed: int) -> City:
    made = simulate_city(9, num_days=4, num_locations=50, seed=seed, name=f"city {seed}")
    return City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)


def samoe() -> NextLocationPipeline:
    city = City.from_visits(TOWN.visits, timezone=TOWN.timezone, name=TOWN.name, pois=TOWN.pois)
    config = SamoeConfig.from_preset("tiny")
    return NextLocationPipeline(SamoeForNextLocation(config), SamoeTokenizer.from_city(city, config))


def mstar() -> TrajectoryGenerationPipeline:
    """Days of 24 hours on 4 x 4 cells."""
    grid = {"timezone": TOWN.timezone, "rows": 4, "columns": 4, "factors": (2, 1), "num_hours": 24}
    tokenizer = MstarTokenizer.from_grid(BOX, name=TOWN.name, **grid)
    tokenizer.fit_conditions(tokenizer.weeks(TOWN.visits), num_attributes=4)
    return TrajectoryGenerationPipeline(MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")), tokenizer)


def raw(pipeline: Any) -> Any:
    """Windows of two days in half hours."""
    config = RawConfig.from_preset("tiny", max_position_embeddings=96, slots_per_day=48)
    tokenizer = RawTokenizer.from_points(POINTS, timezone=TOWN.timezone, config=config)
    return pipeline(RawForTrajectoryPrediction(config), tokenizer)


MAKE: dict[Any, Callable[[], Any]] = {
    NextLocationPipeline: samoe,
    TrajectoryGenerationPipeline: mstar,
    MobilityEmbeddingPipeline: lambda: raw(MobilityEmbeddingPipeline),
    TrajectoryPredictionPipeline: lambda: raw(TrajectoryPredictionPipeline),
}
E = [f"e{i}" for i in range(16)]
HOURS = ["trajectory_id", "slot", "time", "cell", "lat", "lon"]


@dataclass(frozen=True)
class Verb:
    """A verb, what it is asked and the columns of its answer."""

    pipeline: Any
    name: str
    data: Any
    columns: list[str]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.pipeline.__name__}.{self.name}"

    def __call__(self, pipe: Any, data: Any = None, **changes: Any) -> pd.DataFrame:
        return getattr(pipe, self.name)(self.data if data is None else data, **{**self.options, **changes})


PLACE = ["location_id", "lat", "lon"]
READING = [
    Verb(
        NextLocationPipeline,
        "predict",
        TOWN.visits,
        ["user_id", "rank", *PLACE, "probability", "expected_gap", "gap_low", "gap_high", "expected_stay"],
        {"top_k": 3},
    ),
    Verb(NextLocationPipeline, "score", TOWN.visits, SCORE_COLUMNS),
    Verb(NextLocationPipeline, "forecast", TOWN.visits, ["user_id", "step", "time", *PLACE], {"steps": 3}),
    Verb(
        TrajectoryPredictionPipeline,
        "predict",
        POINTS,
        ["user_id", "time", "horizon", "lat", "lon", "spread_km"],
        {"horizon": "26h", "spread_samples": 2},
    ),
    Verb(TrajectoryGenerationPipeline, "complete", TOWN.visits, [*HOURS, "user_id", "known"]),
    Verb(MobilityEmbeddingPipeline, "embed_users", POINTS, ["user_id", *E]),
    Verb(MobilityEmbeddingPipeline, "embed_regions", POINTS, ["region_id", "users", *E], {"regions": GRID}),
]
VERBS = [*READING, Verb(TrajectoryGenerationPipeline, "generate", 20, HOURS)]

every_pipeline = pytest.mark.parametrize("pipeline", MAKE, ids=lambda pipeline: pipeline.__name__)
every_verb = pytest.mark.parametrize("verb", VERBS, ids=str)
reading_verbs = pytest.mark.parametrize("verb", READING, ids=str)


@pytest.fixture(scope="module")
def pipes() -> dict[Any, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {pipeline: make() for pipeline, make in MAKE.items()}


@pytest.fixture(scope="module")
def folders(pipes: dict[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    saved = {pipeline: tmp_path_factory.mktemp(pipeline.__name__) for pipeline in MAKE}
    for pipeline, folder in saved.items():
        pipes[pipeline].save_pretrained(folder, min_users=1)
    return saved


@pytest.fixture(scope="module")
def answers(pipes: dict[Any, Any]) -> dict[str, pd.DataFrame]:
    return {str(verb): verb(pipes[verb.pipeline]) for verb in VERBS}


# Words


@every_pipeline
def test_all_are_loaded_by_one_function(pipeline: Any) -> None:
    assert issubclass(pipeline, MobilityPipeline) and "from_pretrained" not in vars(pipeline)
    kinds = {name: one.kind.name for name, one in inspect.signature(pipeline.from_pretrained).parameters.items()}
    keywords = dict.fromkeys(("city", "device", "dtype", "batch_size"), "KEYWORD_ONLY")
    assert kinds == {"name_or_path": "POSITIONAL_OR_KEYWORD", **keywords, "hub": "VAR_KEYWORD"}


@every_verb
def test_the_same_words_for_the_same_things(verb: Verb) -> None:
    parameters = inspect.signature(getattr(verb.pipeline, verb.name)).parameters
    first = ["self", "points", "regions"] if "regions" in verb.options else [*parameters][:2]
    given = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert given == first, "the data come first, everything else by keyword"
    assert parameters["batch_size"].default is None and parameters["progress"].default is False
    assert verb.name == "generate" or parameters["timezone"].default is None
    assert [*parameters.values()][-1].kind.name == "VAR_KEYWORD"


@every_verb
def test_columns_are_those_of_the_docstring_in_its_order(verb: Verb, answers: dict[str, pd.DataFrame]) -> None:
    table = answers[str(verb)]
    assert table.columns.tolist() == verb.columns and isinstance(table.index, pd.RangeIndex) and len(table)
    text = inspect.getdoc(getattr(verb.pipeline, verb.name))
    assert "Example:" in text
    told = re.findall(r"`(\w+)`", text.split("Returns:")[1].split("Raises:")[0])
    if verb.name == "complete":  # "as `generate`, and also ..."
        told += HOURS
    assert set(verb.columns) - set(E) <= set(told)
    places = [told.index(name) for name in verb.columns if name in told and verb.name != "complete"]
    assert places == sorted(places)


@every_verb
def test_times_are_aware(verb: Verb, answers: dict[str, pd.DataFrame]) -> None:
    for column in answers[str(verb)].columns.intersection(["time"]):
        assert answers[str(verb)][column].dt.tz is not None


@every_pipeline
def test_calling_it_is_its_main_verb(pipeline: Any, pipes: dict[Any, Any], answers: dict[str, pd.DataFrame]) -> None:
    verb = next(verb for verb in VERBS if (verb.pipeline, verb.name) == (pipeline, pipeline.verb))
    pd.testing.assert_frame_equal(pipes[pipeline](verb.data, **verb.options), answers[str(verb)])


@every_pipeline
def test_its_text_names_the_class_the_model_and_the_device(pipeline: Any, pipes: dict[Any, Any]) -> None:
    pipe = pipes[pipeline]
    assert repr(pipe).startswith(f"{pipeline.__name__}({type(pipe.model).__name__} in '") and "'cpu'" in repr(pipe)


# Files


@every_verb
def test_a_saved_pipeline_gives_the_same_answers(
    verb: Verb, folders: dict[Any, Path], answers: dict[str, pd.DataFrame]
) -> None:
    loaded = verb.pipeline.from_pretrained(folders[verb.pipeline])
    pd.testing.assert_frame_equal(verb(loaded), answers[str(verb)])
    assert (folders[verb.pipeline] / "README.md").is_file()


@every_pipeline
def test_a_checkpoint_of_another_kind_is_refused(pipeline: Any, folders: dict[Any, Path]) -> None:
    for other, folder in folders.items():
        same_system = {pipeline, other} == {MobilityEmbeddingPipeline, TrajectoryPredictionPipeline}
        if other is pipeline or (same_system and pipeline is MobilityEmbeddingPipeline):
            continue  # an encoder may be taken out of a model with a head
        with pytest.raises(ValueError, match=rf"^{folder} holds a \w+; {pipeline.__name__} needs a \w+\.$"):
            pipeline.from_pretrained(folder)
    with pytest.raises(OSError, match="nowhere"):
        pipeline.from_pretrained("nowhere/at/all")


@every_verb
def test_device_type_and_batch_size_are_the_pipelines(verb: Verb, folders: dict[Any, Path]) -> None:
    folder = folders[verb.pipeline]
    half = verb.pipeline.from_pretrained(folder, device="cpu", dtype=torch.bfloat16, batch_size=3)
    assert half.device == torch.device("cpu") and half.batch_size == 3
    assert {one.dtype for one in half.model.parameters()} >= {torch.bfloat16}
    whole = verb.pipeline.from_pretrained(folder, dtype=torch.float32)
    assert verb(half).dtypes.tolist() == verb(whole).dtypes.tolist()
    with pytest.raises(DataError, match="batch_size must be at least 1, not 0"):
        verb.pipeline.from_pretrained(folder, batch_size=0)


@every_pipeline
@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(pipeline: Any, device: str) -> None:
    with pytest.raises(ValueError, match=rf"^device '{device}' is (none that torch knows|not available here)[^.]*\.$"):
        pipeline.from_pretrained("nowhere/at/all", device=device)


# Cities


@every_pipeline
def test_a_pipeline_has_a_city_and_takes_another_one(
    pipeline: Any, pipes: dict[Any, Any], folders: dict[Any, Path]
) -> None:
    city = make_city(7)
    if pipeline is TrajectoryGenerationPipeline:  # its codec belongs to the number of cells
        south, west, north, east = city.bounds
        city = city.with_grid(SquareGrid(south, west, north, east, 4, 4))
    elsewhere = pipeline.from_pretrained(folders[pipeline], city=city, batch_size=5)
    wanted = pipeline.tokenizer_class.from_city(city, elsewhere.model.config)
    assert elsewhere.city == city == wanted.city != pipes[pipeline].city and elsewhere.batch_size == 5
    moved = pipes[pipeline].for_city(city)
    assert moved.city == city and moved.model is pipes[pipeline].model
    assert type(moved) is pipeline and moved.batch_size == pipes[pipeline].batch_size
    back = pipeline.from_pretrained(folders[pipeline])
    assert back.city == pipes[pipeline].city


def _with_settings(pipeline: Any, pipe: Any) -> tuple[Any, dict[str, Any]]:
    """The pipeline with a tokenizer of other settings than the defaults, and these."""
    settings: dict[str, Any] = {
        NextLocationPipeline: {"coordinate_norm": "grid", "pad_token": "<nobody>"},
        TrajectoryGenerationPipeline: {"work_hours": (8, 12), "home_hours": (1, 5), "work_days": (1, 4)},
    }.get(pipeline, {"fill": "paper"})
    shape = {"num_hours": 24, "factors": (2, 1)} if pipeline is TrajectoryGenerationPipeline else {}
    config = None if shape else pipe.model.config
    tokenizer = pipeline.tokenizer_class.from_city(pipe.city, config, **settings, **shape)
    return pipeline(pipe.model, tokenizer), settings


@every_pipeline
def test_another_city_keeps_the_tokenizers_own_settings(pipeline: Any, pipes: dict[Any, Any], tmp_path: Path) -> None:
    pipe, settings = _with_settings(pipeline, pipes[pipeline])
    pipe.save_pretrained(tmp_path, min_users=1)
    city = make_city(7)
    if pipeline is TrajectoryGenerationPipeline:
        south, west, north, east = city.bounds
        city = city.with_grid(SquareGrid(south, west, north, east, 4, 4))
    for moved in (pipe.for_city(city), pipeline.from_pretrained(tmp_path, city=city)):
        assert moved.city == city
        assert {name: getattr(moved.tokenizer, name) for name in settings} == settings


def test_weights_alone_are_loaded_in_a_given_city(pipes: dict[Any, Any], tmp_path: Path) -> None:
    pipe = pipes[NextLocationPipeline]
    pipe.model.save_pretrained(tmp_path)
    alone = NextLocationPipeline.from_pretrained(tmp_path, city=pipe.city)
    pd.testing.assert_frame_equal(alone.predict(TOWN.visits), pipe.predict(TOWN.visits))


def test_conditions_of_the_old_city_are_no_conditions_of_the_new_one(pipes: dict[Any, Any]) -> None:
    moved = pipes[TrajectoryGenerationPipeline].for_city(make_city(7).with_grid(SquareGrid(*BOX, 4, 4)))
    with pytest.raises(ValueError, match=r"no distributions to draw from: call fit_conditions\(training_weeks\)"):
        moved.generate(2)
    assert len(moved.generate(2, home_ids=[0, 1], work_ids=[2, 3], attribute_ids=[0, 0])) == 48


def test_another_city_gives_raw_other_bounds(pipes: dict[Any, Any], folders: dict[Any, Path]) -> None:
    """A box twice as wide halves what the model reads, and doubles the degrees of what it says."""
    pipe = pipes[TrajectoryPredictionPipeline]
    south, west, north, east = pipe.city.bounds
    wide = City.from_bounds(
        (1.5 * south - 0.5 * north, 1.5 * west - 0.5 * east, 1.5 * north - 0.5 * south, 1.5 * east - 0.5 * west),
        timezone=TOWN.timezone,
    )
    moved = TrajectoryPredictionPipeline.from_pretrained(folders[TrajectoryPredictionPipeline], city=wide)
    middle = np.array([(south + north) / 2, (west + east) / 2])
    doubled = POINTS.assign(**{name: 2 * POINTS[name] - at for name, at in zip(("lat", "lon"), middle)})
    table, wider = pipe.predict(POINTS), moved.predict(doubled)
    np.testing.assert_allclose(wider[["lat", "lon"]], 2 * table[["lat", "lon"]] - middle, atol=1e-5)


def test_another_number_of_cells_is_refused_by_both_numbers(folders: dict[Any, Path]) -> None:
    city = make_city(7).with_grid(SquareGrid(*BOX, 6, 6))
    with pytest.raises(DataError, match=r"^[^.]*\b36\b[^.]*\b16\b[^.]*\.$"):
        TrajectoryGenerationPipeline.from_pretrained(folders[TrajectoryGenerationPipeline], city=city)


# Frames


@reading_verbs
def test_row_order_leaves_no_trace_and_the_frame_stays(
    verb: Verb, pipes: dict[Any, Any], answers: dict[str, pd.DataFrame]
) -> None:
    shuffled = verb.data.sample(frac=1, random_state=0)
    before = shuffled.copy(deep=True)
    pd.testing.assert_frame_equal(verb(pipes[verb.pipeline], shuffled), answers[str(verb)])
    pd.testing.assert_frame_equal(shuffled, before)


@reading_verbs
def test_columns_may_have_other_names(verb: Verb, pipes: dict[Any, Any], answers: dict[str, pd.DataFrame]) -> None:
    renamed = verb.data.rename(columns={"user_id": "uid", "time": "when", "lat": "y", "lon": "x"})
    table = verb(pipes[verb.pipeline], renamed, user_id="uid", time="when", lat="y", lon="x")
    pd.testing.assert_frame_equal(table, answers[str(verb)])


@reading_verbs
def test_a_name_that_nobody_knows_is_refused(verb: Verb, pipes: dict[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"^Unknown option\(s\) \['latitude'\]; [^.]*\.$"):
        verb(pipes[verb.pipeline], latitude="y")
    with pytest.raises(DataError, match=r"^The frame lacks the column\(s\) uid; "):
        verb(pipes[verb.pipeline], user_id="uid")


def test_an_option_that_no_generator_takes_is_refused(pipes: dict[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"^Unknown option\(s\) \['latitude', 'prefix_ids'\]; [^.]*\.$"):
        pipes[TrajectoryGenerationPipeline].generate(2, latitude="y", prefix_ids=None)


@reading_verbs
def test_naive_times_need_a_time_zone(verb: Verb, pipes: dict[Any, Any], answers: dict[str, pd.DataFrame]) -> None:
    local = verb.data["time"].dt.tz_convert("Asia/Tokyo").dt.tz_localize(None)
    with pytest.raises(DataError, match=r"^Column 'time': .* without a time zone .* pass timezone="):
        verb(pipes[verb.pipeline], verb.data.assign(time=local))
    table = verb(pipes[verb.pipeline], verb.data.assign(time=local), timezone="Asia/Tokyo")
    pd.testing.assert_frame_equal(table, answers[str(verb)])


@reading_verbs
def test_an_empty_frame_is_refused(verb: Verb, pipes: dict[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"^The frame has no rows; at least one row is needed\.$"):
        verb(pipes[verb.pipeline], verb.data.head(0))


@reading_verbs
def test_a_frame_is_checked_once(verb: Verb, pipes: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    check = frames._canonical
    monkeypatch.setattr(frames, "_canonical", lambda *args, **how: calls.append(1) or check(*args, **how))
    verb(pipes[verb.pipeline])
    assert len(calls) == 1


# Batches and progress


@every_verb
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_the_batch_size_does_not_matter(
    verb: Verb, size: int, pipes: dict[Any, Any], answers: dict[str, pd.DataFrame]
) -> None:
    table = verb(pipes[verb.pipeline], batch_size=size)
    pd.testing.assert_frame_equal(table, answers[str(verb)], check_exact=False, **EXACT)


@every_verb
def test_a_batch_has_at_least_one_row(verb: Verb, pipes: dict[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"^batch_size must be at least 1, not 0\.$"):
        verb(pipes[verb.pipeline], batch_size=0)


@every_verb
def test_progress_is_shown_on_stderr_when_asked(
    verb: Verb, pipes: dict[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(pipes[verb.pipeline])
    assert capsys.readouterr() == ("", "")
    verb(pipes[verb.pipeline], progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err


def test_numbers_may_be_of_any_whole_type() -> None:
    assert len(mstar().generate(np.int64(2))) == 48
