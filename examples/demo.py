"""The first run: a city that the model has never seen, from a table of visits to results, a map and a saved folder.

    make demo                                                       # a simulated city
    python examples/demo.py --visits visits.parquet --timezone Europe/Paris

The table needs the columns user_id, time, location_id, lat, lon (and, if known, category and category_group).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from hf_mobility import (
    City,
    ContextMix,
    NextLocationPipeline,
    adapt,
    evaluate,
    make_task,
    simulate_city,
    summarize,
    validate_visits,
)
from hf_mobility.baselines import MixWeights, UserFrequency, UserMarkov
from hf_mobility.plotting import plot_next_places

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "samoe-small"
KNOWS = {  # predictor -> its words in the table, and what it knows beside the user's own past
    "UserFrequency": ("the user's commonest place", "nothing"),
    "UserMarkov": ("what mostly followed this place", "nothing"),
    "ContextMix, counts of 5 %": ("mix of ten count tables", "visits of 5 % of the users"),
    "ContextMix, all of the city": ("mix of ten count tables", "visits of all users"),
    "SAMoE, nothing tuned": ("samoe-small as it is", "map, visits of 5 % of the users"),
    "SAMoE + LoRA on 5 %": ("samoe-small, adapted", "map, visits of 5 % of the users"),
}
SIMULATED = """
This city is simulated: its users return to a few places by rule, so counting does well. In four real cities samoe-small
is level with the best count tables, and better for users with long histories: see README.md."""


def simulated(users: int) -> tuple[pd.DataFrame, City]:
    """A city whose users, homes and habits are made up, observed as sparsely as check-ins are."""
    made = simulate_city(users, num_days=56, num_locations=500, observe=0.3, seed=7, name="Simville")
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois, popularity_from=None)
    return made.visits, city


def readable(table: pd.DataFrame) -> str:
    """The table for a first look: means over users, best last."""
    rows = table.sort_values("user_acc@1")
    words, knows = zip(*(KNOWS[name.partition(" (")[0]] for name in rows["model"]))
    shown = pd.DataFrame({"predictor": words, "knows of the city": knows})
    for title, column in (("first guess right", "user_acc@1"), ("right among five", "user_acc@5")):
        shown[title] = [f"{share:.1%}" for share in rows[column]]
    widths = {title: shown[title].str.len().max() for title in ("predictor", "knows of the city")}
    left = {title: f"{{:<{width}}}".format for title, width in widths.items()}
    return shown.to_string(index=False, justify="left", formatters=left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", help="table of visits: Parquet or CSV; a simulated city by default")
    parser.add_argument("--timezone", default="UTC", help="of the table, an IANA name")
    parser.add_argument("--users", type=int, default=150, help="of the simulated city")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    options = parser.parse_args()
    logging.disable_progress_bar()
    start = time.perf_counter()

    if options.visits:
        visits = validate_visits(options.visits, timezone=options.timezone)
        city = City.from_visits(visits, timezone=options.timezone, name=Path(options.visits).stem, popularity_from=None)
    else:
        visits, city = simulated(options.users)
    task = make_task(visits, city)  # the last fifth of each user's visits are to be predicted
    few = task.train_visits(0.05, seed=0)  # what is known of 5 % of the users
    city = city.with_popularity(few)

    base = NextLocationPipeline.from_pretrained(CHECKPOINT, city=city, name="SAMoE, nothing tuned")
    local = adapt(base.model, few, city=city)
    adapted = NextLocationPipeline(local.model, local.tokenizer, name=f"SAMoE + LoRA on 5 % ({local.strength})")
    mix = ContextMix(MixWeights.shipped(0.05), few, name="ContextMix, counts of 5 %")
    baselines = [UserFrequency(), UserMarkov(), mix, ContextMix.for_task(task, name="ContextMix, all of the city")]
    table = summarize([evaluate(predictor, task) for predictor in (*baselines, base, adapted)])
    print(f"{city.name}: {visits['user_id'].nunique()} users, {len(city)} places, {len(visits):,} visits.")
    print(f"The last fifth of each user's visits is predicted. Adapted on {len(few)} visits: {local.reason}\n")
    print(readable(table))
    if not options.visits:
        print(SIMULATED)

    local.save_pretrained(options.output)
    table.to_csv(options.output / "results.csv", index=False)
    history = task.visits[~task.target]
    user = history["user_id"].value_counts().index[0]
    places = adapted.predict(history[history["user_id"] == user], top_k=5)
    plot_next_places(places, history, city, user=user).figure.savefig(options.output / "map.png", dpi=120)

    # What was saved is a plain adapter folder: the Auto classes load it, city included.
    model, tokenizer = (kind.from_pretrained(options.output) for kind in (AutoModelForCausalLM, AutoTokenizer))
    print(
        f"\nSaved {options.output} (adapter, city, results.csv, map.png) and loaded it again: {type(model).__name__} in"
    )
    print(f"{tokenizer.name}, {len(tokenizer.location_ids)} places. Done in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
