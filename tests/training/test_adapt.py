"""Adaptation: the base stays as it is, and held-out people choose the strength."""

from __future__ import annotations

import copy
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel

from hf_mobility import (
    Adaptation,
    City,
    DataError,
    NextLocationPipeline,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    adapt,
    make_task,
)
from hf_mobility.data.sequences import CitySequences
from hf_mobility.data.tasks import split_visits
from hf_mobility.training.adapt import STRENGTHS, nll_by_person
from hf_mobility.training.adaptation import compare
from hf_mobility.training.corpus import TrainingCity

module = sys.modules["hf_mobility.training.adapt"]  # `hf_mobility.adapt` is the function
STRONG = STRENGTHS["strong"]
pytestmark = pytest.mark.usefixtures("short_strong")


def trained(adaptation: Adaptation) -> dict[str, torch.Tensor]:
    return {name: value for name, value in adaptation.model.named_parameters() if "lora_" in name}


# The base


def test_the_base_model_is_left_untouched(local: SimpleNamespace, toy: SimpleNamespace) -> None:
    base = toy.model()
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    attributes, config, modules = dict(vars(base)), base.config.to_dict(), [name for name, _ in base.named_modules()]
    implementation = base.config._attn_implementation
    adapted = adapt(base, local.visits, city=local.city, strength="strong", **local.small).model
    assert isinstance(adapted, PeftModel)
    assert adapted.get_base_model() is not base
    assert weights.keys() == base.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in base.state_dict().items())
    assert vars(base).keys() == attributes.keys()
    assert base.config.to_dict() == config
    assert [name for name, _ in base.named_modules()] == modules
    assert base.config._attn_implementation == implementation == adapted.config._attn_implementation
    assert all(parameter.requires_grad and parameter.grad is None for parameter in base.parameters())


def test_a_base_in_training_mode_stays_in_it_and_the_result_is_ready_to_predict(
    local: SimpleNamespace, toy: SimpleNamespace
) -> None:
    base = toy.model().train()
    adapted = adapt(base, local.visits, city=local.city, strength="weak", **local.small).model
    assert base.training
    assert not adapted.training


def test_the_base_may_be_given_by_its_folder(local: SimpleNamespace, tmp_path: Path) -> None:
    local.base.save_pretrained(tmp_path)
    by_folder = adapt(tmp_path, local.visits, city=local.city, strength="weak", **local.small)
    by_model = adapt(local.base, local.visits, city=local.city, strength="weak", **local.small)
    assert all(torch.equal(value, trained(by_model)[name]) for name, value in trained(by_folder).items())


def test_the_callers_frame_is_not_changed(local: SimpleNamespace) -> None:
    before = local.visits.copy(deep=True)
    adapt(local.base, local.visits, city=local.city, strength="weak", **local.small)
    pd.testing.assert_frame_equal(local.visits, before)


# Strengths


def test_no_strength_is_the_identity(local: SimpleNamespace) -> None:
    made = adapt(local.base, local.visits, city=local.city, strength="none", **local.small)
    assert made.strength == "none"
    tokenizer = SamoeTokenizer.from_city(local.city, local.base.config)
    own = local.logits(made.model, made.tokenizer, local.visits)
    assert torch.equal(own, local.logits(local.base, tokenizer, local.visits))


@pytest.mark.parametrize(("strength", "others"), [("weak", ()), ("strong", ("gate", "distance", "deep_up", "poi"))])
def test_only_lora_parameters_of_the_named_layers_change(
    local: SimpleNamespace, strength: str, others: tuple[str, ...]
) -> None:
    made = adapt(local.base, local.visits, city=local.city, strength=strength, **local.small)
    start = local.base.state_dict()
    changed = set()
    for name, value in made.model.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, start[name.replace(".base_layer", "")]), name
        elif "lora_B" in name and value.any():  # it starts at zero
            changed.add(name.split(".lora_B")[0].rpartition(".")[2])
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert changed == attention if strength == "weak" else changed >= attention | set(others)
    named = {name.split(".lora_")[0].rpartition(".")[2] for name in trained(made)}
    assert named <= set(STRENGTHS[strength].target_modules)
    own = local.logits(made.model, made.tokenizer, local.visits)
    assert not torch.allclose(own, local.logits(local.base, made.tokenizer, local.visits))


def test_the_strong_strength_reaches_every_head(local: SimpleNamespace) -> None:
    linear = {
        name.rpartition(".")[2]
        for name, module in local.base.named_modules()
        if isinstance(module, torch.nn.Linear) and name.split(".")[0] != "model"
    }
    assert linear - set(STRENGTHS["strong"].target_modules) <= {"stay_head", "head_weights", "activity"}


