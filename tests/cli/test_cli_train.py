"""`train` and `adapt`: what the verbs of the library return, as folders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import ZONE, call
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

from hf_mobility import (
    MstarCodecConfig,
    MstarCodecModel,
    MstarConfig,
    MstarTokenizer,
    NextLocationPipeline,
    RawTokenizer,
    adapt,
    train,
)


def test_train_saves_a_model_with_its_first_city_and_a_card(town: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    town.frame[town.frame["user_id"] < 20].to_parquet(other)
    out = tmp_path / "out"
    call("train", town.visits, other, "--timezone", ZONE, "--size", "tiny", "--steps", 2, "--seed", 3, "-o", out)
    pipe = NextLocationPipeline.from_pretrained(out)
    assert pipe.tokenizer.name == "simville" and pipe.model.config.use_cache
    card = ModelCard.load(out / "README.md").text
    assert f"simville: {len(town.frame):,} visits of 30 users; other:" in card and "- **Seed**: 3" in card


def test_adapt_saves_an_adapter_with_its_city_and_a_card(town: SimpleNamespace, local: Path) -> None:
    pipe = NextLocationPipeline.from_pretrained(local)
    assert np.array_equal(pipe.tokenizer.location_ids, town.city.location_ids)
    card = ModelCard.load(local / "README.md")
    assert {"lora", "peft"} <= set(card.data.tags) and "30 users" in card.text


def test_the_trained_generator_copies_places_where_its_codec_has_a_vector_for_them(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    config = MstarConfig.from_pretrained(generator)
    assert config.pointer_head and config.within_level_steps == 6
    assert config.codec.level_lengths == [1, 7, 28, 168] and config.codec.num_encoder_layers == 0
    shape = {**config.codec.to_dict(), "num_encoder_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    MstarTokenizer.from_pretrained(town.folder / "codec").save_pretrained(tmp_path / "codec", min_users=1)
    MstarCodecModel(MstarCodecConfig(**shape)).save_pretrained(tmp_path / "codec")
    short = ("--steps", 1, "--size", "tiny", "--timezone", ZONE, "--system", "mstar", "--codec", tmp_path / "codec")
    call("train", town.folder / "whole.parquet", *short, "--min-users", 1, "-o", tmp_path / "weeks")
    assert not MstarConfig.from_pretrained(tmp_path / "weeks").pointer_head


def test_training_goes_on_with_a_generator_that_learned_from_shifted_copies(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    whole, zone = town.folder / "whole.parquet", ("--timezone", ZONE, "--system", "mstar")
    nothing = ("--steps", 1, "--batch-size", 4, "--learning-rate", 1e-9, "--test-fraction", 0.4, "--min-users", 1)
    call("train", whole, *zone, "--start", generator, "--shifted-copies", 2, *nothing, "-o", tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (generator, tmp_path))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-6, err_msg=name)
    assert "before that, what weeks was trained on" in ModelCard.load(tmp_path / "README.md").text


def test_a_city_of_few_users_is_refused_before_the_training_with_the_option(
    town: SimpleNamespace, generator: Path, tmp_path: Path
) -> None:
    """The codec was saved with everybody's homes; by default those of five users are saved, and there are none."""
    short = ("--steps", 1, "--size", "tiny", "--codec", town.folder / "codec", "-o", tmp_path / "weeks")
    fault = call("train", town.folder / "whole.parquet", "--system", "mstar", *short, code=1).stderr
    assert "min_users=5 leaves no home or no pair of home and work" in fault and "--min-users" in fault
    assert not (tmp_path / "weeks").exists()


def same_weights(folder: Path, other: Path) -> None:
    one, two = (load_file(path / "model.safetensors") for path in (folder, other))
    assert one.keys() == two.keys()
    for name, values in two.items():
        np.testing.assert_allclose(one[name], values, atol=1e-5, err_msg=name)


def test_raw_is_trained_and_goes_on_as_the_verb_does(town: SimpleNamespace, encoder: Path, tmp_path: Path) -> None:
    made = train("raw", town.points, timezone=ZONE, size="tiny", steps=2, batch_size=4, test_fraction=0.2)
    made.save_pretrained(tmp_path / "verb")
    same_weights(encoder, tmp_path / "verb")
    short = ("--system", "raw", "--steps", 1, "--batch-size", 4)
    result = call("train", town.points, *short, "--start", encoder, "-o", tmp_path / "command")
    again = train("raw", town.points, start=encoder, steps=1, batch_size=4)
    again.save_pretrained(tmp_path / "again")
    same_weights(tmp_path / "command", tmp_path / "again")
    assert again.notes[0] in result.stderr
    assert "before that, what raw was trained on" in ModelCard.load(tmp_path / "command" / "README.md").text


