"""`MobilityTrainer` is the Trainer: it learns, accumulates, resumes, evaluates and distributes like one, exactly."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_mobility import (
    CityCorpus,
    MobilityTrainer,
    SamoeForNextLocation,
    SamoeTokenizer,
    VisitCollator,
    training_arguments,
)
from hf_mobility.data.sequences import CitySequences, visits_to_dataset
from hf_mobility.training.corpus import CityBatchSampler

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def corpus(toy: SimpleNamespace) -> CityCorpus:
    return toy.corpus(toy.city(24, seed=1), toy.city(18, seed=2), config=toy.model().config)


def trainer_for(
    model: SamoeForNextLocation, folder: Path, *, callbacks: list[TrainerCallback] | None = None, **options: Any
) -> MobilityTrainer:
    """fp32, nothing saved and quiet unless the arguments say otherwise."""
    own = ("train_dataset", "eval_dataset", "tokens_per_batch", "window", "window_rule", "augment", "max_candidates")
    collating = {name: options.pop(name) for name in (*own, "sampled_candidates") if name in options}
    settings = {"bf16": False, "use_cpu": True, "logging_strategy": "no", "save_strategy": "no", **options}
    return MobilityTrainer(model, training_arguments(str(folder), **settings), callbacks=callbacks, **collating)


def weights(model: SamoeForNextLocation) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_near(first: Weights, second: Weights, *, atol: float) -> None:
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


# Learning


def test_the_loss_goes_down(toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path) -> None:
    trainer = trainer_for(
        toy.model(spread=None),
        tmp_path,
        train_dataset=corpus,
        tokens_per_batch=128,
        num_train_epochs=6,
        learning_rate=1e-2,
        warmup_steps=2,
        logging_strategy="epoch",
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.5


def test_bf16_autocast_trains_and_leaves_fp32_weights(toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path) -> None:
    model = toy.model(spread=None)
    start = weights(model)
    options = {"bf16": True, "num_train_epochs": 1, "logging_strategy": "no", "use_cpu": True}
    arguments = training_arguments(str(tmp_path), **options)
    result = MobilityTrainer(model, arguments, train_dataset=corpus, tokens_per_batch=256).train()
    assert np.isfinite(result.training_loss)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in model.state_dict().values())
    assert any(not torch.equal(value, start[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_the_default_where_the_processor_computes_in_it(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_mobility.training.presets.fast_bfloat16", lambda device: fast)
    assert training_arguments(str(tmp_path), use_cpu=True).bf16 is fast
    assert training_arguments(str(tmp_path), use_cpu=True, bf16=not fast).bf16 is not fast


def test_augmentation_and_sampled_candidates_are_passed_on(
    toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path
) -> None:
    options = {"augment": True, "max_candidates": 10, "sampled_candidates": 5}
    trainer = trainer_for(toy.model(), tmp_path, train_dataset=corpus, eval_dataset=corpus, **options)
    training = next(iter(trainer.get_train_dataloader()))
    assert (training["candidate_log_weights"] > 0).sum() == 5
    evaluation = next(iter(trainer.get_eval_dataloader()))
    assert "candidate_log_weights" not in evaluation
    assert any(torch.equal(evaluation["location_features"], city.location_features) for city in corpus.cities)


def test_worker_processes_make_the_same_batches(toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path) -> None:
    made = []
    for workers in (0, 1):
        options = {"augment": True, "tokens_per_batch": 512, "dataloader_num_workers": workers}
        made.append(list(trainer_for(toy.model(), tmp_path, train_dataset=corpus, **options).get_train_dataloader()))
    for here, there in zip(*made, strict=True):
        assert here.keys() == there.keys()
        assert all(torch.equal(here[name], there[name]) for name in here)


# The same step, cut in other ways

LENGTHS = [3] * 20 + [10] * 6 + [20] * 3 + [30] * 2  # at 60 tokens: four batches with 40, 54, 57 and 58 targets


def uneven_corpus(toy: SimpleNamespace) -> CityCorpus:
    """People of `LENGTHS` visits."""
    visits, city = toy.city(60, num_days=21)
    sizes = visits.groupby("user_id").size().sort_values()
    users = sizes.index[-len(LENGTHS) :]
    wanted = dict(zip(users, LENGTHS))
    visits = visits[visits["user_id"].isin(users)]
    keep = visits.groupby("user_id").cumcount() < visits["user_id"].map(wanted)
    corpus = toy.corpus((visits[keep].reset_index(drop=True), city), config=toy.model().config)
    assert sorted(np.diff(corpus.cities[0].sequences.offsets).tolist()) == LENGTHS
    return corpus


def whole_histories(sequences: CitySequences, rng: np.random.Generator) -> np.ndarray:
    return np.stack([sequences.offsets[:-1], sequences.offsets[1:]], axis=1)


# Plain SGD without clipping: Adam would hide a gradient that is wrong by a factor.
SGD = {"optim": "sgd", "learning_rate": 0.2, "weight_decay": 0.0, "max_grad_norm": 0.0, "warmup_steps": 0}


def test_four_accumulated_batches_are_one_large_batch(toy: SimpleNamespace, tmp_path: Path) -> None:
    corpus = uneven_corpus(toy)
    sampler = CityBatchSampler(corpus, tokens_per_batch=60, window_rule=whole_histories)
    assert len({sum(key.stop - key.start - 1 for key in keys) for keys in sampler}) == len(sampler) == 4
    results = []
    for tokens, accumulation in ((10_000, 1), (60, 4)):
        model = toy.model()
        trainer = trainer_for(
            model,
            tmp_path,
            train_dataset=corpus,
            tokens_per_batch=tokens,
            window_rule=whole_histories,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=3,
            **SGD,
        )
        trainer.train()
        assert trainer.state.global_step == 3
        results.append(weights(model))
    assert max(float((results[0][n] - v).abs().max()) for n, v in weights(toy.model()).items()) > 1e-2
    assert_near(results[0], results[1], atol=1e-5)


SCRIPT = """
import sys, torch
from pathlib import Path
from hf_mobility import CityCorpus, MobilityTrainer, SamoeForNextLocation, SamoeTokenizer, training_arguments
from hf_mobility import City, simulate_city

