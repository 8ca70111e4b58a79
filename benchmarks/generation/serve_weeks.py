"""Do generated weeks serve? An epidemic among them, and a next-location model that is trained on them.

    python -m benchmarks.generation.serve_weeks checkpoints/mstar-small --output benchmarks/generation/results/weeks_epidemic.csv

One week per user, as agents. The strength of the disease was set on training users, so that half of the agents fall ill.
`--next` writes how well a small transformer predicts the next place of unseen real users, trained on generated weeks, on
real ones, or on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.generation.made import Made, arguments, make
from benchmarks.tables import save_table
from hf_mobility.baselines import TransformerBaseline
from hf_mobility.data.tasks import NextLocationTask
from hf_mobility.evaluation import curve_error, epidemic_curves
from hf_mobility.evaluation.week_report import NOISE

EPOCHS, CONTEXT, WIDTH = 10, 32, 64
MONDAY = pd.Timestamp("2024-01-01", tz="UTC")


def real_samples(made: Made, draws: int) -> list[np.ndarray]:
    """As many training users as test weeks, one week each."""
    out = []
    for draw in range(draws):
        rows = np.random.default_rng(draw).permutation(made.weeks.train)
        rows = rows[np.sort(np.unique(made.weeks.users(rows), return_index=True)[1])]
        out.append(made.weeks.cells[rows[: len(made.rows)]])
    return out


def epidemics(made: Made, *, draws: int, runs: int, seed: int) -> pd.DataFrame:
    """One row per set of weeks: errors of its mean epidemic curve, mean and spread over draws."""
    real = epidemic_curves(made.real, runs=runs, seed=seed)
    rows = []
    for name, sets in {NOISE: real_samples(made, draws), **made.sets}.items():
        curves = [epidemic_curves(weeks, runs=runs, seed=seed + 1 + draw) for draw, weeks in enumerate(sets)]
        errors = pd.DataFrame([curve_error(real, curve) for curve in curves])
        spread = {f"{column}_sd": errors[column].std() for column in errors}
        rows.append(
            {"model": name, "agents": len(sets[0]), "draws": len(sets), "runs": runs, **errors.mean(), **spread}
        )
    return pd.DataFrame(rows)


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


def next_places(made: Made, *, draws: int, epochs: int) -> Iterator[dict[str, Any]]:
    """A row per training set and draw; the test weeks are the same in all."""
    cells = made.weeks.tokenizer.num_cells
    yield {"trained on": "nothing: back to the place before", "weeks": 0, "seed": 0, **returning(made.real)}
    real = real_samples(made, draws)
    synthetic = {name: sets for name, sets in made.sets.items() if name != "ResampledWeeks"}
    sets = {"real users": real, **synthetic}
    sets |= {
        f"real users and {name}": [np.concatenate(pair) for pair in zip(real, some)] for name, some in synthetic.items()
    }
    for name, some in sets.items():
        for draw, weeks in enumerate(some[:draws]):
            found = scored(task_of(weeks, made.real, cells), seed=draw, epochs=epochs)
            print(name, draw, found, flush=True)
            yield {"trained on": name, "weeks": len(weeks), "seed": draw, **found}


def main() -> None:
    parser = arguments(__doc__, number=900, draws=3)
    parser.add_argument("--runs", type=int, default=10, help="epidemics of each draw")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the next-location model")
    parser.add_argument("--next", help="where to write the table of the next-location model")
    parser.add_argument("--next-draws", type=int, default=2, help="of each training set, each with another seed")
    options = parser.parse_args()
    made = make(options, one_per_user=True)
    table = epidemics(made, draws=options.draws, runs=options.runs, seed=options.seed)
    print(table.round(3).to_string(index=False))
    if options.output:
        save_table(table, options.output)
    if options.next:
        rows = pd.DataFrame(list(next_places(made, draws=options.next_draws, epochs=options.epochs)))
        save_table(rows, options.next)


if __name__ == "__main__":
    main()
