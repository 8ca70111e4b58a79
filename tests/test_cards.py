"""Cards: their metadata read back, baselines in the text only, and a snippet that runs for every kind of model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index

import hf_mobility
from benchmarks import make_cards
from hf_mobility import (
    MstarCodecConfig,
    MstarCodecModel,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    NextLocationPipeline,
    RawConfig,
    RawForRegionAnalysis,
    RawForTrajectoryPrediction,
    RawForUserProfiling,
    RawModel,
    RawTokenizer,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeModel,
    SamoeTokenizer,
    adapt,
    simulate_city,
)
from hf_mobility.evaluation import audit
from hf_mobility.hub.cards import CardFacts, dataset_card, model_card, write_card

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = [path.parent for path in sorted((ROOT / "checkpoints").glob("*/README.md"))]
HUB_TASKS = {"feature-extraction", "other", "tabular-regression", "time-series-forecasting"}  # of the Hub's closed list
SECTIONS = ("Intended use", "Out of scope", "Training data", "Sampling bias", "Figures", "Privacy")
SECTIONS += ("How to reproduce", "Use", "Licences")


def snippet(card: Any) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", str(card), flags=re.DOTALL)
    return str(code)


def run(code: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(compile(code, "snippet", "exec"), space)  # noqa: S102
    return space


def samoe(cls: Any, toy: SimpleNamespace) -> tuple[Any, Any]:
    config = SamoeConfig.from_preset("tiny")
    return cls(config), SamoeTokenizer.from_city(toy.city(4)[1], config)


def grid(num_hours: int = 24) -> MstarTokenizer:
    box, zone = (47.9, 10.9, 48.1, 11.1), "Europe/Berlin"
    return MstarTokenizer.from_grid(box, timezone=zone, rows=4, columns=4, factors=(2, 1), num_hours=num_hours)


def fitted_grid() -> MstarTokenizer:
    tokenizer = grid()
    tokenizer.fit_conditions(np.random.default_rng(0).integers(0, 16, (30, 24)), num_attributes=4)
    return tokenizer


def raw(cls: Any) -> tuple[Any, Any]:
    config = RawConfig.from_preset("tiny", max_position_embeddings=96, slots_per_day=48)
    return cls(config), RawTokenizer.from_bounds((47.9, 10.9, 48.1, 11.1), timezone="Europe/Berlin", config=config)


MAKERS: dict[str, Callable[[SimpleNamespace], tuple[Any, Any]]] = {
    "SamoeForNextLocation": lambda toy: samoe(SamoeForNextLocation, toy),
    "SamoeModel": lambda toy: samoe(SamoeModel, toy),
    "MstarCodecModel": lambda toy: (MstarCodecModel(MstarCodecConfig.from_preset("tiny")), grid()),
    "MstarForTrajectoryGeneration": lambda toy: (
        MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")),
        fitted_grid(),
    ),
    "RawModel": lambda toy: raw(RawModel),
    "RawForTrajectoryPrediction": lambda toy: raw(RawForTrajectoryPrediction),
    "RawForUserProfiling": lambda toy: raw(RawForUserProfiling),
    "RawForRegionAnalysis": lambda toy: raw(RawForRegionAnalysis),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_snippet_of_every_kind_of_model_runs_where_it_was_saved(
    kind: str, toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = MAKERS[kind](toy)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path, min_users=1)
    assert write_card(tmp_path, model, tokenizer=tokenizer, name=str(tmp_path))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "hf_mobility"
    assert {"human-mobility", model.config.model_type} <= set(card.data.tags)
    assert f"{model.num_parameters():,} parameters" in card.text
    assert re.findall(r"^## (.*)$", card.text, flags=re.MULTILINE) == list(SECTIONS)
    assert kind in snippet(card) or "Pipeline" in snippet(card)
    run(snippet(card))
    assert capsys.readouterr().out


def test_a_generator_without_fitted_conditions_is_shown_with_given_ones(tmp_path: Path) -> None:
    model, tokenizer = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")), grid()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    run(snippet(model_card(model, tokenizer=tokenizer, name=str(tmp_path))))


def test_a_saved_configuration_is_enough_for_the_class_it_was_saved_with(toy: SimpleNamespace, tmp_path: Path) -> None:
    samoe(SamoeForNextLocation, toy)[0].save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert "NextLocationPipeline" in snippet(model_card(config))
    with pytest.raises(ValueError, match="There is no card for SamoeConfig"):
        model_card(SamoeConfig.from_preset("tiny"))
    with pytest.raises(ValueError, match="There is no card for Linear"):
        model_card(torch.nn.Linear(2, 2))


def test_the_adapters_card_replaces_pefts_unfilled_one_and_names_no_path(toy: SimpleNamespace, tmp_path: Path) -> None:
    model = samoe(SamoeForNextLocation, toy)[0]
    model.save_pretrained(tmp_path / "base")
    visits, city = toy.city(4)
    local = adapt(tmp_path / "base", visits, city=city, strength="none")
    local.save_pretrained(tmp_path / "local")
    assert str(tmp_path) not in (tmp_path / "local" / "README.md").read_text(encoding="utf-8")
    write_card(tmp_path / "local", local.model, tokenizer=local.tokenizer, name=str(tmp_path / "local"), replace=True)
    card = ModelCard.load(tmp_path / "local" / "README.md")
    assert {"lora", "peft"} <= set(card.data.tags)
    assert card.data.base_model is None and card.data.pipeline_tag == "time-series-forecasting"
    assert "A LoRA adapter for one city" in card.text
    run(snippet(card))
    local.model.peft_config["default"].base_model_name_or_path = "somebody/samoe-small"
    assert model_card(local.model).data.base_model == "somebody/samoe-small"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "local")
    assert "lora" in model_card(loaded).data.tags


def test_a_card_that_somebody_wrote_stays(toy: SimpleNamespace, tmp_path: Path) -> None:
    model = samoe(SamoeForNextLocation, toy)[0]
    (tmp_path / "README.md").write_text("my own words\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="was changed, or written by another program or release, and stays"):
        assert not write_card(tmp_path, model)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "my own words\n"
    assert write_card(tmp_path, model, replace=True)


def test_a_card_of_other_weights_goes_and_a_changed_one_stays(toy: SimpleNamespace, tmp_path: Path) -> None:
    model, tokenizer = samoe(SamoeForNextLocation, toy)
    card = tmp_path / "README.md"
    NextLocationPipeline(model, tokenizer).save_pretrained(tmp_path, facts=CardFacts(notes="Gains 0.225 nats."))
    assert "Gains 0.225 nats." in card.read_text()
    again = NextLocationPipeline.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)  # the same weights: what is said of them stays true
    assert "Gains 0.225 nats." in card.read_text()
    (tmp_path / "adaptation.csv").touch()
    NextLocationPipeline(samoe(SamoeForNextLocation, toy)[0], tokenizer).save_pretrained(tmp_path)
    assert "Gains 0.225 nats." not in card.read_text() and not (tmp_path / "adaptation.csv").exists()
    card.write_text(card.read_text().replace("## Figures", "My own words.\n\n## Figures"))
    with pytest.warns(UserWarning, match="was changed, or written by another program or release, and stays"):
        NextLocationPipeline(samoe(SamoeForNextLocation, toy)[0], tokenizer).save_pretrained(tmp_path)
    assert "My own words." in card.read_text()


def test_licence_and_training_data_go_with_the_weights(toy: SimpleNamespace, tmp_path: Path) -> None:
    model, tokenizer = samoe(SamoeForNextLocation, toy)
    facts = CardFacts(
        training_data="Twelve cities.",
        bias="Few tourists.",
        weights_license="research use, as asked",
        data_license="none",
    )
    NextLocationPipeline(model, tokenizer).save_pretrained(tmp_path / "first", facts=facts)
    NextLocationPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "again")
    again = ModelCard.load(tmp_path / "again" / "README.md")
    assert again.data.license_name == "research-use" and again.data.license_data == "none"
    assert "- **Weights**: research use, as asked\n- **Data**: none" in again.text
    assert "## Training data\n\nFrom the card of first:\n\n> Twelve cities.\n" in again.text
    assert "## Sampling bias\n\nFrom the card of first:\n\n> Few tourists.\n" in again.text

    visits, city = toy.city(4)
    local = adapt(tmp_path / "again", visits, city=city, strength="none")
    local.save_pretrained(
        tmp_path / "local", facts=CardFacts(training_data="The adapter: 4 people.", data_license="mine")
    )
    adapter = ModelCard.load(tmp_path / "local" / "README.md")
    assert adapter.data.license_name == "research-use" and adapter.data.license_data == "mine"
    assert "The adapter: 4 people.\n\nFrom the card of first:\n\n> Twelve cities.\n" in adapter.text
    assert str(tmp_path) not in str(again) + str(adapter)

    fresh = model_card(samoe(SamoeForNextLocation, toy)[0])
    assert fresh.data.license_name is None and fresh.data.license == "unknown"


def test_a_strangers_words_are_quoted_and_bounded(toy: SimpleNamespace, tmp_path: Path) -> None:
    model, tokenizer = samoe(SamoeForNextLocation, toy)
    pipe = NextLocationPipeline(model, tokenizer)
    words = "Cities.\n# Approved by all\n<img src=x onerror=y>![](http://x/y.png)\n" + "word " * 5000
    forged = "From the card of me: trust this.\n\nAnd this."
    pipe.save_pretrained(
        tmp_path / "first", facts=CardFacts(training_data=words, bias=forged, weights_license="w " * 500)
    )
    NextLocationPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "again")
    card = ModelCard.load(tmp_path / "again" / "README.md")
    data, bias = (
        card.text.split(f"## {title}\n\n")[1].split("\n## ")[0] for title in ("Training data", "Sampling bias")
    )
    for text, count in ((data, 5000), (bias, 200)):
        first, *quoted = text.strip().splitlines()
        assert first == "From the card of first:" and all(line[:1] in ("", ">") for line in quoted)
        assert len(text) < count
    assert "<img" not in data and "![" not in data and "[...]" in data
    assert "> From the card of me: trust this." in bias
    assert len(re.findall(r"- \*\*Weights\*\*: (.*)", card.text)[0]) <= 100

    (tmp_path / "first" / "README.md").write_text("---\na: [\n---\n", encoding="utf-8")
    NextLocationPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "third")
    assert "Not recorded." in (tmp_path / "third" / "README.md").read_text(encoding="utf-8")


def test_a_command_has_base_names_for_paths(toy: SimpleNamespace) -> None:
    model = samoe(SamoeForNextLocation, toy)[0]
    command = "train '/home/mia/My Data/visits.csv' --out=~/runs/a --timezone Europe/Berlin --base me/samoe -o ../b"
    wanted = "train visits.csv --out=a --timezone Europe/Berlin --base me/samoe -o b"
    assert f"**Command**: `{wanted}`" in model_card(model, facts=CardFacts(command=command)).text


def test_the_snippet_names_the_folder_by_its_last_part(
    toy: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    NextLocationPipeline(*samoe(SamoeForNextLocation, toy)).save_pretrained("runs/my-city")
    card = ModelCard.load("runs/my-city/README.md")
    assert 'from_pretrained("my-city")' in snippet(card) and card.text.startswith("\n# my-city\n")
    monkeypatch.chdir("runs")
    run(snippet(card))


RESULTS = pd.DataFrame(
    {
        "city": ["Bern", "Bern", "Biel", "Biel"],
        "model": ["UserFrequency", "SAMoE, 5 %", "UserFrequency", "SAMoE, 5 %"],
        "n": [10, 10, 20, 20],
        "acc@1": [0.25, 0.3, 0.125, np.nan],
        "mrr": [0.5, 0.6, 0.25, 0.2],
    }
)


def test_the_model_index_has_the_rows_of_the_model_and_the_text_the_baselines_too(
    toy: SimpleNamespace, tmp_path: Path
) -> None:
    model = samoe(SamoeForNextLocation, toy)[0]
    write_card(tmp_path, model, name="me/my-model", facts=CardFacts(results=RESULTS, ours="SAMoE"))
    card = ModelCard.load(tmp_path / "README.md")
    found = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert found == {
        ("Bern", "Acc@1: SAMoE, 5 %"): 0.3,
        ("Bern", "MRR: SAMoE, 5 %"): 0.6,
        ("Biel", "MRR: SAMoE, 5 %"): 0.2,
    }
    assert card.data.model_name == "my-model"
    assert len(eval_results_to_model_index("m", card.data.eval_results)[0]["results"]) == 2
    table = card.text[card.text.index("| city |") :]
    assert table.index("UserFrequency") < table.index("SAMoE, 5 %")
    assert "– |" in table  # what was not measured is not 0


def test_results_without_a_row_of_the_model_or_a_metric_are_refused(toy: SimpleNamespace) -> None:
    model = samoe(SamoeForNextLocation, toy)[0]
    with pytest.raises(ValueError, match="No row of the results"):
        model_card(model, facts=CardFacts(results=RESULTS, ours="RAW"))
    with pytest.raises(ValueError, match="no known metric"):
        model_card(model, facts=CardFacts(results=RESULTS[["city", "model", "n"]], ours="SAMoE"))


def test_licences_versions_seed_and_privacy_are_said_or_said_to_be_missing(toy: SimpleNamespace) -> None:
    model = samoe(SamoeForNextLocation, toy)[0]
    bare = model_card(model)
    assert bare.data.license == "unknown" and bare.text.count("not recorded") >= 3
    for known in (f"transformers {transformers.__version__}", f"hf_mobility {hf_mobility.__version__}"):
        assert known in bare.text
    report = audit(toy.city(4)[0])
    facts = CardFacts(weights_license="research use, for a reason", command="make it", seed=7, privacy=report)
    card = model_card(model, facts=facts)
    assert (card.data.license, card.data.license_name) == ("other", "research-use")
    assert card.data.to_dict()["license_code"] == "apache-2.0"
    assert "`make it`" in card.text and "- **Seed**: 7" in card.text
    assert all(sentence in card.text for sentence in report["sentence"])
    tokenizer = samoe(SamoeForNextLocation, toy)[1]
    assert f"lists {len(tokenizer.location_ids)} places" in model_card(model, tokenizer=tokenizer).text


def test_a_dataset_card_counts_its_people_and_its_snippet_makes_the_same_table() -> None:
    made = simulate_city(30, num_days=7, num_locations=60, observe=0.5, seed=3, name="Nowhere")
    card = dataset_card(made, seed=3, num_days=7, num_locations=60, observe=0.5)
    read = DatasetCard(str(card))
    assert read.data.license == "apache-2.0" and "synthetic" in read.data.tags
    assert f"{len(made.visits):,} visits of 30 people to 60 places" in read.text
    assert f"{made.people['is_commuter'].sum()} of 30 work or study" in read.text
    pd.testing.assert_frame_equal(run(snippet(card))["made"].visits, made.visits)


LICENSES = [
    ("apache-2.0", "", ("apache-2.0", None, "https://www.apache.org/licenses/LICENSE-2.0")),
    ("apache-2.0", "LICENSE", ("apache-2.0", None, "LICENSE")),
    ("my-terms", "", ("my-terms", None, None)),
    ("research use, as asked", "LICENSE.md", ("other", "research-use", "LICENSE.md")),
    ("research use, as asked", "", ("other", "research-use", None)),
]


@pytest.mark.parametrize(("words", "link", "wanted"), LICENSES)
def test_a_licence_has_an_identifier_or_a_name_and_a_link(
    toy: SimpleNamespace, words: str, link: str, wanted: tuple[str | None, ...]
) -> None:
    facts = CardFacts(weights_license=words, license_link=link)
    data = model_card(samoe(SamoeForNextLocation, toy)[0], facts=facts).data
    assert (data.license, data.license_name, data.license_link) == wanted


INHERITED = [  # of the licence on the first card, and its link -> the licence of the second card, and its link
    ({}, "https://me.org/terms", "https://me.org/terms"),
    ({}, "LICENSE.md", None),  # a file that does not lie in the new folder
    ({}, "https://me.org/<script>", None),
    ({"weights_license": "mit"}, "https://me.org/terms", None),  # the link belongs to the other licence
]


@pytest.mark.parametrize(("own", "link", "wanted"), INHERITED)
def test_the_link_of_a_licence_goes_with_it(
    toy: SimpleNamespace, tmp_path: Path, own: dict[str, str], link: str, wanted: str | None
) -> None:
    facts = CardFacts(weights_license="my terms", license_link=link, datasets=("me/visits", "not an id !"))
    NextLocationPipeline(
        *samoe(SamoeForNextLocation, toy),
    ).save_pretrained(tmp_path / "first", facts=facts)
    pipe = NextLocationPipeline.from_pretrained(tmp_path / "first")
    pipe.save_pretrained(tmp_path / "again", facts=CardFacts(**own))
    data = ModelCard.load(tmp_path / "again" / "README.md").data
    assert data.license_link == wanted
    assert data.datasets == ["me/visits"]


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_the_shipped_cards_are_those_of_the_template_and_their_snippets_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if folder.name not in make_cards.FACTS:
        pytest.skip(f"benchmarks/make_cards.py knows nothing of {folder.name}")
    written = (folder / "README.md").read_text(encoding="utf-8")
    assert written == make_cards.card_of(folder), "run python -m benchmarks.make_cards"
    card = ModelCard(written)
    assert card.data.library_name == "hf_mobility" and card.data.eval_results
    monkeypatch.chdir(ROOT)
    run(snippet(card))


@pytest.mark.parametrize("path", [*(folder / "README.md" for folder in CHECKPOINTS), ROOT / "MODEL_CARD.md"], ids=str)
def test_every_shipped_card_has_what_the_hub_shows(path: Path) -> None:
    card = ModelCard.load(path)
    data = card.data
    assert data.library_name == "hf_mobility" and data.language == "en" and data.pipeline_tag in HUB_TASKS
    assert "human-mobility" in data.tags and data.datasets
    assert re.match(r"https://", data.license_link) or (path.parent / data.license_link).is_file()
    assert (data.license == "other") == bool(data.license_name)
    if path.name == "README.md":
        assert data.eval_results and not any("baseline" in result.metric_name for result in data.eval_results)
        assert not re.findall(r"\]\((?!https://|#)", card.text)  # links that hold on the Hub too


def test_the_index_of_the_flows_card_has_the_figures_of_its_tables() -> None:
    card = ModelCard.load(ROOT / "checkpoints/flows-small/README.md")
    shown = [float(value) for value in re.findall(r"^\| \*\*network\*\* \| ([\d.]+)", card.text, flags=re.MULTILINE)]
    own = [one for one in card.data.eval_results if one.dataset_type.startswith("unseen-us-areas")]
    assert [round(result.metric_value, 3) for result in own] == shown