def test_adapting_on_a_city_improves_its_own_likelihood(local: SimpleNamespace) -> None:
    made = adapt(local.base, local.visits, city=local.city, strength=STRONG, **local.small)
    city = TrainingCity.build(CitySequences.from_visits(local.visits, made.tokenizer), made.tokenizer)
    before, after = (nll_by_person(model, city).sum(0) for model in (local.base, made.model))
    assert after[0] / after[1] < before[0] / before[1] - 0.05


def test_a_model_with_few_positions_is_adapted_on_windows_that_it_can_read(local: SimpleNamespace) -> None:
    columns = local.base.config.num_poi_features
    released = SamoeConfig.from_preset("tiny", variant="released", num_poi_features=columns, max_position_embeddings=6)
    made = adapt(SamoeForNextLocation(released), local.visits, city=local.city, strength="weak", tokens_per_batch=64)
    assert all(torch.isfinite(value).all() for value in trained(made).values())


def test_the_model_handed_out_computes_in_its_own_precision(local: SimpleNamespace) -> None:
    made = adapt(local.base, local.visits, city=local.city, strength="weak", **local.small)
    assert all(value.dtype == torch.float32 for value in made.model.state_dict().values())
    hidden = made.model.get_base_model().model(
        **{
            k: v
            for k, v in made.tokenizer(local.visits, padding=True, return_tensors="pt").items()
            if k != "timestamps"
        }
    )
    assert hidden.last_hidden_state.dtype == torch.float32
    alone = local.visits[local.visits["user_id"] == local.visits["user_id"][0]]
    whole = local.logits(made.model, made.tokenizer, local.visits)[0, -len(alone) :]
    # Autocast would be off by hundredths between a batch and one person.
    torch.testing.assert_close(local.logits(made.model, made.tokenizer, alone)[0], whole, atol=1e-4, rtol=1e-4)


def test_an_unknown_strength_is_named(local: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"strength must be 'auto' or one of \['none', 'strong', 'weak'\], got 'wild'"):
        adapt(local.base, local.visits, city=local.city, strength="wild")


def test_a_peft_model_is_no_base(local: SimpleNamespace, automatic: Adaptation) -> None:
    with pytest.raises(TypeError, match=r"must be a SamoeForNextLocation, .* or where to load one from, got PeftModel"):
        adapt(automatic.model, local.visits, city=local.city)


def test_visits_in_which_nobody_has_two_are_refused(local: SimpleNamespace) -> None:
    single = local.visits.groupby("user_id").head(1).reset_index(drop=True)
    for strength in ("auto", "weak"):
        with pytest.raises(ValueError, match="nobody in the training set has two visits"):
            adapt(local.base, single, city=local.city, strength=strength)


def test_unknown_places_are_an_error_unless_dropped(local: SimpleNamespace) -> None:
    visits = local.visits.assign(location_id=local.visits["location_id"].where(local.visits.index != 4, "elsewhere"))
    with pytest.raises(ValueError, match="elsewhere"):
        adapt(local.base, visits, city=local.city, strength="weak")
    kept = adapt(local.base, visits, city=local.city, strength="weak", unknown="drop", **local.small)
    same = adapt(local.base, visits.drop(index=4), city=local.city, strength="weak", **local.small)
    assert all(torch.equal(value, trained(same)[name]) for name, value in trained(kept).items())


def test_a_shrunk_adapter_adds_that_part_of_what_was_learned(local: SimpleNamespace, tmp_path: Path) -> None:
    whole, half = (replace(STRONG, epochs=2, shrink=factor) for factor in (1.0, 0.5))
    made = {}
    for name, strength in (("whole", whole), ("half", half)):
        made[name] = adapt(local.base, local.visits, city=local.city, strength=strength, **local.small)
        assert made[name].strength == "custom" and str(strength) in made[name].reason and made[name].report.empty
    start = local.base.state_dict()
    merged = {name: copy.deepcopy(found.model).merge_and_unload().state_dict() for name, found in made.items()}
    for name, value in merged["half"].items():
        torch.testing.assert_close(value - start[name], (merged["whole"][name] - start[name]) / 2, atol=1e-6, rtol=1e-4)
    made["half"].save_pretrained(tmp_path, base_model=str(tmp_path))
    again = PeftModel.from_pretrained(copy.deepcopy(local.base), tmp_path).merge_and_unload().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in merged["half"].items())


