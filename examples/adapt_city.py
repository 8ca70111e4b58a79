"""Take a pre-trained model to a new city with a few percent of its visits, and save the adapter with the city.

    python examples/adapt_city.py checkpoints/samoe-small visits.parquet --timezone Europe/Paris --output my-city
    python examples/adapt_city.py checkpoints/samoe-small --simulate --output runs/simville --fraction 0.05

The table needs the columns user_id, time, location_id, lat, lon (and, if known, category and category_group).
"""

from __future__ import annotations

import argparse

from hf_mobility import (
    City,
    NextLocationPipeline,
    adapt,
    evaluate,
    make_task,
    simulate_city,
    summarise,
    validate_visits,
)
from hf_mobility.baselines.count import UserFrequency, UserMarkov


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("visits", nargs="?", help="Parquet or CSV")
    parser.add_argument("--simulate", action="store_true", help="a simulated city instead of a file")
    parser.add_argument("--users", type=int, default=200, help="people of the simulated city")
    parser.add_argument("--timezone", default="UTC", help="IANA name of the city's time zone")
    parser.add_argument("--fraction", type=float, default=0.05, help="share of people whose training visits are used")
    parser.add_argument("--strength", default="auto", choices=["auto", "none", "weak", "strong"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    if bool(options.visits) == options.simulate:
        parser.error("give either a file of visits or --simulate")

    if options.simulate:
        made = simulate_city(options.users, num_days=56, observe=0.3, seed=options.seed)
        visits, timezone = made.visits, made.timezone
    else:
        visits, timezone = validate_visits(options.visits, timezone=options.timezone), options.timezone
    city = City.from_visits(visits, timezone=timezone, popularity_from=None)
    task = make_task(visits, city)
    few = task.train_visits(options.fraction, seed=options.seed)
    city = city.with_popularity(few)

    local = adapt(options.checkpoint, few, city=city, strength=options.strength, seed=options.seed)
    if len(local.report):
        print(local.report.to_string(index=False))
    print(local.reason, f"{local.seconds:.1f} s", sep="\n")
    local.save_pretrained(options.output)

    rows = [
        UserFrequency(),
        UserMarkov(),
        NextLocationPipeline.from_pretrained(options.checkpoint, city=city, name="nothing tuned"),
        NextLocationPipeline.from_pretrained(options.output, name=f"adapted ({local.strength})"),
    ]
    print(summarise([evaluate(row, task) for row in rows]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