base, folder, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = SamoeForNextLocation.from_pretrained(base)
pairs = []
for seed in (1, 2):
    made = simulate_city(14, num_days=7, num_locations=60, observe=0.5, seed=seed)
    city = City.from_visits(made.visits, timezone=made.timezone, pois=made.pois)
    pairs.append((made.visits, SamoeTokenizer.from_city(city, model.config)))
corpus = CityCorpus.from_visits(pairs)
arguments = training_arguments(
    folder + "/state", num_train_epochs=2, optim="sgd", learning_rate=0.2, weight_decay=0.0, max_grad_norm=0.0,
    warmup_steps=0, bf16=False, use_cpu=True, logging_strategy="no", save_strategy="no",
)
assert arguments.world_size == processes, arguments.world_size
# 60 tokens hold single windows, too, of which the second process gets none.
trainer = MobilityTrainer(model, arguments, train_dataset=corpus, eval_dataset=corpus, tokens_per_batch=60)
trainer.train()
loss = trainer.evaluate()["eval_loss"]
if trainer.is_world_process_zero():
    model.save_pretrained(folder)
    Path(folder, "eval_loss.txt").write_text(str(loss))
"""


@pytest.mark.slow
def test_two_processes_are_one(
    toy: SimpleNamespace,
    tmp_path: Path,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, script = tmp_path / "base", tmp_path / "script.py"
    toy.model().save_pretrained(base)
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), str(base), str(tmp_path / "one"), "1"])
    runpy.run_path(str(script))
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone")
    run_python(*launcher, str(script), str(base), str(tmp_path / "two"), "2")
    one, two, start = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "base"))
    assert max(float((one[name] - start[name]).abs().max()) for name in start) > 1e-2
    assert_near(one, two, atol=1e-5)
    losses = [float((tmp_path / name / "eval_loss.txt").read_text()) for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


# Resuming


class StopAt(TrainerCallback):
    """A crash, as seen by the Trainer."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_very_same_weights(
    toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path
) -> None:
    options = {
        "train_dataset": corpus,
        "tokens_per_batch": 128,
        "window": 12,
        "augment": True,
        "max_candidates": 10,
        "sampled_candidates": 8,
        "num_train_epochs": 3,
        "bf16": True,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    whole = toy.model(spread=None)
    trainer = trainer_for(whole, tmp_path / "whole", **options)
    trainer.train()
    steps_per_epoch = trainer.state.max_steps // 3
    assert steps_per_epoch > 5, "the checkpoint should lie within an epoch"

    stop = steps_per_epoch + 3 + (-steps_per_epoch - 2) % 4  # after a checkpoint in the second epoch
    with pytest.raises(KeyboardInterrupt):
        trainer_for(toy.model(spread=None), tmp_path / "cut", callbacks=[StopAt(stop)], **options).train()
    resumed = toy.model(seed=9, spread=None)
    trainer = trainer_for(resumed, tmp_path / "cut", **options)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == trainer.state.max_steps
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


# Evaluation


@torch.no_grad()
def loss_by_person(model: SamoeForNextLocation, visits: Any, tokenizer: SamoeTokenizer) -> tuple[float, int]:
    """Sum over all visits with a past of -ln p(place) + weight x (-ln p(stay class)), one person at a time; and how
    many there are."""
    total, count = 0.0, 0
    for _, own in visits.groupby("user_id"):
        inputs = tokenizer(own, return_tensors="pt")
        output = model(**inputs)
        places = output.logits[0, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][0, 1:, None])
        stays = F.cross_entropy(output.stay_logits[0, :-1], inputs["stay_ids"][0, 1:], reduction="sum")
        total += float(-places.sum() + model.config.stay_loss_weight * stays)
        count += len(own) - 1
    return total, count


