"""What `train` and `adapt` return."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.training_record import TrainingRecord
from ..hub.card_facts import CardFacts
from ..hub.push import SavedWithCard


@dataclass(frozen=True, kw_only=True)
class Trained(SavedWithCard):
    """A model with its city, ready to save, push, predict and evaluate.

    model: in evaluation mode, where it was trained. tokenizer: the city (of several, the first). history: a frame with
    `step`, `epoch`, `loss`, `eval_loss`, `learning_rate`, `grad_norm` per logged step, as far as they were logged.
    seconds: wall time. notes: sentences on the data: grid, weeks kept, windows. facts: for the card, used where
    `save_pretrained` gets none. record: hashes of what it was trained on, which `evaluate_checkpoint` compares with its
    test; saved in the folder and not pushed.

    Example:
        >>> made = train("samoe", visits, timezone="Europe/Berlin", size="tiny", steps=20)  # doctest: +SKIP
        >>> made.save_pretrained("my-model")  # doctest: +SKIP
    """

    model: Any
    tokenizer: Any
    history: pd.DataFrame
    seconds: float
    notes: tuple[str, ...] = ()
    facts: CardFacts = field(default_factory=CardFacts)
    record: TrainingRecord | None = None

    def _save_extras(self, folder: Path) -> None:
        if self.record is not None:
            self.record.save(folder)


def earlier_record(source: Any) -> TrainingRecord | None:
    """Of what `train` or `adapt` begins with: a `Trained`, a model that was loaded from a folder, or where to load one
    from. A repository of the Hub has none."""
    if source is None or isinstance(source, Trained):
        return getattr(source, "record", None)
    return TrainingRecord.load(source if isinstance(source, (str, Path)) else getattr(source, "name_or_path", ""))
