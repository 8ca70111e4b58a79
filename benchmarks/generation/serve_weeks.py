"""Does an epidemic spread in generated weeks as in real ones?

    python -m benchmarks.generation.serve_weeks checkpoints/mstar-cells-small --output benchmarks/generation/results/weeks_epidemic.csv

One week per user, as agents who meet where they are. The strength of the disease was set on training users, so that the
epidemic is over after eight weeks.
"""

from __future__ import annotations

import pandas as pd

from benchmarks.generation.made import Made, arguments, make, real_samples
from benchmarks.tables import save_table
from hf_mobility.evaluation import curve_error, epidemic_curves
from hf_mobility.evaluation.week_report import NOISE


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


def main() -> None:
    parser = arguments(__doc__, number=900, draws=3)
    parser.add_argument("--runs", type=int, default=10, help="epidemics of each draw")
    options = parser.parse_args()
    made = make(options, one_per_user=True)
    table = epidemics(made, draws=options.draws, runs=options.runs, seed=options.seed)
    print(table.round(3).to_string(index=False))
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