def test_the_grid_and_the_weeks_are_options_and_reported(town: SimpleNamespace, tmp_path: Path) -> None:
    bounds = [float(edge) for edge in town.frame[["lat", "lon"]].quantile([0.02, 0.98]).to_numpy().ravel()]
    text = ",".join(map(str, bounds))
    how = ("--cell-km", 2, "--min-known", 0.1, "--fill-hours", 14, "--size", "tiny", "--steps", 1, "--batch-size", 4)
    how = (*how, "--system", "mstar-codec", "--timezone", ZONE, "--bounds", text, "--min-users", 1)
    result = call("train", town.points, *how, "-o", tmp_path)
    made = train(
        "mstar-codec",
        town.points,
        timezone=ZONE,
        bounds=bounds,
        cell_km=2.0,
        min_known=0.1,
        fill_hours=14,
        size="tiny",
        steps=1,
        batch_size=4,
    )
    assert all(note in result.stderr for note in made.notes) and len(made.notes) == 2
    tokenizer = MstarTokenizer.from_pretrained(tmp_path)
    assert np.array_equal(tokenizer.lat, made.tokenizer.lat)
    made.save_pretrained(tmp_path / "verb", min_users=1)
    same_weights(tmp_path, tmp_path / "verb")


def test_a_stray_record_is_refused_with_the_options_that_help(town: SimpleNamespace, tmp_path: Path) -> None:
    stray = town.frame.iloc[[0]].assign(lat=town.frame["lat"].iloc[0] + 5)
    pd.concat([town.frame, stray]).to_parquet(tmp_path / "stray.parquet")
    short = ("--size", "tiny", "--steps", 1, "--batch-size", 4, "--timezone", ZONE, "-o", tmp_path / "out")
    for system in ("mstar-codec", "raw"):
        fault = call("train", tmp_path / "stray.parquet", "--system", system, *short, code=1).stderr
        assert "stretch the box from" in fault and "(Here: --bounds" in fault and "--coverage" in fault
    call("train", tmp_path / "stray.parquet", "--system", "raw", "--coverage", 0.99, *short)
    south, _, north, _ = RawTokenizer.from_pretrained(tmp_path / "out").bounds
    assert north - south < 1


def test_a_file_of_weeks_trains_codec_and_generator(town: SimpleNamespace, generator: Path, tmp_path: Path) -> None:
    tokenizer = MstarTokenizer.from_pretrained(generator)
    cells, users, _ = tokenizer.weeks(pd.read_parquet(town.folder / "whole.parquet"))
    table = pd.DataFrame(cells, columns=[f"h{hour}" for hour in range(168)])
    table.insert(0, "user_id", users)
    table.to_csv(tmp_path / "weeks.csv", index=False)
    short = ("--steps", 2, "--batch-size", 4, "--size", "tiny", "--min-users", 1)
    out = ("-o", tmp_path / "out")
    result = call("train", tmp_path / "weeks.csv", "--system", "mstar", "--codec", town.folder / "codec", *short, *out)
    assert f"weeks: {len(cells)} of {len(cells)} kept of {len(set(users))} users" in result.stderr
    fault = call("train", tmp_path / "weeks.csv", "--system", "mstar-codec", *short, *out, code=1).stderr
    assert "does not say its grid" in fault


def test_adapt_says_the_chosen_strength_on_stderr_and_saves_what_the_verb_returns(
    town: SimpleNamespace, local: Path, tmp_path: Path
) -> None:
    how = ("--timezone", ZONE, "--strength", "weak", "--test-fraction", 0.2)
    result = call("adapt", town.samoe, town.visits, *how, "--device", "cpu", "-o", tmp_path / "command")
    assert "strength: weak; strength 'weak' was asked for." in result.stderr
    made = adapt(town.samoe, town.visits, timezone=ZONE, strength="weak", test_fraction=0.2, device="cpu")
    made.save_pretrained(tmp_path / "verb")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("command", "verb"))
    for name, values in two.items():
        np.testing.assert_allclose(one[name], values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--system", "mstar", "--cell-km", 1), "cell_km is for mstar-codec, not for weeks of slots"),
        (("--system", "raw", "--codec", "x"), "codec is for mstar"),
        (("--system", "raw", "--start", "no/folder/there"), "there is no such folder"),
        (("--system", "mstar", "--codec", "no/folder/there"), "there is no such folder"),
        (("--system", "raw", "--start", "x", "--size", "tiny"), "size: of a new model"),
        (("--shifted-copies", 2), "shifted_copies is for mstar-codec and mstar"),
        (("--system", "raw", "--epochs", 1, "--steps", 1), "epochs and steps both"),
        (("--batch-size", 4), "batch_size is for mstar-codec and mstar and raw"),
        (("--device", "nowhere"), "none that torch knows"),
    ],
)
def test_arguments_are_checked_before_the_data_are_read(
    options: tuple[object, ...], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.parquet").touch()  # which no reader could read
    zone = ("--timezone", ZONE, "-o", tmp_path / "out")
    assert sentence in call("train", tmp_path / "empty.parquet", *zone, *options, code=1).stderr
