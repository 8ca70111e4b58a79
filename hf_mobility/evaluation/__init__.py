"""Evaluation: one ranking protocol for count tables and networks, the fidelity of generated weeks, errors of predicted
trajectories, probes of embeddings, what visits and generated weeks give away about people, and tables that show the
baselines first.
"""

from __future__ import annotations

from .fidelity import fidelity, fidelity_report, hide_hours
from .groups import groups
from .privacy import audit
from .probes import probe_regions, probe_users
from .ranking import PairedDifference, RankingResult, evaluate, new_place_mask, paired_difference, summarize
from .trajectories import RollOut, horizon_table, one_step_table

__all__ = [
    "PairedDifference",
    "RankingResult",
    "RollOut",
    "audit",
    "evaluate",
    "fidelity",
    "fidelity_report",
    "groups",
    "hide_hours",
    "horizon_table",
    "new_place_mask",
    "one_step_table",
    "paired_difference",
    "probe_regions",
    "probe_users",
    "summarize",
]
