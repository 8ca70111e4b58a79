"""Next places as visits arrive: new visits come in, the next places of their users come back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.sequences import FIELDS
from ..tokenization.errors import SHOWN, DataError
from ..tokenization.tokenization_samoe import SamoeTokenizer
from .encoded_city import EncodedCity
from .gaps import QUANTILES, gaps_of
from .user_states import Read, UserStates
from .visits import answers_table, best_places, check_top_k, read_visits

READ_VISITS, STEP_USERS, SCORES = 4_096, 128, 1 << 22  # bounds on what the model reads and scores at one time


@dataclass(frozen=True, eq=False)
class NextPlaces:
    """Answers for U users: `user_id` (U,); `location_id` (U, k) str and `probability` (U, k) float32, the most probable
    first; `expected_gap`, `gap_low`, `gap_high` (U,) float32 seconds, as in `NextLocationPipeline.predict`."""

    user_id: np.ndarray
    location_id: np.ndarray
    probability: np.ndarray
    expected_gap: np.ndarray
    gap_low: np.ndarray
    gap_high: np.ndarray


class NextLocationSession:
    """Answers for users whose visits arrive one after the other; see `NextLocationPipeline.session`.

    What the model has read of a user is kept, so one more visit costs one step of the model, not a pass over all of
    them. An answer is that of `predict` for the user's last visits: all, or at least `context` and at most half as many
    more. Calls from several threads wait for one another; one call for many users is faster than many calls.

    Args:
        model, tokenizer, encoded: of the pipeline. The weights must not change while the session is used.
        context: visits that the model looks back on, at least.
        max_users: users that are kept. The one not heard of for the longest time is forgotten first.

    Raises:
        DataError: `max_users` below 1, or a model with `arrival_time=True`.
    """

    def __init__(
        self, model: Any, tokenizer: SamoeTokenizer, encoded: EncodedCity, *, context: int, max_users: int = 1_000
    ) -> None:
        if max_users < 1:
            raise DataError(f"max_users must be at least 1, not {max_users}.")
        if model.config.arrival_time:
            raise DataError("a model with arrival_time=True is told when the next visit begins: use predict.")
        self.model, self.tokenizer, self.context, self.max_users = model, tokenizer, context, max_users
        self._lock = Lock()
        limit, capacity = model.config.max_position_embeddings, context + max(context // 2, 1)
        with torch.no_grad():
            city = encoded.table(model)
        self._states = UserStates(model, city, context, min(capacity, limit) if limit else capacity)
        self._rows: OrderedDict[Any, int] = OrderedDict()  # by user, the longest unheard of first
        self._utc = np.zeros(0, np.int64)  # epoch seconds of each row's last visit

    def __len__(self) -> int:
        return int((self._states.length > 0).sum())

    def __contains__(self, user: Any) -> bool:
        return self.visits_of(user) > 0

    def visits_of(self, user: Any) -> int:
        """How many of a user's visits the last answer rests on; 0 for one who is not kept."""
        return int(self._states.length[self._rows[user]]) if user in self._rows else 0

    @property
    def bytes_per_user(self) -> int:
        """Memory that a kept user takes; 0 before the first answer."""
        return self._states.bytes_per_row

    def update(
        self, visits: Any, *, top_k: int = 5, unknown: str = "error", timezone: Any = None, **columns: str
    ) -> pd.DataFrame:
        """Take in new visits of a frame and say where each of their users goes next.

        Args:
            visits, top_k, unknown, timezone, columns: as in `NextLocationPipeline.predict`. A user's visits are those
                behind the ones already taken in, one or many.

        Returns:
            As `predict`, without `expected_stay`.

        Raises:
            DataError, ValueError: as `predict`, and as `answer`.

        Example:
            >>> session = pipe.session()
            >>> session.update(visits, top_k=3)
        """
        check_top_k(top_k, self.tokenizer)
        frame = read_visits(visits, self.tokenizer, timezone=timezone, columns=columns)
        return answers_table(*self._answers(frame, top_k, unknown), self.tokenizer)

    def answer(self, visits: Mapping[str, Any] | pd.DataFrame, *, top_k: int = 5, unknown: str = "error") -> NextPlaces:
        """As `update` on columns, without the time that frames take: for servers.

        Args:
            visits: `user_id`, `time` and `location_id` of the new visits, and with `unknown="nearest"` also `lat`,
                `lon`. Times are aware, or integers (epoch seconds UTC).

        Raises:
            DataError: for new visits before the last one of their user, or more users than `max_users`.
            ValueError: as `SamoeTokenizer.encode_visits`. Of such a call, nothing is taken in. Where the model itself
                fails, as for answers that are not finite, the users of the call are forgotten.

        Example:
            >>> session.answer({"user_id": ["7"], "time": [1_700_000_000], "location_id": ["cafe"]}).location_id
        """
        check_top_k(top_k, self.tokenizer)
        users, places, shares, seconds = self._answers(visits, top_k, unknown)
        return NextPlaces(users, self.tokenizer.location_ids[places], shares, **seconds)

    @torch.no_grad()
    def _answers(
        self, visits: Any, top_k: int, unknown: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Users (U,), rows of the city and their probabilities (U, k), and seconds (U,) by name."""
        new = self.tokenizer.encode_visits(visits, unknown=unknown)
        users = new["users"]
        if len(users) > self.max_users:
            raise DataError(f"{len(users)} users in one call are more than max_users={self.max_users}.")
        ids, shares = np.empty((len(users), top_k), np.int64), np.empty((len(users), top_k), np.float32)
        seconds = {name: np.empty(len(users), np.float32) for name in QUANTILES}
        with self._lock:
            known = np.array([user in self for user in users])
            fields = self._fields(new, known)
            with self._forgetting(users):
                for some, read in self._take_in(new, fields, known):
                    best, share = best_places(read.scores, self.tokenizer, self.model, top_k)
                    ids[some], shares[some] = best.cpu(), share.cpu()
                    gaps = gaps_of(read.last, read.expected, read.own, self.model.config)
                    for name, values in seconds.items():
                        values[some] = gaps[name].cpu()
        return users, ids, shares, seconds

    @contextmanager
    def _forgetting(self, users: np.ndarray) -> Iterator[None]:
        """What was half taken in when something fails is not built upon."""
        try:
            yield
        except BaseException:
            self._states.forget([self._rows[user] for user in users if user in self._rows])
            raise

    def _take_in(
        self, new: dict[str, np.ndarray], fields: dict[str, np.ndarray], known: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Read]]:
        """By batches: numbers of users in `new`, and what the model says after their last visit."""
        offsets, rows = new["offsets"], self._rows_for(new["users"])
        self._states.length[rows[~known]] = 0
        self._utc[rows] = new["utc"][offsets[1:] - 1]
        one_step = known & (np.diff(offsets) == 1) & (self._states.length[rows] < self._states.capacity)
        for users in self._batches(one_step, STEP_USERS):
            visit = {name: values[offsets[users]] for name, values in fields.items()}
            yield users, self._states.step(rows[users], visit)
        for users in self._batches(~one_step, READ_VISITS // self.context):
            spans = [slice(offsets[user], offsets[user + 1]) for user in users]
            visits = [{name: values[span] for name, values in fields.items()} for span in spans]
            yield users, self._states.read(rows[users], visits)

    def _batches(self, which: np.ndarray, size: int) -> Iterator[np.ndarray]:
        users, size = np.flatnonzero(which), max(1, min(size, SCORES // len(self.tokenizer.location_ids)))
        return (users[start : start + size] for start in range(0, len(users), size))

    def _fields(self, new: dict[str, np.ndarray], known: np.ndarray) -> dict[str, np.ndarray]:
        """`FIELDS` of the new visits; the first one of a known user follows the last one in its row.

        Raises:
            DataError: for visits before that one.
        """
        if not known.any():
            return {name: new[name] for name in FIELDS}
        users, first = new["users"][known], new["offsets"][:-1]
        rows = np.array([self._rows[user] for user in users])
        late = new["utc"][first[known]] < self._utc[rows]
        if late.any():
            raise DataError(
                f"{int(late.sum())} users have new visits before their last one, first {users[late][:SHOWN].tolist()}."
            )
        last = self._states.visits["input_ids"][rows, self._states.length[rows] - 1]
        ids = np.insert(new["input_ids"], first[known], last)
        utc = np.insert(new["utc"], first[known], self._utc[rows])
        start = first + np.cumsum(known) - known
        fields = self.tokenizer.visit_fields(ids, utc, first=start)
        return {name: np.delete(values, start[known]) for name, values in fields.items()}

    def _rows_for(self, users: np.ndarray) -> np.ndarray:
        """The row of each user. New ones get a free row, or that of the user not heard of for the longest time."""
        for user in users:
            if user in self._rows:
                self._rows.move_to_end(user)
        for user in users:
            if user not in self._rows:
                full = len(self._rows) == self.max_users
                self._rows[user] = self._rows.popitem(last=False)[1] if full else len(self._rows)
        if len(self._rows) > len(self._utc):
            room = min(self.max_users, 2 * len(self._rows))
            self._utc = np.pad(self._utc, (0, room - len(self._utc)))
            self._states.grow(room)
        return np.array([self._rows[user] for user in users])
