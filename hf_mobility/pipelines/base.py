"""What all pipelines share: loading a model with its city, reading a frame once, batches and their progress.

A pipeline is a model and a tokenizer (one city). Its verbs return a frame and take `batch_size=` and `progress=`. Those
that read a frame also take `timezone=` (of naive times) and column names as in `user_id="uid"`. The order of rows plays
no part, and the batch size matters by rounding only, except in `forecast(do_sample=True)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from huggingface_hub.utils import tqdm
from transformers.utils import cached_file

from ..data.frames import validate_visits
from ..hub.device import check_device
from ..hub.loading import fetching, load_model
from ..hub.push import SavedWithCard
from ..hub.requests import loading
from ..tokenization.errors import DataError

Part = TypeVar("Part", slice, Any)


class MobilityPipeline(SavedWithCard):
    """A model in a city. Use one of its subclasses.

    A subclass names its classes of model and tokenizer, its main verb and the options of its own constructor.

    Args:
        model: in evaluation mode from here on.
        tokenizer: the city.
        batch_size: rows that the model reads at one time; None is the pipeline's default.

    Raises:
        DataError: a batch size below 1, or a city that does not fit the model.
    """

    model_class: ClassVar[Any]
    tokenizer_class: ClassVar[Any]
    verb: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    default_batch_size: ClassVar[int | None] = None

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int | None = None) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_size = self.default_batch_size
        self.batch_size = self._checked_size(batch_size)
        self._check_city()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        city: Any = None,
        device: Any = None,
        dtype: Any = None,
        batch_size: int | None = None,
        **hub: Any,
    ) -> Self:
        """Load a model and its city from one folder or Hub id.

        Args:
            name_or_path: a checkpoint, or an adapter with its city, as `save_pretrained` writes them.
            city: a `City` in place of the saved one; needed where none was saved. See `for_city`.
            device: where the model runs, such as "cuda"; by default the CPU.
            dtype: of the weights, such as `torch.bfloat16`; by default that of the checkpoint. Results are float32.
            batch_size: rows that the model reads at one time.
            hub: options of the pipeline's constructor. All others (`revision`, `token`, ...) go to the model's
                `from_pretrained`; those about the Hub go to the tokenizer's, too. `revision` is that of the adapter
                where there is one. `base_revision` is that of its base model: by default the one that the adapter
                names, or `main`.

        Raises:
            ValueError: if another kind of model was saved there, the city does not fit it, or the device is not there.
            OSError: if there is no such folder or repository, or the Hub refuses.
        """
        check_device(device)
        options = {name: hub.pop(name) for name in cls.options if name in hub}
        if dtype is not None:
            hub["dtype"] = dtype
        model = load_model(
            cls.model_class,
            name_or_path,
            reader=cls.__name__,
            kwargs=hub,
            form=lambda config: cls._form_of(config).model_class,
        )
        form = cls._form_of(model.config)
        tokenizer = form._saved_tokenizer(name_or_path, fetching(hub), must_exist=city is None)
        if city is not None:
            tokenizer = form._tokenizer_of(city, model, tokenizer)
        model = model if device is None else model.to(device)
        return form(model, tokenizer, batch_size=batch_size, **options)

    @classmethod
    def _form_of(cls, config: Any) -> Any:
        """The pipeline of a model's form: this one, where a system has one form only."""
        return cls

    def for_city(self, city: Any) -> Self:
        """The same weights in another `City`; the tokenizer keeps its settings, such as RAW's `fill`.

        Conditions of M-STAR belong to the old city: before `generate` draws new ones, call `tokenizer.fit_conditions`
        with weeks of the new city.
        """
        options = {name: getattr(self, name) for name in self.options}
        tokenizer = self._tokenizer_of(city, self.model, self.tokenizer)
        return type(self)(self.model, tokenizer, batch_size=self.batch_size, **options)

    @classmethod
    def _tokenizer_of(cls, city: Any, model: Any, old: Any) -> Any:
        """That of another city, with the settings of the old one, if there was any."""
        return cls.tokenizer_class.from_city(city, model.config, **({} if old is None else _settings_of(old)))

    @classmethod
    def _saved_tokenizer(cls, name_or_path: str | Path, options: dict[str, Any], *, must_exist: bool) -> Any:
        """None where weights were saved alone."""
        with loading(name_or_path):
            where, missing = str(name_or_path), {"_raise_exceptions_for_missing_entries": False}
            if must_exist or cached_file(where, "tokenizer_config.json", **missing, **options):
                return cls.tokenizer_class.from_pretrained(where, **options)
        return None

    def _check_city(self) -> None:
        """Raises a `DataError` where the tokenizer's city does not fit the model."""

    @property
    def city(self) -> Any:
        """The tokenizer's `City`."""
        return self.tokenizer.city

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The main verb."""
        return getattr(self, self.verb)(*args, **options)

    def __repr__(self) -> str:
        name = self.city.name or self.city.timezone
        return (
            f"{type(self).__name__}({type(self.model).__name__} in {name!r}, device={str(self.device)!r}, "
            f"batch_size={self.batch_size})"
        )

    # Batches

    def _checked_size(self, batch_size: int | None) -> int | None:
        """The batch size of a call: its own, or the pipeline's."""
        size = self.batch_size if batch_size is None else batch_size
        if size is not None and size < 1:
            raise DataError(f"batch_size must be at least 1, not {size}.")
        return size

    def _slices(self, total: int, batch_size: int | None, *, unit: str, progress: bool) -> Iterator[slice]:
        """Slices of `total` rows, one batch each."""
        size = self._checked_size(batch_size) or max(total, 1)
        parts = (slice(first, min(first + size, total)) for first in range(0, total, size))
        return shown(parts, total, unit=unit, progress=progress)


def _settings_of(tokenizer: Any) -> dict[str, Any]:
    """Options of a tokenizer that are not the defaults of its class, without what belongs to its city."""
    found = {}
    for name, parameter in inspect.signature(type(tokenizer).__init__).parameters.items():
        value = getattr(tokenizer, name, parameter.default)
        if name in tokenizer.options and name not in ("cell_map", "temperature") and value != parameter.default:
            found[name] = value
    return found


def shown(parts: Iterable[Part], total: int, *, unit: str, progress: bool) -> Iterator[Part]:
    """The parts (slices or arrays of rows) as they are, with a bar on stderr if `progress`; it moves on after each."""
    with tqdm(total=total, unit=f" {unit}", disable=not progress) as bar:
        for part in parts:
            yield part
            bar.update(part.stop - part.start if isinstance(part, slice) else len(part))


def read_records(frame: Any, *, timezone: Any, columns: dict[str, str], names: tuple[str, ...]) -> pd.DataFrame:
    """The columns `names` of visits or points, checked and in canonical order, and nothing else of the frame.

    Args:
        columns: names that the user gave, such as `{"user_id": "uid"}`.

    Raises:
        DataError: a name that is none of `names`; otherwise as `validate_visits`.
    """
    unknown = sorted(set(columns) - set(names))
    if unknown:
        raise DataError(f"Unknown option(s) {unknown}; columns are named by {', '.join(names)}.")
    checked = validate_visits(frame, timezone=timezone, **columns)
    return checked[[name for name in names if name in checked]]


def check_count(name: str, value: Any) -> None:
    """Raise a `DataError` for what is no whole number from 1 on."""
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise DataError(f"{name} must be a whole number from 1 on, not {value!r}.")
