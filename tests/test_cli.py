"""The command line at tiny size: every command writes what its verb returns, and reports a fault in the verb's words.

Commands run in this process; only `--help` and `push`, which must see another Hub, run in one of their own.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import DatasetCard, ModelCard
from safetensors.numpy import load_file
from typer.testing import CliRunner

from hf_mobility import (
    City,
    MstarCodecConfig,
    MstarCodecModel,
    MstarConfig,
    MstarTokenizer,
    NextLocationPipeline,
    SamoeTokenizer,
    TrajectoryGenerationPipeline,
    make_task,
    simulate_city,
)
from hf_mobility.cli.app import app
from hf_mobility.cli.push import SavedFolder
from hf_mobility.data.io.exports import week_matrix
from hf_mobility.evaluation import audit

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = [path.parent for path in sorted((ROOT / "checkpoints").glob("*/config.json"))]
ZONE = "Europe/Berlin"
COMMANDS = ("prepare", "train", "adapt", "predict", "generate", "embed", "evaluate", "audit", "info", "push")


def call(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    told = f"{result.output}\n{result.exception!r}"
    assert result.exit_code == code, told
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, toy: SimpleNamespace) -> SimpleNamespace:
    """Visits as a file, and a tiny SAMoE saved with the city of these visits."""
    folder = tmp_path_factory.mktemp("town")
    visits = folder / "simville.parquet"
    call("prepare", "--simulate", 30, "--days", 14, "--observe", 0.5, "--seed", 1, "-o", visits)
    frame = pd.read_parquet(visits)
    city = City.from_visits(frame, timezone=ZONE, name="simville")
    model = toy.model()
    model.save_pretrained(folder / "samoe")
    known = city.with_popularity(make_task(frame, city).train_visits())
    SamoeTokenizer.from_city(known, model.config).save_pretrained(folder / "samoe")
    return SimpleNamespace(folder=folder, visits=visits, frame=frame, city=city, samoe=folder / "samoe")


@pytest.fixture(scope="module")
def local(town: SimpleNamespace) -> Path:
    """An adapter folder."""
    strength = ("--strength", "weak", "--timezone", ZONE)
    result = call("adapt", town.samoe, town.visits, *strength, "--test-fraction", 0.2, "-o", town.folder / "local")
    assert "weak" in result.output
    return town.folder / "local"


@pytest.fixture(scope="module")
def generator(town: SimpleNamespace) -> Path:
    """Codec and generator as the commands train them, two steps each."""
    short = ("--steps", 2, "--batch-size", 4, "--size", "tiny", "--timezone", ZONE, "--test-fraction", 0.4)
    whole = town.folder / "whole.parquet"  # of people seen all the time
    call("prepare", "--simulate", 30, "--days", 14, "--seed", 1, "-o", whole)
    call("train", whole, "--system", "mstar-codec", *short, "-o", town.folder / "codec")
    call("train", whole, "--system", "mstar", "--codec", town.folder / "codec", *short, "-o", town.folder / "weeks")
    return town.folder / "weeks"


@pytest.fixture(scope="module")
def encoder(town: SimpleNamespace) -> Path:
    short = ("--steps", 2, "--batch-size", 4, "--size", "tiny", "--timezone", ZONE, "--test-fraction", 0.2)
    call("train", town.visits, "--system", "raw", *short, "-o", town.folder / "raw")
    return town.folder / "raw"


# prepare


def test_prepare_simulates_the_city_that_the_verb_makes_and_writes_its_card(tmp_path: Path) -> None:
    out, card = tmp_path / "deep" / "town.csv", tmp_path / "CARD.md"
    call("prepare", "--simulate", 20, "--days", 7, "--seed", 4, "-o", out, "--card", card)
    made = simulate_city(20, num_days=7, seed=4)
    written = pd.read_csv(out)
    assert written["location_id"].tolist() == made.visits["location_id"].tolist()
    assert f"{len(made.visits):,} visits of 20 people" in DatasetCard.load(card).text


def test_prepare_reads_tables_and_public_formats_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    rows = ["uid,when,venue,lat,lon", "1,2024-01-01 10:00,a,48,11", "1,2024-01-01 12:00,b,99,11"]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    names = ("--column", "user_id=uid", "--column", "time=when", "--column", "location_id=venue")
    out = tmp_path / "out.parquet"
    result = call("prepare", tmp_path / "table.csv", *names, "--timezone", ZONE, "-o", out)
    assert "1 rows of 1 people; left out: {'coordinates out of range': 1}" in result.output
    assert pd.read_parquet(out)["location_id"].tolist() == ["a"]
    lines = ["7\t2010-10-17T01:48:53Z\t39.7\t-104.9\t88", "7\t2010-10-16T06:02:04Z\t39.8\t-104.8\t89"]
    (tmp_path / "gowalla.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    box = ("--box", "39,-105,39.75,-104")
    call("prepare", tmp_path / "gowalla.txt", "--reader", "gowalla", *box, "-o", out)
    assert pd.read_parquet(out)["location_id"].tolist() == ["88"]


def test_prepare_turns_gps_points_into_visits_of_cells_or_keeps_them(tmp_path: Path) -> None:
    stands = [f"37.75 -122.40 0 {1_211_000_000 + 60 * k}" for k in range(30)]
    drives = [f"{37.75 + 0.001 * k} -122.40 1 {1_211_001_800 + 60 * k}" for k in range(20)]
    (tmp_path / "new_abc.txt").write_text("\n".join(reversed(stands + drives)) + "\n", encoding="utf-8")
    cabs = ("prepare", tmp_path, "--reader", "cabspotting", "-o", tmp_path / "out.parquet")
    call(*cabs)
    visits = pd.read_parquet(tmp_path / "out.parquet")
    assert len(visits) == 1 and visits["duration"].iloc[0] >= 29 * 60
    call(*cabs, "--points")
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 50


# train, adapt


def test_train_saves_a_model_with_its_first_city_and_a_card(town: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    town.frame[town.frame["user_id"] < 20].to_parquet(other)
    out = tmp_path / "out"
    call("train", town.visits, other, "--timezone", ZONE, "--size", "tiny", "--steps", 2, "--seed", 3, "-o", out)
    pipe = NextLocationPipeline.from_pretrained(out)
    assert pipe.tokenizer.name == "simville" and pipe.model.config.use_cache
    card = ModelCard.load(out / "README.md").text
    assert f"simville: {len(town.frame):,} visits of 30 people; other:" in card and "- **Seed**: 3" in card


def test_adapt_saves_an_adapter_with_its_city_and_a_card(town: SimpleNamespace, local: Path) -> None:
    pipe = NextLocationPipeline.from_pretrained(local)
    assert np.array_equal(pipe.tokenizer.location_ids, town.city.location_ids)
    card = ModelCard.load(local / "README.md")
    assert {"lora", "peft"} <= set(card.data.tags) and "30 people" in card.text


# predict, generate, embed


def test_predict_writes_what_the_pipeline_returns(town: SimpleNamespace, tmp_path: Path) -> None:
    call("predict", town.samoe, town.visits, "--top-k", 3, "-o", tmp_path / "next.parquet")
    expected = NextLocationPipeline.from_pretrained(town.samoe).predict(town.frame, top_k=3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "next.parquet"), expected)


def test_another_city_is_read_from_visits_or_from_a_list_of_places(town: SimpleNamespace, tmp_path: Path) -> None:
    places = town.frame[["location_id", "lat", "lon"]].drop_duplicates("location_id")
    places.rename(columns={"location_id": "venue"}).to_csv(tmp_path / "places.csv", index=False)
    renamed = tmp_path / "visits.csv"
    town.frame.rename(columns={"location_id": "venue"}).to_csv(renamed, index=False)
    common = ("--timezone", ZONE, "--column", "location_id=venue", "-o", tmp_path / "next.csv")
    call("predict", town.samoe, renamed, "--city", tmp_path / "places.csv", *common)
    unseen = pd.read_csv(tmp_path / "next.csv")
    assert set(unseen["location_id"]) <= set(places["location_id"])
    call("predict", town.samoe, renamed, "--city", renamed, *common)
    assert len(pd.read_csv(tmp_path / "next.csv")) == len(unseen) == 5 * 30


def test_geoparquet_goes_out_and_in(town: SimpleNamespace, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed")
    call("prepare", town.visits, "-o", tmp_path / "v.geoparquet")
    assert geopandas.read_parquet(tmp_path / "v.geoparquet").crs.to_epsg() == 4326
    call("predict", town.samoe, tmp_path / "v.geoparquet", "-o", tmp_path / "next.geoparquet")
    found = geopandas.read_parquet(tmp_path / "next.geoparquet")
    np.testing.assert_allclose(found.geometry.x, found["lon"])
    assert len(found) == 5 * 30


def test_the_trained_generator_copies_places_where_its_codec_has_a_vector_for_them(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    config = MstarConfig.from_pretrained(generator)
    assert config.pointer_head and config.within_level_steps == 6
    assert config.codec.level_lengths == [1, 7, 28, 168] and config.codec.num_encoder_layers == 0
    shape = {**config.codec.to_dict(), "num_encoder_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    MstarTokenizer.from_pretrained(town.folder / "codec").save_pretrained(tmp_path / "codec")
    MstarCodecModel(MstarCodecConfig(**shape)).save_pretrained(tmp_path / "codec")
    short = ("--steps", 1, "--size", "tiny", "--timezone", ZONE, "--system", "mstar", "--codec", tmp_path / "codec")
    call("train", town.folder / "whole.parquet", *short, "-o", tmp_path / "weeks")
    assert not MstarConfig.from_pretrained(tmp_path / "weeks").pointer_head


def test_training_goes_on_with_a_generator_that_learned_from_shifted_copies(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    whole, zone = town.folder / "whole.parquet", ("--timezone", ZONE, "--system", "mstar")
    nothing = ("--steps", 1, "--batch-size", 4, "--learning-rate", 1e-9, "--test-fraction", 0.4)
    call("train", whole, *zone, "--start", generator, "--shifted-copies", 2, *nothing, "-o", tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (generator, tmp_path))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-6, err_msg=name)
    assert "before that, what weeks was trained on" in ModelCard.load(tmp_path / "README.md").text


def test_generate_writes_the_weeks_of_the_pipeline(generator: Path, tmp_path: Path) -> None:
    call("generate", generator, "-n", 6, "--seed", 2, "-o", tmp_path / "weeks.parquet")
    expected = TrajectoryGenerationPipeline.from_pretrained(generator).generate(6, seed=2, to="weeks")
    assert np.array_equal(week_matrix(pd.read_parquet(tmp_path / "weeks.parquet"))[1], expected)
    assert "train" in ModelCard.load(generator / "README.md").text


def test_embed_writes_people_or_cells(town: SimpleNamespace, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.parquet"
    call("embed", encoder, town.visits, "-o", out)
    people = pd.read_parquet(out)
    assert people["user_id"].tolist() == list(range(30)) and "e15" in people
    call("embed", encoder, town.visits, "--cell-km", 3.0, "--min-users", 2, "--pooling", "mean", "-o", out)
    cells = pd.read_parquet(out)
    assert (cells["users"] >= 2).all() and len(cells) > 2


# evaluate, audit, info


def test_evaluate_shows_baselines_first_for_each_system(
    town: SimpleNamespace, generator: Path, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table.csv"
    result = call("evaluate", town.samoe, town.visits, "-o", out)
    table = pd.read_csv(out)
    assert table["model"].tolist() == ["UserFrequency", "UserMarkov", "ContextMix", "samoe"]
    assert table["n"].nunique() == 1 and table["n"][0] == make_task(town.frame, town.city).target.sum()
    assert result.output.index("UserMarkov") < result.output.index("samoe")
    call("evaluate", town.samoe, town.visits, "--city", town.visits, "--timezone", ZONE, "-o", out)
    assert pd.read_csv(out)["model"].iloc[-1] == "samoe"
    elsewhere = tmp_path / "elsewhere.parquet"
    town.frame.assign(location_id="x" + town.frame["location_id"]).to_parquet(elsewhere)
    call("evaluate", town.samoe, elsewhere, "--city", elsewhere, "--timezone", ZONE, "-o", out)
    pd.testing.assert_frame_equal(pd.read_csv(out), table)  # whatever city lies beside the weights

    call("evaluate", generator, town.folder / "whole.parquet", "--test-fraction", 0.4, "-o", out)
    assert pd.read_csv(out)["model"].tolist()[:2] == ["train sample", "real itself"]
    assert pd.read_csv(out)["model"].iloc[-1] == "weeks"

    call("evaluate", encoder, town.visits, "-o", out)
    table = pd.read_csv(out)
    assert list(table["model"].unique()) == ["CopyLast", "HourMean", "RAW"]
    assert table["users"].max() == 12  # windows: two weeks of six people of thirty


def test_an_adapter_is_evaluated_as_the_model_around_it(town: SimpleNamespace, local: Path) -> None:
    result = call("evaluate", local, town.visits)
    assert " local " in result.output
    assert "adapter:" in call("info", local).output


def test_what_a_model_has_seen_is_no_test_of_it(town: SimpleNamespace, generator: Path, tmp_path: Path) -> None:
    """Popularity, homes and the box that the tokenizer counted tell that nothing was left out."""
    whole, zone = town.folder / "whole.parquet", ("--timezone", ZONE)
    short = ("--steps", 1, "--batch-size", 4, *zone)
    call("adapt", town.samoe, town.visits, "--strength", "none", *zone, "-o", tmp_path / "adapter")
    call("train", whole, "--system", "mstar-codec", "--size", "tiny", *short, "-o", tmp_path / "codec")
    call(
        "train",
        whole,
        "--system",
        "mstar",
        "--size",
        "tiny",
        "--codec",
        tmp_path / "codec",
        *short,
        "-o",
        tmp_path / "weeks",
    )
    call("train", whole, "--system", "raw", "--size", "tiny", *short, "-o", tmp_path / "raw")
    assert "unless it was trained with --test-fraction" in call("evaluate", tmp_path / "raw", whole).stderr
    for model, visits in (("adapter", town.visits), ("weeks", whole)):
        assert "was made from exactly these visits" in call("evaluate", tmp_path / model, visits, code=1).stderr
    with_city = ("--city", town.visits, *zone)
    assert "exactly these" in call("evaluate", tmp_path / "adapter", town.visits, *with_city, code=1).stderr


def test_weeks_of_another_city_are_told_by_their_homes(generator: Path, tmp_path: Path) -> None:
    call("prepare", "--simulate", 30, "--days", 14, "--seed", 2, "-o", tmp_path / "other.parquet")
    assert "the table compares two cities" in call("evaluate", generator, tmp_path / "other.parquet").stderr


def test_audit_of_visits_is_the_verbs(town: SimpleNamespace, tmp_path: Path) -> None:
    result = call("audit", town.visits, "--min-people", 3, "-o", tmp_path / "audit.parquet")
    expected = audit(town.frame, min_people=3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "audit.parquet"), expected)
    assert result.output.splitlines()[: len(expected)] == expected["sentence"].tolist()


def test_audit_of_weeks_takes_visits_on_the_generators_grid(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    whole = pd.read_parquet(town.folder / "whole.parquet")
    whole[whole["user_id"] < 20].to_parquet(tmp_path / "train.parquet")
    whole[whole["user_id"] >= 20].to_parquet(tmp_path / "others.parquet")
    call("generate", generator, "-n", 8, "-o", tmp_path / "weeks.parquet")
    files = ("--train", tmp_path / "train.parquet", "--held-out", tmp_path / "others.parquet")
    call("audit", tmp_path / "weeks.parquet", *files, "--city", generator, "-o", tmp_path / "a.csv")
    tokenizer = TrajectoryGenerationPipeline.from_pretrained(generator).tokenizer
    train, others = (tokenizer.weeks(whole[mask]) for mask in (whole["user_id"] < 20, whole["user_id"] >= 20))
    made = pd.read_parquet(tmp_path / "weeks.parquet")
    expected = audit(made, train=train.cells, held_out=others.cells, train_users=train.user_id)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")["value"], expected["value"])


def test_info_tells_what_files_and_folders_hold(town: SimpleNamespace, generator: Path, encoder: Path) -> None:
    told = call("info", town.visits).output
    assert re.search(r"people:\s+30\n", told) and re.search(r"places:\s+\d+", told)
    told = call("info", town.samoe).output
    assert "SamoeForNextLocation" in told and "simville" in told and ZONE in told
    assert "MstarForTrajectoryGeneration" in call("info", generator).output
    assert "RawForTrajectoryPrediction" in call("info", encoder).output


# push


def test_push_uploads_the_folder_and_its_card_names_the_repository(
    town: SimpleNamespace, local: Path, run_python: Callable[..., Any]
) -> None:
    hub_server = pytest.importorskip("hub_server", reason="the loopback hub is not there")
    (local / "checkpoint-3").mkdir()
    (local / "checkpoint-3" / "optimizer.pt").write_bytes(b"0")
    code = "from hf_mobility.cli.app import app\n"
    for command in (
        ["push", str(local), "mia/my-city", "--base-model", "mia/samoe", "--private"],
        ["push", str(town.samoe), "mia/samoe"],
    ):
        code += f"app({command!r}, standalone_mode=False)\n"
    with hub_server.HubServer() as hub:
        hub_at = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_mia", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        told = run_python("-c", code, **hub_at).stdout
        repository, base = hub.repositories["mia/my-city"], hub.repositories["mia/samoe"]
    assert f"{hub.url}/mia/my-city/commit/" in told
    arrived = repository.files()
    assert repository.private and not base.private and "checkpoint-3/optimizer.pt" not in arrived
    assert json.loads(arrived["adapter_config.json"])["base_model_name_or_path"] == "mia/samoe"
    assert 'from_pretrained("mia/my-city")' in arrived["README.md"].decode()
    card = ModelCard(base.files()["README.md"].decode())
    assert card.data.library_name == "hf_mobility" and 'from_pretrained("mia/samoe")' in card.text
    assert not (town.samoe / "README.md").exists()  # the folder itself stays as it is


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_a_folder_without_code_is_pushed_with_it(folder: Path, tmp_path: Path) -> None:
    """The shipped checkpoints carry none; everything else stays."""
    pushed = SavedFolder(folder)
    pushed.save_pretrained(tmp_path)
    pushed._write_card(tmp_path, name="mia/town", facts=None)
    for name, auto in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        before, after = (json.loads((path / name).read_text()) for path in (folder, tmp_path))
        assert "auto_map" not in before
        reference = after.pop("auto_map")[auto]
        module = (reference if isinstance(reference, str) else reference[0]).split(".")[0]
        assert (tmp_path / f"{module}.py").is_file()
        assert {key: after.get(key) for key in before if key != "use_cache"} == {
            key: value for key, value in before.items() if key != "use_cache"
        }
    named = re.findall(r'from_pretrained\("(.*?)"', (tmp_path / "README.md").read_text())
    assert named and set(named) == {"mia/town"}


def test_push_refuses_what_nobody_could_load(local: Path, tmp_path: Path) -> None:
    assert "There is no folder" in call("push", tmp_path / "nothing", "me/x", code=1).output
    assert "holds no saved model" in call("push", tmp_path, "me/x", code=1).output
    assert "which nobody else can load" in call("push", local, "me/x", code=1).output


# What is wrong


def test_faults_of_data_and_arguments_are_one_sentence_and_exit_code_1(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.csv"
    (tmp_path / "x.txt").touch()
    town.frame.drop(columns="lat").to_csv(bad, index=False)
    out = ("-o", tmp_path / "out.csv")
    training = ("train", town.visits, "--timezone", ZONE, "-o", tmp_path)
    faults = {
        "lacks the column(s)": ("predict", town.samoe, bad, *out),
        "There is no file": ("predict", town.samoe, tmp_path / "nothing.csv", *out),
        "the known file types are": (
            "predict",
            town.samoe,
            town.visits,
            "--city",
            tmp_path / "x.txt",
            "--timezone",
            ZONE,
            *out,
        ),
        "top_k must be between": ("predict", town.samoe, town.visits, "--top-k", 0, *out),
        "end its name in": ("predict", town.samoe, town.visits, "-o", tmp_path / "out.xlsx"),
        "time zone of a new city": ("predict", town.samoe, town.visits, "--city", town.visits, *out),
        "no column(s) lat, lon": ("audit", town.visits, "-o", tmp_path / "out.geoparquet"),
        "must be at least 1": ("generate", generator, "-n", 0, *out),
        "needs a RawModel": ("embed", town.samoe, town.visits, *out),
        "which needs one of them": (*training, "--system", "mstar"),
        "is for --system mstar": (*training, "--system", "raw", "--start", generator),
        "--size is of a new model": (*training, "--system", "mstar", "--start", generator, "--size", "tiny"),
        "for mstar and mstar-codec": (*training, "--shifted-copies", 2),
        "one city at a time": ("train", *[town.visits] * 2, "--timezone", ZONE, "--system", "raw", "-o", tmp_path),
        "min_people must be": ("audit", town.visits, "--min-people", 1),
        "knows the grid it was trained on": (
            *("evaluate", generator, town.visits, "--city", town.visits, "--timezone", ZONE),
        ),
        "num_users must be at least 1": ("prepare", "--simulate", 0, *out),
    }
    for sentence, arguments in faults.items():
        result = call(*arguments, code=1)
        assert result.stderr.strip().splitlines()[-1].startswith("hf-mobility: ")
        assert sentence in result.stderr, result.stderr
    assert not (tmp_path / "out.csv").exists()


def test_what_the_library_says_of_arguments_is_said_of_options(town: SimpleNamespace, tmp_path: Path) -> None:
    naive, unknown, nameless = (tmp_path / f"{name}.csv" for name in ("naive", "unknown", "nameless"))
    out = ("-o", tmp_path / "out.csv")
    town.frame.drop(columns="user_id").to_csv(nameless, index=False)
    town.frame.assign(time=town.frame["time"].dt.tz_localize(None)).to_csv(naive, index=False)
    town.frame.assign(location_id="nowhere").to_csv(unknown, index=False)
    for command, options in {
        ("predict", town.samoe, naive, *out): "(Here: --timezone.)",
        ("predict", town.samoe, unknown, *out): "(Here: --unknown.)",
        ("predict", town.samoe, town.visits, "--top-k", 0, *out): "(Here: --top-k.)",
        ("predict", town.samoe, nameless, *out): "(Here: --column user_id=NAME.)",
        ("predict", town.samoe, town.visits, "--city", town.visits, *out): "give --timezone, such as Europe/Berlin.",
    }.items():
        assert call(*command, code=1).stderr.strip().endswith(options)
    call("audit", naive, "--timezone", ZONE, "--min-people", 3)
    renamed = tmp_path / "renamed.csv"
    town.frame.rename(columns={"user_id": "uid"}).to_csv(renamed, index=False)
    call("audit", renamed, "--column", "user_id=uid", "--min-people", 3)


def test_generated_weeks_are_read_as_people(generator: Path, tmp_path: Path) -> None:
    weeks = tmp_path / "weeks.parquet"
    call("generate", generator, "-n", 12, "-o", weeks)
    assert re.search(r"people: +12\n", call("info", weeks).output)
    call(
        "train",
        weeks,
        "--system",
        "mstar-codec",
        "--size",
        "tiny",
        "--steps",
        1,
        "--timezone",
        ZONE,
        "-o",
        tmp_path / "codec",
    )
    assert "give both --train and --held-out" in call("audit", weeks, code=2).stderr


def test_commands_that_are_written_wrongly_end_with_exit_code_2(town: SimpleNamespace, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.csv")
    for arguments in (
        ("predict", town.samoe),
        ("prepare", *out),
        ("prepare", town.visits, "--simulate", 5, *out),
        ("prepare", town.visits, "--card", tmp_path / "c.md", *out),
        ("prepare", town.visits, "--reader", "nothing", *out),
        ("prepare", town.visits, "--reader", "tist2015", *out),
        ("prepare", town.visits, "--box", "1,2", "--reader", "gowalla", *out),
        ("predict", town.samoe, town.visits, "--column", "user_id", *out),
        ("train", town.visits, "-o", tmp_path),
        ("audit", town.visits, "--train", town.visits),
        ("embed", town.samoe, town.visits, "--regions", "x.json", "--cell-km", 0.005, *out),
    ):
        call(*arguments, code=2)


def test_help_has_an_example_of_every_command_and_is_quick(run_python: Callable[..., Any]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    script = setup["options.entry_points"]["console_scripts"].strip()
    name, module, attribute = re.fullmatch(r"([\w-]+) = ([\w.]+):(\w+)", script).groups()  # type: ignore[union-attr]
    code = f"import sys; from {module} import {attribute} as main; sys.argv = [{name!r}, '--help']\n"
    code += "import atexit; atexit.register(lambda: print('loaded:', {'torch', 'pandas'} & set(sys.modules)))\nmain()"
    told = run_python("-c", code).stdout
    assert "loaded: set()" in told and f"Usage: {name}" in told
    assert all(re.search(rf"^  {command} ", told, flags=re.MULTILINE) for command in COMMANDS)
    for command in COMMANDS:
        assert f"hf-mobility {command} " in call(command, "--help").output