# The check of strengths by held-out people


@torch.no_grad()
def expected_nll(model: SamoeForNextLocation, city: Any, visits: pd.DataFrame, window: int = 16) -> float:
    """Mean of -ln p over visits with a past; each sees what lies before it in its window of the person's history."""
    tokenizer = SamoeTokenizer.from_city(city, model.config)
    losses = []
    for _, own in visits.groupby("user_id"):
        for start in range(0, len(own) - 1, window):
            inputs = tokenizer(own.iloc[start : start + window + 1], return_tensors="pt")
            if start:  # the first stay of a window is that of the whole history
                inputs["stay_ids"][0, 0] = tokenizer(own, return_tensors="pt")["stay_ids"][0, start]
            found = model(**inputs).logits[0, :-1].log_softmax(-1)
            losses += (-found.gather(-1, inputs["input_ids"][0, 1:, None])).flatten().tolist()
    return float(np.mean(losses))


def test_the_report_has_one_row_per_strength_and_chooses_by_gain_less_its_error(automatic: Adaptation) -> None:
    report = automatic.report
    assert report.columns.tolist() == ["strength", "nll_a", "nll_b", "nll", "gain", "gain_se", "chosen"]
    assert report["strength"].tolist() == ["none", "weak", "strong"]
    np.testing.assert_allclose(report["nll"], (report["nll_a"] + report["nll_b"]) / 2)
    assert report["chosen"].sum() == 1
    assert (report["gain"] - 2 * report["gain_se"]).argmax() == report["chosen"].argmax()
    assert report.loc[0, ["gain", "gain_se"]].tolist() == [0, 0]
    assert automatic.strength == report["strength"][report["chosen"]].item()
    assert automatic.strength in automatic.reason
    assert automatic.seconds > 0


def test_the_scores_without_adaptation_are_those_of_the_base_on_the_held_out_half(
    local: SimpleNamespace, automatic: Adaptation
) -> None:
    """Recomputed person by person; popularity is counted from the other half only."""
    users = np.unique(local.visits["user_id"])
    first, second = np.array_split(np.random.default_rng(5).permutation(len(users)), 2)
    row = automatic.report.set_index("strength").loc["none"]
    for tuned, scored, found in ((first, second, row["nll_a"]), (second, first, row["nll_b"])):
        tuned_on = local.visits[local.visits["user_id"].isin(users[tuned])]
        scored_on = local.visits[local.visits["user_id"].isin(users[scored])]
        expected = expected_nll(local.base, local.city.with_popularity(tuned_on), scored_on)
        assert found == pytest.approx(expected, abs=2e-5)
        leaky = expected_nll(local.base, local.city.with_popularity(local.visits), scored_on)
        assert abs(leaky - expected) > 1e-3, "the test would not see popularity of the held-out half"


