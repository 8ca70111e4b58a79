"""Generated weeks user by user, beside the noise level and the rivals; and what they give away.

    python -m benchmarks.generation.evaluate_weeks checkpoints/mstar-cells-small --output benchmarks/generation/results/weeks_simulated.csv

`--pairs` writes how many training users have the home and second place of a week, `--members` how well the generated
weeks tell who was in the training. `--sets` does a part of the rows; the others of the file stay.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.generation.made import Made, arguments, make
from benchmarks.tables import save_table
from hf_mobility.evaluation import membership, pair_table, week_report
from hf_mobility.evaluation.week_report import NOISE, REAL, WEEK_COLUMNS

ATTACKED = 2_000  # weeks on each side, drawn by the seed


def members(made: Made, *, seed: int) -> pd.DataFrame:
    """One row per generator: the chance that a training user is nearer to its weeks than an unseen user is."""
    rng = np.random.default_rng(seed)
    inside, outside = (rng.permutation(part)[:ATTACKED] for part in (made.weeks.train, made.weeks.test))
    sides = {"members": made.weeks.cells[inside], "others": made.weeks.cells[outside]}
    users = {"member_users": made.weeks.users(inside), "other_users": made.weeks.users(outside)}
    rows = [{"model": name, **membership(draws[0], seed=seed, **sides, **users)} for name, draws in made.sets.items()]
    return pd.DataFrame(rows)


def report(made: Made, wanted: list[str], *, draws: int, seed: int) -> pd.DataFrame:
    """The rows of `week_report` of these sets; the noise level is drawn once where its row is not wanted."""
    table = week_report(
        {name: cells for name, cells in made.sets.items() if name in wanted},
        real=made.real,
        train=made.train,
        lat=made.weeks.tokenizer.lat,
        lon=made.weeks.tokenizer.lon,
        real_users=made.weeks.users(made.rows),
        train_users=made.weeks.users(made.weeks.train),
        draws=draws if NOISE in wanted else 1,
        seed=seed,
    )
    return table[table["model"].isin(wanted)]


def main() -> None:
    parser = arguments(__doc__, number=2_000, draws=3)
    parser.add_argument("--sets", nargs="*", help=f"names of generators, or {NOISE!r}; all by default")
    parser.add_argument("--pairs", help="where to write the table of pairs")
    parser.add_argument("--members", help="where to write the table of the attack")
    options = parser.parse_args()
    made = make(options)
    if unknown := set(options.sets or []) - {NOISE, REAL, *made.sets}:
        parser.error(f"no generator {sorted(unknown)}; there are {', '.join(made.sets)}")
    if options.members:
        save_table(members(made, seed=options.seed), options.members)
    if options.pairs:
        first = {"unseen users": made.real, **{name: draws[0] for name, draws in made.sets.items()}}
        save_table(pair_table(first, made.train, made.weeks.users(made.weeks.train)), options.pairs)
    if options.output:
        table = report(made, options.sets or [NOISE, REAL, *made.sets], draws=options.draws, seed=options.seed)
        print(table[["model", *WEEK_COLUMNS]].round(4).T.to_string())
        save_table(table, options.output, update=["model"] if options.sets else ())


if __name__ == "__main__":
    main()
