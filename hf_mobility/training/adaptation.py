"""What an adaptation is and how strengths are compared, for every system."""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from ..data.frames import as_visits
from ..data.io.records import as_records, name_of
from ..data.training_record import TrainingRecord
from ..hub.card_facts import CardFacts, with_rare_places
from ..tokenization.city import City
from ..tokenization.city_files import MIN_USERS
from ..tokenization.errors import DataError
from .result import Trained

NO_REPORT = pd.DataFrame(columns=["strength", "nll_a", "nll_b", "nll", "gain", "gain_se", "chosen"])
MARGIN = 2.0  # standard errors by which a strength must gain


@dataclass(frozen=True, kw_only=True)
class Adaptation(Trained):
    """What `adapt` returns.

    model: PEFT model around a copy of the base. tokenizer: the city. strength: what was used. reason: one sentence.
    report: one row per strength tried: `nll_a`, `nll_b` (negative log-likelihood per visit, of RAW per record and of
        weeks per code, on the half that was not tuned on), `nll` (their mean), `gain` over no adaptation (nats per
        visit of all users), `gain_se` (its standard error over users) and `chosen`.
    history, seconds, notes, facts, record: see `Trained`.
    """

    strength: str
    report: pd.DataFrame
    reason: str

    @classmethod
    def of(
        cls,
        adapted: Any,
        tokenizer: Any,
        history: pd.DataFrame,
        *,
        choice: tuple[pd.DataFrame, str, str],
        visits: pd.DataFrame,
        learned: str,
        earlier: TrainingRecord | None,
        split: dict[str, Any],
        start: float,
    ) -> Adaptation:
        """What was tuned, with the facts for its card and the record of what it was tuned on.

        Args:
            choice: report, strength and reason.
            visits: training visits or points; `learned` says how many there were. earlier: record of the base.
            split: `system`, `test_fraction` and `seed`.
            start: `time.perf_counter()` at the beginning.
        """
        report, chosen, reason = choice
        training_data = f"The adapter: {learned}."
        facts = {"training_data": training_data, "seed": split["seed"]}
        if "location_id" in visits and split["system"] != "raw":  # whose city lists no place
            facts["privacy"] = with_rare_places([visits])
        return cls(
            model=adapted.eval(),
            tokenizer=tokenizer,
            history=history,
            seconds=time.perf_counter() - start,
            notes=(reason,),
            facts=CardFacts(notes=reason, **facts),
            record=TrainingRecord.of([visits], earlier=earlier, **split),
            strength=chosen,
            report=report,
            reason=reason,
        )

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        base_model: str | None = None,
        base_revision: str | None = None,
        facts: CardFacts | None = None,
        min_users: int = MIN_USERS,
    ) -> None:
        """Adapter, city, card and `adaptation.csv` in one folder, which `AutoModelForCausalLM`, `PeftModel` and the
        pipeline load.

        Args:
            base_model: where the base is found at loading time (a Hub id or a path); by default, where it was loaded
                from, a folder by its whole path.
            base_revision: branch, tag or commit of a base on the Hub, to which the adapter is pinned.
            facts, min_users: see `Trained`; a city of SAMoE lists its places whoever was there.

        Raises:
            ValueError: if the base was never saved, so that the adapter could not name it.
        """
        config = self.model.peft_config[self.model.active_adapter]
        config.base_model_name_or_path = base_model or config.base_model_name_or_path
        config.revision = base_revision or config.revision
        if not config.base_model_name_or_path:
            raise ValueError("the base model has no name: save it and adapt from its folder, or pass base_model=.")
        super().save_pretrained(folder, facts=facts, min_users=min_users)

    def _save_extras(self, folder: Path) -> None:
        super()._save_extras(folder)
        self.report.to_csv(folder / "adaptation.csv", index=False)


def visits_and_city(data: Any, city: Any, timezone: str | None, columns: dict[str, str]) -> tuple[pd.DataFrame, Any]:
    """Canonical visits, and their city: the one that is given, or the places that occur."""
    zone, name = timezone or getattr(city, "timezone", None), name_of(data)
    if columns or not isinstance(data, pd.DataFrame):
        data = as_records(data, timezone=zone, **columns)
    visits = as_visits(data, timezone=zone)
    if city is None:
        if timezone is None:
            raise DataError("The city is missing: pass city=, or timezone= for the places that occur in the visits.")
        city = City.from_visits(visits, timezone=timezone, name=name)
    return visits, city


def with_lora(base: Any, config: LoraConfig) -> Any:
    """A PEFT model around a copy of `base`, whose folder it names wherever the adapter will be loaded from."""
    with warnings.catch_warnings():  # PEFT asks for a property that transformers 5.24 has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted: Any = get_peft_model(copy.deepcopy(base), config)
    if base.name_or_path and Path(base.name_or_path).is_dir():
        adapted.peft_config["default"].base_model_name_or_path = str(Path(base.name_or_path).resolve())
    return adapted


def compare(scores: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """One row per strength from (users, 2) sums and counts of both halves. Chosen is the largest gain less twice its
    standard error; `none`, which has neither, is chosen where no other is above zero."""
    rows = []
    reference = np.concatenate(scores["none"])
    for name, halves in scores.items():
        by_half = [half[:, 0].sum() / half[:, 1].sum() for half in halves]
        difference, visits = reference[:, 0] - np.concatenate(halves)[:, 0], reference[:, 1]
        gain, error = gain_of(difference, visits)
        rows.append(
            {
                "strength": name,
                "nll_a": by_half[0],
                "nll_b": by_half[1],
                "nll": float(np.mean(by_half)),
                "gain": gain,
                "gain_se": error,
            }
        )
    report = pd.DataFrame(rows)
    report["chosen"] = np.arange(len(report)) == int(np.argmax(report["gain"] - MARGIN * report["gain_se"]))
    return report


def gain_of(difference: np.ndarray, visits: np.ndarray) -> tuple[float, float]:
    """Gain per visit and its standard error: of a ratio of sums, users being the independent units."""
    gain = difference.sum() / visits.sum()
    spread = difference - gain * visits
    return gain, np.sqrt(len(visits) / (len(visits) - 1) * np.square(spread).sum()) / visits.sum()


def shrink(adapted: Any, factor: float) -> None:
    """Scale what the adapter adds, in the layers and in the configuration that is saved."""
    name = adapted.active_adapter
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.set_scale(name, factor)
    adapted.peft_config[name].lora_alpha *= factor
