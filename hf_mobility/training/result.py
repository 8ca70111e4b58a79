"""What `train` and `adapt` return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..hub.card_facts import CardFacts
from ..hub.push import SavedWithCard


@dataclass(frozen=True, kw_only=True)
class Trained(SavedWithCard):
    """A model with its city, ready to save, push, predict and evaluate.

    model: in evaluation mode, where it was trained. tokenizer: the city (of several, the first). history: a frame with
    `step`, `epoch`, `loss`, `learning_rate`, `grad_norm` per logged step. seconds: wall time. notes: sentences on the
    data: grid, weeks kept, windows. facts: for the card, used where `save_pretrained` gets none.

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