def test_held_out_people_change_no_tuned_model(local: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tuned on one half is the same whatever the other half did."""

    def tuned_models(visits: pd.DataFrame) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        seen = []

        def score(model: Any, city: TrainingCity, **options: Any) -> np.ndarray:
            adapters = {n: v.detach().clone() for n, v in model.named_parameters() if "lora_" in n}
            seen.append((city.location_features, adapters))
            return np.ones((len(city.sequences.users), 2))

        monkeypatch.setattr(module, "nll_by_person", score)
        adapt(local.base, visits, city=local.city, seed=5, **local.small)
        return seen

    users = np.unique(local.visits["user_id"])
    second = users[np.array_split(np.random.default_rng(5).permutation(len(users)), 2)[1]]
    held_out = local.visits["user_id"].isin(second)
    places = local.visits["location_id"].where(~held_out, local.city.location_ids[0])
    before, after = tuned_models(local.visits), tuned_models(local.visits.assign(location_id=places))
    assert len(before) == len(after) == 6  # two directions of three strengths; the first are tuned on the first half
    for position in (0, 1, 2):
        assert torch.equal(before[position][0], after[position][0])
        adapters = after[position][1]
        assert all(torch.equal(value, adapters[name]) for name, value in before[position][1].items())
    assert not torch.equal(before[3][0], after[3][0])


def people(*nats: float) -> np.ndarray:
    """Scores of people with ten visits each."""
    return np.array([[value * 10, 10.0] for value in nats])


@pytest.mark.parametrize(
    ("strong", "chosen"),
    [
        ((0.9, 0.9, 0.9, 0.9), "strong"),  # a small gain, but everybody's
        ((0.2, 1.1, 1.1, 1.1), "none"),  # a larger mean gain that is one person's
        ((1.0, 1.0, 1.0, 1.0), "none"),  # a tie: the weaker wins
        ((1.3, 1.3, 1.3, 1.3), "none"),
    ],
)
def test_a_gain_counts_only_beyond_its_standard_error_over_people(
    local: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, strong: tuple[float, ...], chosen: str
) -> None:
    base = people(1.0, 1.0)
    scores = iter([base, base, people(*strong[:2]), base, base, people(*strong[2:])])
    monkeypatch.setattr(module, "nll_by_person", lambda *_, **__: next(scores))
    made = adapt(local.base, local.visits, city=local.city, **local.small)
    assert made.strength == chosen
    own, before = (local.logits(model, made.tokenizer, local.visits) for model in (made.model, local.base))
    assert torch.equal(own, before) == (chosen == "none") == ("identity" in made.reason)


def test_the_temperature_is_the_best_for_held_out_users(
    local: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def per_visit(model: Any, city: TrainingCity, **_: Any) -> np.ndarray:
        """A world in which 1.4 is right for the base model and 0.8 for what was tuned."""
        tuned = any(value.abs().sum() > 0 for name, value in model.named_parameters() if "lora_B" in name)
        nats = np.log(module.TEMPERATURES / (0.82 if tuned else 1.35)) ** 2
        return np.column_stack([np.tile(nats * 10, (5, 1)), np.full(5, 10)])

    monkeypatch.setattr(module, "nll_by_temperature", per_visit)
    for strong, wanted in ((0.5, 0.82), (1.5, 1.35)):
        scores = iter([people(1, 1), people(1, 1), people(strong, strong)] * 2)
        monkeypatch.setattr(module, "nll_by_person", lambda *_, scores=scores, **__: next(scores))
        made = adapt(local.base, local.visits, city=local.city, **local.small)
        assert made.tokenizer.temperature == pytest.approx(wanted, rel=0.01)
    assert adapt(local.base, local.visits, city=local.city, strength="none").tokenizer.temperature == 1.0


def test_a_temperature_must_gain_more_than_its_standard_error() -> None:
    side = np.resize([1.0, -1.0], (12, 1))  # half of the users gain where the others lose
    nats = np.log(module.TEMPERATURES / 1.22) ** 2  # a gain of 0.04 nats a visit at 1.22
    for apart, wanted in ((0.0, 1.22), (20.0, 1.0)):
        users = 10 * nats + apart * side * np.log(module.TEMPERATURES)
        halves = np.array_split(np.column_stack([users, np.full(12, 10)]), 2)
        assert module._best_temperature(halves) == pytest.approx(wanted, rel=0.01)


def test_temperatures_are_scored_on_the_places_that_followed(local: SimpleNamespace) -> None:
    tokenizer = SamoeTokenizer.from_city(local.city, local.base.config)
    city = TrainingCity.build(CitySequences.from_visits(local.visits, tokenizer), tokenizer)
    by_user, total = module.nll_by_temperature(local.base, city), nll_by_person(local.base, city)
    np.testing.assert_array_equal(by_user[:, -1], total[:, 1])
    by_temperature, total = by_user.sum(0), total.sum(0)[0]
    one = int(np.abs(module.TEMPERATURES - 1).argmin())
    assert module.TEMPERATURES[one] == pytest.approx(1) and by_temperature[one] == pytest.approx(total, rel=1e-5)
    tempered = SamoeTokenizer.from_city(local.city, local.base.config, temperature=module.TEMPERATURES[10])
    pipe, found = NextLocationPipeline(local.base, tempered), 0.0
    for _, own in local.visits.groupby("user_id"):
        task = make_task(own.reset_index(drop=True), local.city, test_fraction=0.99, min_visits=2)
        for rows, probabilities in pipe.probabilities(task):
            found -= np.log(probabilities[np.arange(len(rows)), task.location[rows]].astype(float)).sum()
    assert by_temperature[10] == pytest.approx(found, rel=1e-3)


def test_the_standard_error_is_that_of_a_ratio_of_sums() -> None:
    """By hand: three people with 1, 2 and 3 visits who gain 3, 2 and 1 nats in all."""
    none, weak = np.array([[5.0, 1], [5, 2], [5, 3]]), np.array([[2.0, 1], [3, 2], [4, 3]])
    report = compare({"none": [none[:1], none[1:]], "weak": [weak[:1], weak[1:]]})
    assert report["gain"][1] == pytest.approx(1.0)  # 6 nats over 6 visits
    assert report["gain_se"][1] == pytest.approx(np.sqrt(3 / 2 * (2**2 + 0**2 + 2**2)) / 6)


def test_fewer_than_four_people_get_the_weak_strength_and_are_told_so(local: SimpleNamespace) -> None:
    users = np.unique(local.visits["user_id"])
    three = local.visits[local.visits["user_id"].isin(users[:3])]
    made = adapt(local.base, three, city=local.city, **local.small)
    assert made.strength == "weak"
    assert "3 users with two visits are too few" in made.reason
    assert made.report.empty


def test_people_with_one_visit_do_not_count_as_people_to_check_on(local: SimpleNamespace) -> None:
    users = np.unique(local.visits["user_id"])
    position = local.visits.groupby("user_id").cumcount()
    few = local.visits[local.visits["user_id"].isin(users[:3]) | (position == 0)].reset_index(drop=True)
    assert adapt(local.base, few, city=local.city, **local.small).strength == "weak"
    enough = local.visits[local.visits["user_id"].isin(users[:4]) | (position == 0)].reset_index(drop=True)
    assert len(adapt(local.base, enough, city=local.city, **local.small).report) == 3


# Randomness


def test_the_callers_generators_are_left_as_they_were(local: SimpleNamespace) -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002 - the legacy state is what is tested
    torch.manual_seed(3)
    expected = (random.random(), np.random.random(), torch.rand(3))  # noqa: NPY002
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    adapt(local.base, local.visits, city=local.city, strength="weak", seed=7, **local.small)
    assert random.random() == expected[0]
    assert np.random.random() == expected[1]  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[2])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(local: SimpleNamespace, tmp_path: Path) -> None:
    local.base.save_pretrained(tmp_path / "base")
    files = []
    for number, seed in enumerate((1, 1, 2)):
        torch.rand(number)  # the state of the global generator plays no part
        made = adapt(tmp_path / "base", local.visits, city=local.city, strength="weak", seed=seed, **local.small)
        made.save_pretrained(tmp_path / str(number))
        files.append((tmp_path / str(number) / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


# Arguments


def test_the_old_order_of_arguments_is_accepted_with_a_warning(local: SimpleNamespace) -> None:
    with pytest.warns(FutureWarning, match=r"adapt\(model, visits, city=city\)"):
        old = adapt(local.base, local.city, local.visits, strength="none", **local.small)
    new = adapt(local.base, local.visits, city=local.city, strength="none", **local.small)
    assert np.array_equal(old.tokenizer.location_ids, new.tokenizer.location_ids)


def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(local: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"^device 'cuda:99' is not available here"):
        adapt("no/such", local.visits, city=local.city, strength="none", device="cuda:99")


def test_without_a_city_the_places_of_the_visits_are_the_city(local: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "there.csv"
    local.visits.rename(columns={"location_id": "venue"}).to_csv(path, index=False)
    made = adapt(local.base, path, timezone="Europe/Berlin", location_id="venue", strength="none")
    city = City.from_visits(local.visits, timezone="Europe/Berlin", name="there")
    assert made.tokenizer.city == city
    with pytest.raises(DataError, match="pass city=, or timezone="):
        adapt(local.base, local.visits, strength="none")


def test_what_is_left_out_for_the_evaluation_is_neither_trained_on_nor_counted(local: SimpleNamespace) -> None:
    made = adapt(local.base, local.visits, city=local.city, strength="weak", test_fraction=0.3, **local.small)
    known = split_visits(local.visits, test_fraction=0.3)[0]
    same = adapt(local.base, known, city=local.city.with_popularity(known), strength="weak", **local.small)
    assert np.array_equal(made.tokenizer.popularity, same.tokenizer.popularity)
    assert all(torch.equal(value, trained(same)[name]) for name, value in trained(made).items())
    assert made.history["step"].tolist()[0] == 1 and np.isfinite(made.history["loss"]).all()


def test_progress_names_each_strength_and_the_chosen_one_before_the_last_tuning(
    local: SimpleNamespace, automatic: Adaptation, capsys: pytest.CaptureFixture[str]
) -> None:
    adapt(local.base, local.visits, city=local.city, seed=5, progress=True, **local.small)
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith(("trying", "strength"))]
    assert told[:3] == [f"trying strength {name!r} on half 1 of the users" for name in STRENGTHS]
    assert told[-1] == f"strength: {automatic.strength}; {automatic.reason}"
