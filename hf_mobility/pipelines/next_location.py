"""Next places and future visits: a frame of visits in, a frame of probable next locations or of visits out (SAMoE).

The city is encoded once for the weights as they are, see `EncodedCity`, and users are batched by length. The same
object answers the evaluator (`probabilities(task)`), so figures and predictions come from one code path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from transformers import LogitsProcessorList

from ..data.sequences import SCORES_PER_BATCH, CitySequences, bounded_runs, pad_visits
from ..data.tasks import NextLocationTask, make_task
from ..modeling.layers import finite
from ..modeling.modeling_samoe import SamoeForNextLocation
from ..tokenization.clock import epoch_seconds, to_local
from ..tokenization.errors import SHOWN, DataError
from ..tokenization.tokenization_samoe import CONTEXT, NUM_SPECIAL, SamoeTokenizer
from .base import MobilityPipeline, read_records, shown
from .count_mix import Average, CountMix
from .encoded_city import EncodedCity
from .gaps import QUANTILES, expected_gaps
from .nearness import SUMS, nearness_of
from .scores import score_table, visits_task
from .session import NextLocationSession
from .sets import least_probability, true_place_probabilities
from .visits import READ, answers_table, check_top_k, place_shares, read_visits

RESULT_COLUMNS = ["user_id", "rank", "location_id", "lat", "lon", "probability", *QUANTILES, "expected_stay"]
FORECAST_COLUMNS = ["user_id", "step", "time", "location_id", "lat", "lon"]


class NextLocationPipeline(MobilityPipeline):
    """Predict where users go next.

    Args:
        model: a `SamoeForNextLocation`, or a PEFT model around one.
        tokenizer: the city.
        batch_size: users that the model reads at one time, at most; None = only `tokens_per_batch` counts.
        context: visits the model looks back on, at most. It was trained on 128 and reads more: on check-ins, where few
            people have as many, it makes no difference, elsewhere it does (docs/results/adaptation.md).
        tokens_per_batch: bound on a batch, padding included; a batch has at least one user.
        name: how tables of results call it.
        counts: past visits of most users of this city. Their count mix is averaged with the model, 0.3 to 0.7, in
            `predict`, `predict_set`, `score` and for the evaluator. `forecast` and `session` read the model alone and
            refuse.

    Raises:
        DataError: batch_size, context or tokens_per_batch below 1.
    """

    model_class, tokenizer_class, verb = SamoeForNextLocation, SamoeTokenizer, "predict"
    options = ("context", "tokens_per_batch", "name", "counts")

    def __init__(
        self,
        model: Any,
        tokenizer: SamoeTokenizer,
        *,
        batch_size: int | None = None,
        context: int = CONTEXT,
        tokens_per_batch: int = 4096,
        name: str = "SAMoE",
        counts: Any = None,
    ) -> None:
        super().__init__(model, tokenizer, batch_size=batch_size)
        for option, value in (("context", context), ("tokens_per_batch", tokens_per_batch)):
            if value < 1:
                raise DataError(f"{option} must be at least 1, not {value}.")
        limit = model.config.max_position_embeddings
        self.context = min(context, limit) if limit else context
        self.tokens_per_batch, self.name = tokens_per_batch, name
        self._stride = max(self.context // 4, 1)  # targets of one evaluation window
        self._encoded = EncodedCity(tokenizer.location_features, model.config)
        self._counts = None if counts is None else CountMix(counts, tokenizer)

    def for_city(self, city: Any, *, counts: Any = None) -> Self:
        """The same weights in another `City`; `counts` are visits of that city."""
        tokenizer = self._tokenizer_of(city, self.model, self.tokenizer)
        return type(self)(
            self.model,
            tokenizer,
            batch_size=self.batch_size,
            context=self.context,
            tokens_per_batch=self.tokens_per_batch,
            name=self.name,
            counts=counts,
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
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """The next location of every user after their last visit.

        Args:
            visits: a visits frame, `datasets.Dataset`, Arrow table or path; see `validate_visits` for columns and
                `timezone`. Without `location_id`, the city's nearest places count.
            top_k: how many places per user, 1 .. number of locations.
            target_time: only for models with `arrival_time=True`: when the next visit begins, one aware time for all
                or one per user (a mapping or Series by user_id).
            unknown: `error`, `nearest` or `drop`: what to do with locations the city does not list.
            timezone: IANA name for naive times.
            batch_size: users at one time; the pipeline's by default.
            progress: show a bar on stderr.
            columns: other column names, as in `user_id="uid"`.

        Returns:
            `user_id`, `rank` (1 = most probable), `location_id`, `lat`, `lon`, `probability`, `expected_gap`,
            `gap_low`, `gap_high`, sorted by user and rank. The last three are the median and the 10 % and 90 %
            quantiles, in seconds, of the time from the last arrival on record to the next one on record, given the
            user's own gaps: in check-ins mostly the time until somebody next tells where they are, not the length of a
            stay. `expected_stay`, the mean without the user's own gaps, is kept until version 0.2.

        Raises:
            DataError: for faults in the frame, an unsuitable `top_k` or a missing `target_time`; one sentence each.
            ValueError: for visits of another city: unlisted places, or coordinates far from the city's.

        Example:
            >>> pipe = NextLocationPipeline.from_pretrained("checkpoints/samoe-small", city=city)
            >>> pipe.predict(visits, top_k=3)
        """
        check_top_k(top_k, self.tokenizer)
        size = self._checked_size(batch_size)
        sequences, counted = self._read(visits, unknown=unknown, timezone=timezone, columns=columns)
        # Made beforehand: small results between the large ones of the batches would leave holes in the memory.
        users = len(sequences.users)
        ids, shares = np.empty((users, top_k), np.int64), np.empty((users, top_k), np.float32)
        seconds = {name: np.empty(users, np.float32) for name in (*QUANTILES, "expected_stay")}
        for some, probability, gaps in self._next(sequences, target_time, size, counted, progress=progress):
            best = probability.topk(top_k, dim=-1)
            ids[some], shares[some] = best.indices, best.values
            for name, values in seconds.items():
                values[some] = gaps[name]
        return answers_table(sequences.users, ids, shares, seconds, self.tokenizer)[RESULT_COLUMNS]

    @torch.no_grad()
    def predict_set(
        self,
        visits: Any,
        *,
        calibration: Any,
        coverage: float = 0.9,
        target_time: Any = None,
        unknown: str = "error",
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """For every user the places that hold the next one with probability `coverage`: as many as it takes.

        The probability that a place must reach is set on the last fifth of the visits of the users in `calibration`
        (of those with ten visits or more). The sets are right for users like these, whatever the model is worth: a poor
        one has large sets. Places that nobody could have foreseen make a high coverage expensive.

        Args:
            visits, target_time, unknown, timezone, batch_size, progress, columns: as in `predict`.
            calibration: visits of other users in the same city, in the same form.
            coverage: share of next places that are to be in the sets, 0..1.

        Returns:
            `user_id`, `rank` (1 = most probable), `location_id`, `lat`, `lon`, `probability`, sorted by user and rank;
            at least one row per user. `attrs["least_probability"]` is what a place had to reach.

        Raises:
            DataError: as `predict`; for users who are in both tables, or too few visits for the coverage.

        Example:
            >>> pipe.predict_set(visits, calibration=other_visits, coverage=0.8)  # doctest: +SKIP
        """
        size = self._checked_size(batch_size)
        others = read_records(calibration, timezone=timezone, columns=columns, names=READ)
        sequences, counted = self._read(visits, unknown=unknown, timezone=timezone, columns=columns)
        shared = np.intersect1d(sequences.users.astype(str), others["user_id"].astype(str))
        if len(shared):
            raise DataError(
                f"{len(shared)} users are in visits and in calibration (first {shared[:SHOWN].tolist()}): calibrate "
                "with other users."
            )
        task = make_task(others, self.city)
        found = true_place_probabilities(self.probabilities(task), task.location)
        least, parts = least_probability(found, coverage), []
        for users, shares, _ in self._next(sequences, target_time, size, counted, progress=progress):
            probability, ids = shares.sort(dim=-1, descending=True)
            inside = probability >= least
            inside[:, 0] = True
            line, rank = (index.numpy() for index in inside.nonzero(as_tuple=True))
            chosen = {**self._places(ids[inside].numpy()), "probability": probability[inside].numpy()}
            parts.append(pd.DataFrame({"user": users[line], "rank": rank + 1, **chosen}))
        table = _by_user(parts, sequences.users)[RESULT_COLUMNS[:6]]
        table.attrs["least_probability"] = least
        return table

    def score(
        self,
        visits: Any,
        *,
        unknown: str = "error",
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """How unusual every visit is for its user, from the user's earlier visits alone.

        Args:
            visits, unknown, timezone, batch_size, progress, columns: as in `predict`. The more users, the better is
                what others do known.

        Returns:
            One row per visit, sorted by user and time; NaN at a user's first visit. `user_id`, `time` (to the second),
            `location_id`; `surprisal`, -ln of the probability that the model gave the place, in nats;
            `expected_surprisal`, its mean under the model (the entropy); `p_value`, the share of the user's surprisals
            so far, this one included, that are at least as large; `surprisal_others`, -ln of the place's share of the
            other users' visits; `new_place`; `distance_km` to the nearest place that the user has visited before, 0 for
            a known one; `score` = surprisal - surprisal_others + ln(1 + distance_km / 0.1). The score finds days that
            are another user's; `p_value` raises as many false alarms for each user (docs/results/anomalies.md).

        Raises:
            DataError, ValueError: as `predict`.

        Example:
            >>> table = pipe.score(visits)
            >>> table.nlargest(10, "score")
        """
        size = self._checked_size(batch_size)
        frame = read_visits(visits, self.tokenizer, timezone=timezone, columns=columns)
        task, users = visits_task(frame, self.tokenizer, unknown)
        return score_table(task, users, self._probabilities(task, size, progress=progress))

    @torch.no_grad()
    def forecast(
        self,
        visits: Any,
        *,
        steps: int = 5,
        num_samples: int = 1,
        do_sample: bool = False,
        seed: int | None = None,
        unknown: str = "error",
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """The next visits of every user, one after the other: where, and when they begin.

        The model rolls out its own predictions (`generate`): by default the most probable place and stay each time. A
        stay is the time from one arrival to the next.

        Args:
            visits, unknown, timezone, batch_size, progress, columns: as in `predict`.
            steps: visits of a user; fewer where the model ends the trajectory itself.
            num_samples: futures of a user; more than one needs `do_sample=True`.
            do_sample: draw places and stays instead of taking the most probable ones.
            seed: of the draws; None takes torch's state as it is. The draws depend on who else is in the frame and on
                the batch size.

        Returns:
            `user_id`, `sample` (1 .. num_samples; only if there are several), `step` (1 = the next visit), `time`
            (datetime64[us, UTC], when the visit begins), `location_id`, `lat`, `lon`; sorted by the first three.

        Raises:
            DataError: for faults in the frame, or options that contradict one another.
            ValueError: for visits of another city, or a model with `arrival_time=True`.

        Example:
            >>> pipe.forecast(visits, steps=3)
        """
        if steps < 1 or num_samples < 1:
            raise DataError(f"steps and num_samples must be at least 1, not {steps} and {num_samples}.")
        if not do_sample and (num_samples > 1 or seed is not None):
            raise DataError("num_samples and seed need do_sample=True: without it, every future is the same.")
        self._refuse_counts("forecast")
        size = self._checked_size(batch_size)
        sequences, _ = self._read(visits, unknown=unknown, timezone=timezone, columns=columns)
        spans = _last_visits(sequences, self._context_before(steps))
        settings: dict[str, Any] = {
            "do_sample": do_sample,
            "num_return_sequences": num_samples,
            "max_new_tokens": steps,
        }
        settings["logits_processor"] = LogitsProcessorList([self._refuse_nan])
        if do_sample:
            settings["temperature"] = self.tokenizer.temperature
        city, parts = self._encoded.table(self.model), []
        with _seeded(seed, self.device):
            batches = self._batches(spans, size, num_samples, steps)
            for users in shown(batches, len(spans), unit="users", progress=progress):
                inputs = {name: value.to(self.device) for name, value in self._tensors(sequences, spans[users]).items()}
                made = self.model.generate(**inputs, location_table=city, return_timestamps=True, **settings)
                ids, times = (values[:, inputs["input_ids"].shape[1] :].cpu().numpy() for values in made)
                row, step = np.nonzero(ids >= NUM_SPECIAL)
                user, sample = np.divmod(row, num_samples)
                decoded = self.tokenizer.decode_visits(ids[row, step], times[row, step])
                head = {"user": users[user], "sample": sample + 1, "step": step + 1}
                parts.append(pd.DataFrame({**head, **decoded}))
        table = pd.concat(parts).sort_values(["user", "sample", "step"], ignore_index=True)
        table.insert(0, "user_id", sequences.users[table.pop("user").to_numpy()])
        table["time"] = pd.to_datetime(table["time"], utc=True).astype("datetime64[us, UTC]")
        several = ["user_id", "sample"] if num_samples > 1 else ["user_id"]
        return table[several + FORECAST_COLUMNS[1:]]

    def session(self, *, max_users: int = 1_000) -> NextLocationSession:
        """Answers for users whose visits arrive one after the other: what the model has read of `max_users` users is
        kept, so that one more visit costs one step of the model.

        Raises:
            DataError: `max_users` below 1, or a model with `arrival_time=True`.

        Example:
            >>> session = pipe.session()
            >>> session.update(visits)
        """
        self._refuse_counts("session")
        return NextLocationSession(self.model, self.tokenizer, self._encoded, context=self.context, max_users=max_users)

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
        yield from self._probabilities(task, self.batch_size)

    @torch.no_grad()
    def _probabilities(
        self, task: NextLocationTask, size: int | None, *, progress: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not np.array_equal(task.city.location_ids, self.tokenizer.location_ids):
            raise DataError(
                f"the task's places are not those of the pipeline's city {self.tokenizer.name!r}; "
                "use for_city(task.city)."
            )
        if not len(task.rows):
            return
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
        city = self._encoded.table(self.model)
        batches = self._batches(spans, size, np.minimum(np.diff(spans)[:, 0], self._stride))
        counted = self._counts and self._counts.beside(task)
        for windows in shown(batches, len(spans), unit="windows", progress=progress):
            # Every target stands in the last quarter of its window: no other position is scored.
            logits = self._forward(self._tensors(sequences, spans[windows]), city, keep=self._stride).logits
            for line, window in enumerate(windows):
                rows, positions = queries[window]
                shares = self._shares(logits[line, torch.from_numpy(positions - spans[window, 1])])
                yield rows, (counted(rows, shares) if counted else shares).numpy()

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
            first = offsets[owner[group[0]]]
            start = first + (chunk[group[0]] + 1) * self._stride - self.context
            spans.append((max(first, start), before[group[-1]] + 1))
            queries.append((targets[group], before[group]))
        return np.asarray(spans), queries

    # Batches

    def _batches(self, spans: np.ndarray, size: int | None, scored: Any = 1, steps: int = 0) -> Iterator[np.ndarray]:
        """Row numbers of `spans`, shortest first, in batches of bounded padded size and at most `size` rows; all places
        are scored `scored` times for each (of its own, or one for all), and `steps` visits more will follow."""
        lengths = spans[:, 1] - spans[:, 0] + steps
        scores = np.broadcast_to(scored, len(spans)) * self.tokenizer.vocab_size
        order = np.argsort(lengths, kind="stable")
        costs = (lengths[order], self.tokens_per_batch), (scores[order], SCORES_PER_BATCH)
        return (order[run] for run in bounded_runs(*costs, size=size))

    def _tensors(self, sequences: CitySequences, spans: np.ndarray) -> dict[str, torch.Tensor]:
        parts = [{name: values[start:stop] for name, values in sequences.fields.items()} for start, stop in spans]
        padded = pad_visits(parts, fields=sequences.fields, left=True)
        return {name: torch.from_numpy(values) for name, values in padded.items()}

    def _next(
        self, sequences: CitySequences, target_time: Any, size: int | None, counted: Average | None, *, progress: bool
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, dict[str, torch.Tensor]]]:
        """By batches: rows of the users (B,), probabilities of all places (B, N), seconds to the next visit by name."""
        arrivals = self._arrivals(target_time, sequences.users)
        if arrivals is not None:
            _tell_arrivals(sequences)[sequences.offsets[1:] - 1] = arrivals
        spans, city = _last_visits(sequences, self.context), self._encoded.table(self.model)
        batches = list(self._batches(spans, size, scored=1 + SUMS))
        near = nearness_of(batches, spans, sequences.fields["input_ids"], self.model, city)
        for users in shown(batches, len(spans), unit="users", progress=progress):
            logits, gaps = self._last(sequences, spans[users], city, next(near))
            shares = self._shares(logits)
            yield users, counted(users, shares) if counted else shares, gaps

    def _refuse_counts(self, verb: str) -> None:
        if self._counts is not None:
            raise DataError(f"{verb} reads the model alone: make a pipeline without counts= for it.")

    def _refuse_nan(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """A logits processor: a place that is not possible has -inf, one that was not computed has NaN."""
        finite(scores.float().softmax(-1), self.model)
        return scores

    def _last(
        self, sequences: CitySequences, spans: np.ndarray, city: Any, near: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(B, N + 2) scores after each person's last visit, and (B,) seconds until the next by name."""
        batch = self._tensors(sequences, spans)
        output = self._forward(batch, city, keep=1, nearness=near)
        known, config = batch["attention_mask"].bool(), self.model.config
        gaps = expected_gaps(output.stay_logits, batch["timestamps"], known, config)
        return output.logits[:, -1].float(), {name: finite(seconds, self.model) for name, seconds in gaps.items()}

    def _shares(self, logits: torch.Tensor) -> torch.Tensor:
        return place_shares(logits, self.tokenizer, self.model)

    def _forward(
        self, batch: dict[str, torch.Tensor], city: Any, *, keep: int, nearness: torch.Tensor | None = None
    ) -> Any:
        """The model's output at the last `keep` positions of a left-padded batch, on the CPU."""
        inputs = {name: value.to(self.device) for name, value in batch.items()}
        output = self.model(**inputs, location_table=city, logits_to_keep=keep, nearness=nearness)
        output.logits, output.stay_logits = output.logits.cpu(), output.stay_logits.cpu()
        return output

    def _places(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        city = self.tokenizer
        return {"location_id": city.location_ids[rows], "lat": city.lat[rows], "lon": city.lon[rows]}

    # Input

    def _read(
        self, visits: Any, *, unknown: str, timezone: Any, columns: dict[str, str]
    ) -> tuple[CitySequences, Average | None]:
        """What the model reads, and how the count mix joins in, where there is one."""
        frame = read_visits(visits, self.tokenizer, timezone=timezone, columns=columns)
        counted = None if self._counts is None else self._counts.after(frame, unknown)
        return CitySequences.from_visits(frame, self.tokenizer, unknown=unknown), counted

    def _context_before(self, steps: int) -> int:
        """Visits that can be looked back on where so many more are to have positions in the model, too."""
        limit = self.model.config.max_position_embeddings
        if limit and steps > limit:
            raise DataError(f"steps must be at most {limit}, the model's max_position_embeddings, not {steps}.")
        return min(self.context, limit + 1 - steps) if limit else self.context

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
        return to_local(epoch_seconds(pd.to_datetime(stamps, utc=True)), self.tokenizer.timezone)


def _by_user(parts: list[pd.DataFrame], users: np.ndarray) -> pd.DataFrame:
    """One table, sorted by user and rank, with `user_id` for the row number `user`."""
    table = pd.concat(parts).sort_values(["user", "rank"], ignore_index=True)
    table.insert(0, "user_id", users[table.pop("user").to_numpy()])
    return table


def _last_visits(sequences: CitySequences, context: int) -> np.ndarray:
    """(U, 2) int64: start and stop of every user's last visits, `context` at most."""
    stop = sequences.offsets[1:]
    return np.stack([np.maximum(sequences.offsets[:-1], stop - context), stop], axis=1)


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """torch's draws from `seed` on, and its state as before afterwards; None leaves the state alone."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _tell_arrivals(sequences: CitySequences) -> np.ndarray:
    """Add the field `arrival_times`, of every visit the time of the one after it; a person's last entry means nothing
    until it is set."""
    sequences.fields["arrival_times"] = np.roll(sequences.fields["timestamps"], -1)
    return sequences.fields["arrival_times"]
