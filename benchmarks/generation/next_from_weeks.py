"""Does a next-location model learn from generated weeks what it needs for real users?

    python -m benchmarks.generation.next_from_weeks checkpoints/mstar-cells-small --output benchmarks/generation/results/weeks_next.csv

A small transformer is trained on generated weeks, on real ones, or on both, one week per user, and predicts the next
places of test users. `--sets` and `--seeds` do a part of the rows; the others of the file stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.generation.made import Made, arguments, make, real_samples
from benchmarks.tables import GrowingTable
from hf_mobility.baselines import TransformerBaseline
from hf_mobility.data.tasks import NextLocationTask

EPOCHS, CONTEXT, WIDTH = 10, 32, 64
MONDAY = pd.Timestamp("2024-01-01", tz="UTC")
NOTHING, REAL = "nothing: back to the place before", "real users"


def visits_of(weeks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Week, hour of arrival and cell of every stay."""
    starts = np.ones(weeks.shape, dtype=bool)
    starts[:, 1:] = weeks[:, 1:] != weeks[:, :-1]
    week, hour = np.nonzero(starts)
    return week, hour, weeks[week, hour].astype(np.int64)


def task_of(train: np.ndarray, test: np.ndarray, cells: int) -> NextLocationTask:
    """Weeks as users: every stay of a test week but its first is to be predicted, and nothing else of it is learned."""
    week, hour, place = visits_of(np.concatenate([train, test]))
    first = np.append(True, week[1:] != week[:-1])
    city = SimpleNamespace(location_ids=np.arange(cells).astype(str), timezone="UTC")
    visits = pd.DataFrame({"user_id": week, "time": MONDAY + pd.to_timedelta(hour, unit="h")})
    return NextLocationTask(city, visits, place, week, (week >= len(train)) & ~first)


def scored(task: NextLocationTask, *, seed: int, epochs: int) -> dict[str, float]:
    """Accuracy and mean reciprocal rank over the targets."""
    model = TransformerBaseline(context=CONTEXT, width=WIDTH, user_embedding=False)
    model.fit(task, seed=seed, epochs=epochs, refit=False)
    rank: list[np.ndarray] = []
    for rows, chances in model.probabilities(task):
        own = chances[np.arange(len(rows)), task.location[rows]]
        rank.append(1 + (chances > own[:, None]).sum(axis=1))
    ranks = np.concatenate(rank)
    return {"acc@1": float((ranks == 1).mean()), "mrr": float((1 / ranks).mean())}


def returning(test: np.ndarray) -> dict[str, float]:
    """The rival without any training: back to the place before; home's cell is not known to it."""
    week, _, place = visits_of(test)
    second = (week[2:] == week[1:-1]) & (week[1:-1] == week[:-2])
    targets = int((week[1:] == week[:-1]).sum())
    return {"acc@1": float((second & (place[2:] == place[:-2])).sum() / targets), "mrr": float("nan")}


def training_sets(made: Made, draws: int) -> dict[str, list[np.ndarray]]:
    """name -> draws: real weeks, those of each generator, and both together."""
    real = real_samples(made, draws)
    synthetic = {name: sets for name, sets in made.sets.items() if name != "ResampledWeeks"}
    both = {
        f"{REAL} and {name}": [np.concatenate(pair) for pair in zip(real, some)] for name, some in synthetic.items()
    }
    return {REAL: real, **synthetic, **both}


def rows_of(
    made: Made, sets: dict[str, list[np.ndarray]], seeds: list[int], *, epochs: int
) -> Iterator[dict[str, Any]]:
    """One row per training set and seed, whose draw it is trained on; the test weeks are the same in all."""
    yield {"trained on": NOTHING, "weeks": 0, "seed": 0, **returning(made.real)}
    for name, some in sets.items():
        for seed in seeds:
            task = task_of(some[seed], made.real, made.weeks.tokenizer.num_cells)
            yield {"trained on": name, "weeks": len(some[seed]), "seed": seed, **scored(task, seed=seed, epochs=epochs)}


def main() -> None:
    parser = arguments(__doc__, number=900, draws=2)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--sets", nargs="*", help="names of training sets; all by default")
    parser.add_argument("--seeds", type=int, nargs="*", help="each with the draw of its number; all by default")
    options = parser.parse_args()
    made = make(options, one_per_user=True)
    sets = training_sets(made, options.draws)
    if unknown := set(options.sets or []) - set(sets):
        parser.error(f"no training set {sorted(unknown)}; there are {', '.join(sets)}")
    chosen = {name: draws for name, draws in sets.items() if not options.sets or name in options.sets}
    table = GrowingTable(["trained on", "weeks", "seed", "acc@1", "mrr"], options.output, update=["trained on", "seed"])
    for row in rows_of(made, chosen, options.seeds or list(range(options.draws)), epochs=options.epochs):
        table.add(pd.DataFrame([row]))


if __name__ == "__main__":
    main()
