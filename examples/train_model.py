"""Train SAMoE on several cities, save it, and evaluate it in a city that it has not seen.

    python examples/train_model.py                # two simulated cities, a few steps
    python examples/train_model.py 600 my-samoe   # longer

Tables of your own: a list of pairs (table of visits, time zone) in place of `cities`.
"""

from __future__ import annotations

import sys

from hf_mobility import City, evaluate_checkpoint, simulate_cities, simulate_city, train


def main(steps: str = "60", output: str = "runs/my-samoe") -> None:
    cities = [
        (made.visits, City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois))
        for made in simulate_cities(2, num_users=100, num_days=28, observe=0.4, seed=1)
    ]
    trained = train("samoe", cities, size="tiny", steps=int(steps), seed=0, progress=True)
    trained.save_pretrained(output)
    print(trained.history.tail(3).to_string(index=False))

    other = simulate_city(80, num_days=28, observe=0.4, seed=9, name="Elsewhere")
    city = City.from_visits(other.visits, timezone=other.timezone, name=other.name, pois=other.pois)
    table = evaluate_checkpoint(output, other.visits, city=city, seed=0)  # baselines first
    print(table[table.attrs["main"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
