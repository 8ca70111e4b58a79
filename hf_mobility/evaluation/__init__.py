"""Evaluation: one ranking protocol for count tables and networks, the fidelity of generated weeks, and tables that show
the baselines first.
"""

from __future__ import annotations

from hf_mobility.evaluation.fidelity import fidelity, fidelity_report, hide_hours
from hf_mobility.evaluation.ranking import (
    PairedDifference,
    RankingResult,
    evaluate,
    new_place_mask,
    paired_difference,
    summarise,
)

__all__ = [
    "PairedDifference",
    "RankingResult",
    "evaluate",
    "fidelity",
    "fidelity_report",
    "hide_hours",
    "new_place_mask",
    "paired_difference",
    "summarise",
]