@pytest.mark.parametrize("tokens_per_batch", [64, 100_000])
def test_the_evaluation_loss_is_the_mean_over_visits(
    toy: SimpleNamespace, tmp_path: Path, tokens_per_batch: int
) -> None:
    model = toy.model()
    cities = [toy.city(9, seed=1), toy.city(3, seed=2)]
    corpus = toy.corpus(*cities, config=model.config)
    trainer = trainer_for(model, tmp_path, eval_dataset=corpus, tokens_per_batch=tokens_per_batch)
    measured = trainer.evaluate()["eval_loss"]
    sums = [loss_by_person(model, visits, SamoeTokenizer.from_city(city, model.config)) for visits, city in cities]
    assert measured == pytest.approx(sum(s for s, _ in sums) / sum(n for _, n in sums), rel=1e-5)


def test_several_evaluation_sets_are_reported_by_name(toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path) -> None:
    parts = {"first": CityCorpus(corpus.cities[:1]), "second": CityCorpus(corpus.cities[1:])}
    metrics = trainer_for(toy.model(), tmp_path, eval_dataset=parts).evaluate()
    alone = trainer_for(toy.model(), tmp_path, eval_dataset=parts["second"]).evaluate()
    assert metrics["eval_second_loss"] == pytest.approx(alone["eval_loss"], rel=1e-6)
    assert metrics["eval_first_loss"] != metrics["eval_second_loss"]


# What is refused


def test_a_data_set_of_another_kind_is_refused(toy: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"train_dataset must be a CityCorpus, got list; see CityCorpus\.from_visits"):
        trainer_for(toy.model(), tmp_path, train_dataset=[1, 2])
    with pytest.raises(TypeError, match="eval_dataset must be a CityCorpus, got list"):
        trainer_for(toy.model(), tmp_path, eval_dataset=[1, 2]).evaluate()


def test_training_and_evaluation_say_which_data_they_miss(toy: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a train_dataset"):
        trainer_for(toy.model(), tmp_path).train()
    with pytest.raises(ValueError, match="needs an eval_dataset"):
        trainer_for(toy.model(), tmp_path).evaluate()


def test_an_unknown_preset_is_refused_and_fields_may_be_overridden(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown preset 'finetune'; choose one of"):
        training_arguments(str(tmp_path), preset="finetune")
    arguments = training_arguments(str(tmp_path), preset="adapt", learning_rate=0.5, bf16=False)
    assert (arguments.learning_rate, arguments.bf16, arguments.warmup_steps) == (0.5, False, 5)


# Label smoothing


def test_label_smoothing_is_over_the_places(toy: SimpleNamespace, corpus: CityCorpus, tmp_path: Path) -> None:
    def evaluated(smoothing: float) -> float:
        smoothed = trainer_for(model, tmp_path, eval_dataset=corpus, label_smoothing_factor=smoothing)
        return smoothed.evaluate()["eval_loss"]

    model = toy.model(spread=None)
    plain, some, all_of_it = (evaluated(share) for share in (0.0, 0.25, 1.0))
    assert np.isfinite(all_of_it) and abs(all_of_it - plain) > 1e-3
    np.testing.assert_allclose(some, 0.75 * plain + 0.25 * all_of_it, rtol=1e-5)

    options = {"num_train_epochs": 2, "learning_rate": 1e-2, "logging_strategy": "epoch"}
    trainer = trainer_for(model, tmp_path, train_dataset=corpus, label_smoothing_factor=0.1, **options)
    trainer.train()
    first, last = (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert last < first and all(torch.isfinite(weight).all() for weight in model.parameters())


def test_a_plain_trainer_refuses_to_smooth_labels(toy: SimpleNamespace, tmp_path: Path) -> None:
    visits, city = toy.city(24)
    model = toy.model(spread=None)
    tokenizer = SamoeTokenizer.from_city(city, model.config)
    dataset = visits_to_dataset(visits, tokenizer, max_length=16)
    arguments = TrainingArguments(str(tmp_path), label_smoothing_factor=0.1, use_cpu=True, report_to="none")
    trainer = Trainer(model, arguments, train_dataset=dataset, data_collator=VisitCollator(tokenizer))
    with pytest.raises(ValueError, match="smooth with MobilityTrainer"):
        trainer.train()


# Without MobilityTrainer


def test_a_plain_trainer_learns_one_city_from_a_dataset(toy: SimpleNamespace, tmp_path: Path) -> None:
    visits, city = toy.city(24)
    model = toy.model(spread=None)
    tokenizer = SamoeTokenizer.from_city(city, model.config)
    dataset, collate = visits_to_dataset(visits, tokenizer, max_length=16), VisitCollator(tokenizer)
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=8,
        num_train_epochs=6,
        learning_rate=1e-2,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    everything = collate(list(dataset))
    before = float(model(**everything).loss.detach())
    Trainer(model, arguments, train_dataset=dataset, data_collator=collate).train()
    assert float(model.eval()(**everything).loss.detach()) < before - 0.2
