"""Adapt SAMoE to a new city with 5 % of its users' visits, and save adapter and city in one folder.

    python examples/adapt_city.py                                          # a simulated city
    python examples/adapt_city.py visits.parquet Europe/Paris my-city      # a table, its time zone, the folder to write

The table needs the columns user_id, time, location_id, lat, lon (and, if known, category and category_group).
"""

from __future__ import annotations

import sys
from pathlib import Path

from hf_mobility import (
    City,
    NextLocationPipeline,
    adapt,
    evaluate,
    make_task,
    simulate_city,
    summarize,
    validate_visits,
)
from hf_mobility.baselines import UserFrequency, UserMarkov

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "samoe-small"


def main(table: str | None = None, timezone: str = "UTC", output: str = "runs/my-city") -> None:
    if table is None:
        made = simulate_city(200, num_days=56, observe=0.3, seed=0)
        visits, timezone = made.visits, made.timezone
    else:
        visits = validate_visits(table, timezone=timezone)

    # Every place of the table is listed; how popular a place is, the few known visits tell.
    city = City.from_visits(visits, timezone=timezone, popularity_from=None)
    task = make_task(visits, city)  # the last fifth of each user's visits are to be predicted
    few = task.train_visits(0.05, seed=0)
    city = city.with_popularity(few)

    local = adapt(CHECKPOINT, few, city=city)
    print(local.reason)  # the strength of the adapter is chosen on held-out users of `few`
    local.save_pretrained(output)

    models = [
        UserFrequency(),
        UserMarkov(),
        NextLocationPipeline.from_pretrained(CHECKPOINT, city=city, name="SAMoE, nothing tuned"),
        NextLocationPipeline.from_pretrained(output, name=f"SAMoE, adapted ({local.strength})"),
    ]
    print(summarize([evaluate(model, task) for model in models]).round(3).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
