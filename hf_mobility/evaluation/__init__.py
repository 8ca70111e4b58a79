"""Evaluation: one ranking protocol for count tables and networks, generated and completed weeks, errors of predicted
trajectories, probes of embeddings, what visits and generated weeks give away about people, and tables that show the
baselines first.
"""

from __future__ import annotations

from .completion import completion_gaps, completion_report
from .epidemic import Disease, curve_error, epidemic_curves
from .fidelity import fidelity, hide_hours
from .groups import groups
from .membership import membership
from .privacy import audit
from .probes import probe_regions, probe_users
from .ranking import PairedDifference, RankingResult, evaluate, new_place_mask, paired_difference, summarize
from .roll_out import RollOut
from .trajectories import horizon_table, one_step_table
from .two_sample import two_sample_auc
from .user_pairs import pair_table
from .week_regularity import regularity
from .week_report import fidelity_report, week_report

__all__ = [
    "Disease",
    "PairedDifference",
    "RankingResult",
    "RollOut",
    "audit",
    "completion_gaps",
    "completion_report",
    "curve_error",
    "epidemic_curves",
    "evaluate",
    "fidelity",
    "fidelity_report",
    "groups",
    "hide_hours",
    "horizon_table",
    "membership",
    "new_place_mask",
    "one_step_table",
    "pair_table",
    "paired_difference",
    "probe_regions",
    "probe_users",
    "regularity",
    "summarize",
    "two_sample_auc",
    "week_report",
]
