"""Next places as a table: a frame of visits in, a frame of probable next locations out.

Unusual: the city is encoded once per pipeline, and people are batched by length. The same object answers the evaluator
(`probabilities(task)`), so figures and predictions come from one code path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.frames import DataError, validate_visits
from ..data.sequences import CitySequences, pad_visits
from ..data.tasks import NextLocationTask
from ..hub.loading import fetching, load_model
from ..hub.push import SavedWithCard, loading
from ..modeling.modeling_samoe import SamoeForNextLocation
from ..modeling.times_samoe import stay_seconds
from ..tokenization.tokenization_samoe import CONTEXT, NUM_SPECIAL, SamoeTokenizer

RESULT_COLUMNS = ["user_id", "rank", "location_id", "lat", "lon", "probability", "expected_stay"]


class NextLocationPipeline(SavedWithCard):
    """Predict where people go next.

    Args:
        model: a `SamoeForNextLocation`, or a PEFT model around one.
        tokenizer: the city.
        context: visits the model looks back on, at most. It was trained on 128 and reads more: on check-ins, where few
            people have as many, it makes no difference, elsewhere it does (docs/results.md).
        tokens_per_batch: bound on a batch, padding included.
        name: how tables of results call it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: SamoeTokenizer,
        *,
        context: int = CONTEXT,
        tokens_per_batch: int = 4096,
        name: str = "SAMoE",
    ) -> None:
        limit = model.config.max_position_embeddings
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.context = min(context, limit) if limit else context
        self.tokens_per_batch = tokens_per_batch
        self._stride = max(self.context // 4, 1)  # targets of one evaluation window
        self._table: Any = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, city: Any = None, **kwargs: Any) -> NextLocationPipeline:
        """Load a checkpoint, or an adapter folder as `adapt(...).save_pretrained` writes it, with the city saved
        beside it.

        Args:
            city: another `City`; needed where the checkpoint holds none, and free to choose where it does.
            kwargs: `context`, `tokens_per_batch`, `name`; anything else (`revision`, `token`, `dtype`, ...) goes to the
                model's `from_pretrained`, and what is about the Hub to the tokenizer's too. `revision` is that of the
                adapter where there is one; its base model is taken from `main`.

        Raises:
            ValueError: if something else than SAMoE was saved there.
            OSError: if there is no such folder or repository, or the Hub refuses.
        """
        own = {key: kwargs.pop(key) for key in ("context", "tokens_per_batch", "name") if key in kwargs}
        model = load_model(SamoeForNextLocation, name_or_path, reader=cls.__name__, kwargs=kwargs)
        with loading(name_or_path):
            if city is not None:
                tokenizer = SamoeTokenizer.from_city(city, model.config)
            else:
                tokenizer = SamoeTokenizer.from_pretrained(str(name_or_path), **fetching(kwargs))
        return cls(model, tokenizer, **own)

    def for_city(self, city: Any) -> NextLocationPipeline:
        """The same weights in another city."""
        tokenizer = SamoeTokenizer.from_city(city, self.model.config)
        return NextLocationPipeline(
            self.model, tokenizer, context=self.context, tokens_per_batch=self.tokens_per_batch, name=self.name
        )

    @property
    def arrival_time_given(self) -> bool:
        """Whether predictions are conditioned on when the next visit begins: another task, never compared with it."""
        return bool(self.model.config.arrival_time)

    @torch.no_grad()
    def predict(
        self,
        visits: Any,
        *,
        top_k: int = 5,
        target_time: Any = None,
        unknown: str = "error",
        timezone: str | None = None,
        **columns: str,
    ) -> pd.DataFrame:
        """The next location of every person after their last visit.

        Args:
            visits: a visits frame, `datasets.Dataset`, Arrow table or path; see `validate_visits` for columns and
                `timezone`. Without `location_id`, the city's nearest places count.
            top_k: how many places per person, 1 .. number of locations.
            target_time: only for models with `arrival_time=True`: when the next visit begins, one aware time for all
                or one per person (a mapping
                or Series by user_id).
            unknown: `error`, `nearest` or `drop`: what to do with locations the city does not list.

        Returns:
            `user_id`, `rank` (1 = most probable), `location_id`, `lat`, `lon`, `probability`, `expected_stay`, sorted
            by user and rank. `expected_stay` is the mean, in seconds, of the time from the last arrival on record to
            the next one on record: in check-ins mostly the time until somebody next tells where they are, not the
            length of a stay, and a few long gaps weigh in it.

        Raises:
            DataError: for faults in the frame, an unsuitable `top_k` or a missing `target_time`; one sentence each.
            ValueError: for visits of another city: unlisted places, or coordinates far from the city's.
        """
        if not 1 <= top_k <= len(self.tokenizer.location_ids):
            raise DataError(
                f"top_k must be between 1 and the city's {len(self.tokenizer.location_ids)} locations, got {top_k}."
            )
        frame = validate_visits(visits, timezone=timezone, **columns)
        frame = self._with_locations(frame)
        sequences = CitySequences.from_visits(frame, self.tokenizer, unknown=unknown)
        arrivals = self._arrivals(target_time, sequences.users)
        if arrivals is not None:
            _tell_arrivals(sequences)[sequences.offsets[1:] - 1] = arrivals
        spans = np.stack(
            [np.maximum(sequences.offsets[:-1], sequences.offsets[1:] - self.context), sequences.offsets[1:]], axis=1
        )
        parts = []
        for people in self._batches(spans):
            logits, stays = self._last(sequences, spans[people])
            probability, ids = logits[:, NUM_SPECIAL:].softmax(-1).topk(top_k, dim=-1)
            rows = ids.numpy()
            parts.append(
                pd.DataFrame(
                    {
                        "person": np.repeat(people, top_k),
                        "rank": np.tile(np.arange(1, top_k + 1), len(people)),
                        "location_id": self.tokenizer.location_ids[rows].ravel(),
                        "lat": self.tokenizer.lat[rows].ravel(),
                        "lon": self.tokenizer.lon[rows].ravel(),
                        "probability": probability.numpy().ravel(),
                        "expected_stay": np.repeat(stays.numpy(), top_k),
                    }
                )
            )
        table = pd.concat(parts).sort_values(["person", "rank"], ignore_index=True)
        table.insert(0, "user_id", sequences.users[table.pop("person").to_numpy()])
        return table[RESULT_COLUMNS]

    @torch.no_grad()
    def probabilities(self, task: NextLocationTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For the evaluator: (target rows (m,), probabilities (m, N)), each target from the visits before it.

        Windows of `context` visits overlap by three quarters, so that a target sees between 3/4 of `context` and all
        of it (or everything, where the person has fewer). Visits at places the city does not list are left out of the
        context; a target is scored all the same. Probabilities are those of places: an end of the trajectory is not
        among them. A model with `arrival_time=True` is told when each target begins (and `arrival_time_given` says so).

        Raises:
            DataError: if the task is in another city, a target has no earlier visit at a listed place, or the arrival
                time is needed and some visits are at places that the city does not list.
        """
        if not np.array_equal(np.asarray(task.city.location_ids).astype(str), self.tokenizer.location_ids):
            raise DataError(
                f"the task's places are not those of the pipeline's city {self.tokenizer.name!r}; "
                "use for_city(task.city)."
            )
        listed = np.flatnonzero(task.location >= 0)
        sequences = CitySequences.from_visits(
            task.visits.iloc[listed].assign(user_id=task.user[listed]), self.tokenizer
        )
        # The tokenizer orders visits of the same second by place; here the order of the task's rows counts.
        sequences.fields["input_ids"] = task.location[listed] + NUM_SPECIAL
        if self.arrival_time_given:
            if len(listed) < len(task.visits):
                raise DataError(
                    f"{len(task.visits) - len(listed)} of {len(task.visits)} visits are at places that the city does "
                    "not list; a model that is told the arrival time is evaluated on listed places only."
                )
            _tell_arrivals(sequences)
        spans, queries = self._evaluation_windows(task, listed, sequences.offsets)
        for windows in self._batches(spans):
            # Every target stands in the last quarter of its window: no other position is scored.
            logits = self._forward(self._tensors(sequences, spans[windows]), keep=self._stride).logits
            for line, window in enumerate(windows):
                rows, positions = queries[window]
                p = logits[line, torch.from_numpy(positions - spans[window, 1]), NUM_SPECIAL:].float().softmax(-1)
                yield rows, p.numpy()

    def _evaluation_windows(
        self, task: NextLocationTask, listed: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Spans (W, 2) of context and, per span, the target rows with the position (in `listed`) of the visit before
        each."""
        if (np.diff(offsets) == 0).any() or len(offsets) - 1 != task.users:
            raise DataError("some people have no visit at a place that the city lists; drop them before evaluating.")
        targets = np.flatnonzero(task.target)
        before = np.searchsorted(listed, targets) - 1  # the last listed visit before the target
        owner = task.user[targets]
        if (before < offsets[owner]).any():
            raise DataError(
                "some targets have no earlier visit at a listed place; there is nothing to predict them from."
            )
        chunk = (before - offsets[owner]) // self._stride
        spans, queries = [], []
        for group in np.split(np.arange(len(targets)), np.flatnonzero(np.diff(owner) | np.diff(chunk)) + 1):
            stop = before[group[-1]] + 1
            spans.append(
                (
                    max(
                        offsets[owner[group[0]]],
                        (chunk[group[0]] + 1) * self._stride + offsets[owner[group[0]]] - self.context,
                    ),
                    stop,
                )
            )
            queries.append((targets[group], before[group]))
        return np.asarray(spans), queries

    # Batches

    def _batches(self, spans: np.ndarray) -> Iterator[np.ndarray]:
        """Row numbers of `spans`, shortest first, in batches of bounded padded size."""
        lengths = spans[:, 1] - spans[:, 0]
        order = np.argsort(lengths, kind="stable")
        start = 0
        for position in range(1, len(order) + 1):
            if position == len(order) or (position + 1 - start) * lengths[order[position]] > self.tokens_per_batch:
                yield order[start:position]
                start = position

    def _tensors(self, sequences: CitySequences, spans: np.ndarray) -> dict[str, torch.Tensor]:
        parts = [{name: values[start:stop] for name, values in sequences.fields.items()} for start, stop in spans]
        padded = pad_visits(parts, fields=sequences.fields, left=True)
        return {name: torch.from_numpy(values) for name, values in padded.items()}

    def _last(self, sequences: CitySequences, spans: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N + 2) scores after each person's last visit, (B,) expected seconds until the next."""
        output = self._forward(self._tensors(sequences, spans), keep=1)
        stay = output.stay_logits[:, -1].float()
        stay[:, 0] = float("-inf")  # "unknown" is no answer
        config = self.model.config
        seconds = stay_seconds(torch.arange(config.num_stay_bins), config).float()
        return output.logits[:, -1].float(), stay.softmax(-1) @ seconds

    def _forward(self, batch: dict[str, torch.Tensor], *, keep: int) -> Any:
        """The model's output at the last `keep` positions of a left-padded batch, on the CPU."""
        device = self.model.device
        if self._table is None:
            self._table = self.model.encode_locations(self.tokenizer.location_features.to(device))
        inputs = {name: value.to(device) for name, value in batch.items()}
        output = self.model(**inputs, location_table=self._table, logits_to_keep=keep)
        output.logits, output.stay_logits = output.logits.cpu(), output.stay_logits.cpu()
        return output

    # Input

    def _with_locations(self, frame: pd.DataFrame) -> pd.DataFrame:
        if "location_id" in frame:
            return frame
        rows = self.tokenizer.nearest(frame["lat"].to_numpy(), frame["lon"].to_numpy()) - NUM_SPECIAL
        return frame.assign(location_id=self.tokenizer.location_ids[rows])

    def _arrivals(self, target_time: Any, users: np.ndarray) -> np.ndarray | None:
        if not self.arrival_time_given:
            if target_time is not None:
                raise DataError("target_time was given, but this model was trained without it (arrival_time=False).")
            return None
        if target_time is None:
            raise DataError(
                "target_time is missing: this model was trained with the arrival time of the next visit given."
            )
        times = (
            pd.Series(target_time).reindex(users)
            if isinstance(target_time, (dict, pd.Series))
            else pd.Series([target_time] * len(users))
        )
        stamps = times.map(pd.Timestamp)  # each may have a zone of its own
        bad = users[np.array([stamp is pd.NaT or stamp.tzinfo is None for stamp in stamps])]
        if len(bad):
            raise DataError(
                f"target_time must be a time-zone-aware time for every user; it is not for {len(bad)} of {len(users)}, "
                f"first {bad[:5].tolist()}."
            )
        local = pd.to_datetime(stamps, utc=True).dt.tz_convert(self.tokenizer.timezone).dt.tz_localize(None)
        return local.to_numpy("datetime64[s]").astype(np.int64)


def _tell_arrivals(sequences: CitySequences) -> np.ndarray:
    """Add the field `arrival_times`, of every visit the time of the one after it; a person's last entry means nothing
    until it is set."""
    sequences.fields["arrival_times"] = np.roll(sequences.fields["timestamps"], -1)
    return sequences.fields["arrival_times"]
