"""The first run: a city nobody has trained on, from a table of visits to a table of results, a map and a saved folder.

    make demo        (or: python examples/demo.py --output runs/demo)

Uses the shipped checkpoint where it is present; else it trains a tiny model on simulated cities first. Where
HF_MOBILITY_DATA holds the open check-ins, the same steps run on a real city as well.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _open_data import CITIES, data_folder, open_checkins
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from transformers.utils import logging

from hf_mobility import (
    City,
    CityCorpus,
    ContextMix,
    MobilityTrainer,
    NextLocationPipeline,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    adapt,
    evaluate,
    make_task,
    simulate_cities,
    simulate_city,
    summarise,
    training_arguments,
)
from hf_mobility.baselines.count import UserFrequency, UserMarkov
from hf_mobility.plotting.pictures import plot_next_places

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "samoe-small"
SHOWN = ["model", "n", "acc@1", "acc@5", "acc@10", "mrr", "mrr_low", "mrr_high"]


def simulated(num_users: int) -> tuple[pd.DataFrame, City]:
    """A city whose people, homes and habits are made up, observed as sparsely as check-ins are."""
    made = simulate_city(num_users, num_days=56, num_locations=500, observe=0.3, seed=7, name="Simville")
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois, popularity_from=None)
    return made.visits, city


def real(name: str) -> tuple[pd.DataFrame, City]:
    visits = open_checkins(name)
    return visits, City.from_visits(visits, timezone=CITIES[name].timezone, name=name, popularity_from=None)


def tiny_checkpoint(folder: Path, num_users: int) -> Path:
    """A stand-in for the shipped checkpoint: a tiny model after one pass over three simulated cities."""
    config = SamoeConfig.from_preset("tiny")
    pairs = []
    for made in simulate_cities(3, num_users=num_users, num_days=28, seed=1):
        city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
        pairs.append((made.visits, SamoeTokenizer.from_city(city, config)))
    set_seed(0)
    model = SamoeForNextLocation(config)
    corpus = CityCorpus.from_visits(pairs)
    arguments = training_arguments(str(folder), num_train_epochs=1, save_strategy="no")
    MobilityTrainer(model, arguments, train_dataset=corpus, augment=True).train()
    model.save_pretrained(folder)
    return folder


def mix_weights(num_users: int) -> Any:
    """The context mix is tuned on other simulated cities, never on the one it is tested in."""
    tasks = []
    for made in simulate_cities(2, num_users=num_users, num_days=42, observe=0.3, seed=11):
        tasks.append(make_task(made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name)))
    return ContextMix.fit(tasks)


def run(visits: pd.DataFrame, city: City, checkpoint: Path, weights: Any, folder: Path) -> pd.DataFrame:
    task = make_task(visits, city)
    few = task.train_visits(0.05, seed=0)  # 5 % of the people
    local_city = city.with_popularity(few)
    base = NextLocationPipeline.from_pretrained(checkpoint, city=local_city, name="SAMoE, nothing tuned")
    local = adapt(base.model, local_city, few)
    adapted = NextLocationPipeline(local.model, local.tokenizer, name=f"SAMoE + LoRA on 5 % ({local.strength})")

    predictors = [UserFrequency(), UserMarkov(), ContextMix(weights, counts_from=few), base, adapted]
    table = summarise([evaluate(predictor, task) for predictor in predictors])
    print(f"\n{city.name}: {len(visits):,} visits, {len(city)} places, {len(few)} visits to adapt on; {local.reason}")
    print(table[SHOWN].round(3).to_string(index=False))

    local.save_pretrained(folder)
    table.to_csv(folder / "results.csv", index=False)
    history = visits[~task_rows(visits, task)]
    person = history["user_id"].value_counts().index[0]
    guesses = adapted.predict(history[history["user_id"] == person], top_k=5)
    plot_next_places(guesses, history, local_city, user=person).figure.savefig(folder / "map.png", dpi=120)
    return table


def task_rows(visits: pd.DataFrame, task: Any) -> np.ndarray:
    """Which rows of `visits` are targets of the task, bool (n,)."""
    hidden = task.visits[task.target]
    keys = ["user_id", "time", "location_id"]
    return pd.MultiIndex.from_frame(visits[keys]).isin(pd.MultiIndex.from_frame(hidden[keys]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--users", type=int, default=150, help="people of the simulated cities")
    parser.add_argument("--real", nargs="*", default=["calgary"], help="real cities, if HF_MOBILITY_DATA has them")
    options = parser.parse_args()
    logging.disable_progress_bar()
    start = time.perf_counter()

    checkpoint = options.checkpoint
    if not (checkpoint / "model.safetensors").is_file():
        print(f"no checkpoint at {checkpoint}: training a tiny one on simulated cities")
        checkpoint = tiny_checkpoint(options.output / "tiny", options.users)
    weights = mix_weights(options.users)
    folder = options.output / "simville"
    run(*simulated(options.users), checkpoint, weights, folder)
    for name in options.real:
        if (data_folder() / CITIES[name].file).is_file():
            run(*real(name), checkpoint, weights, options.output / name)
        else:
            print(f"\n{name}: HF_MOBILITY_DATA has no check-ins of it, so the real city is skipped")

    # What was saved is a plain adapter folder: the Auto classes load it, city included.
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    print(f"\nsaved {folder} (adapter, city, results.csv, map.png); loaded again: {type(model).__name__} in")
    print(f"{tokenizer.name}, {len(tokenizer.location_ids)} places. Done in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
