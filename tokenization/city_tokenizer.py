"""What the tokenizers of all systems share: each holds one city, keeps it in two files and gives it back."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizer

from .city import City
from .city_files import CITY_FILE, MIN_USERS, TABLE_FILE, Contents, read_city_files, write_city_files
from .errors import DataError
from .whole_files import whole_folder

# What transformers' tokenizers understand and a city's tokenizer may be given.
GENERAL_OPTIONS = ("padding_side", "truncation_side", "model_max_length", "name_or_path")


class CityTokenizer(PreTrainedTokenizer):
    """A tokenizer of one city.

    Fields:
        city: the `City`.
        kinds: kinds of city files that the class can read; its own comes first.
        options: keywords that its `from_city` takes beside those of all tokenizers.
    """

    _auto_class = "AutoTokenizer"  # saved with its code
    vocab_files_names = {"city_file": CITY_FILE, "table_file": TABLE_FILE}
    kinds: Sequence[str] = ("city",)
    options: Sequence[str] = ()
    city: City
    _index: dict[str, int]  # word -> id; a text is words with blanks between them
    _min_users = MIN_USERS  # of what is written to files

    @property
    def name(self) -> str:
        return self.city.name

    @property
    def timezone(self) -> str:
        """IANA name."""
        return self.city.timezone

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(south, west, north, east) in degrees."""
        return self.city.bounds

    @classmethod
    def _checked_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(options) - {*cls.options, *GENERAL_OPTIONS})
        if unknown:
            raise TypeError(
                f"{cls.__name__} has no option {', '.join(map(repr, unknown))}; it takes "
                f"{', '.join([*cls.options, *GENERAL_OPTIONS])}."
            )
        return options

    @classmethod
    def _read_files(cls, city_file: str | None, table_file: str | None, folder: Any) -> Contents:
        """Contents of the two files of `from_pretrained(folder)`.

        Raises:
            ValueError: if a file is missing; a `DataError` for files that cannot be read or are of another kind.
        """
        if city_file is None or table_file is None:
            missing = f"{str(folder)!r} has no {CITY_FILE} and {TABLE_FILE}; " if folder else ""
            raise ValueError(
                f"{missing}a {cls.__name__} is a city: use {cls.__name__}.from_city(city) or from_pretrained(folder)."
            )
        return read_city_files(city_file, table_file, kinds=cls.kinds)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers'.

        Raises:
            ValueError: files that hold values of another type than the class takes; see also `_read_files`.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise ValueError(
                f"{pretrained_model_name_or_path} could not be loaded: its files hold what is no value of a "
                f"{cls.__name__} ({' '.join(str(error).split())})."
            ) from error

    def get_vocab(self) -> dict[str, int]:
        return dict(self._index)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return text.split()

    def contents(self, *, min_users: int | None = None) -> Contents:
        """What the two files hold: the city, and what is the tokenizer's own. `min_users`: see `save_pretrained`."""
        own = self._own_contents(self._min_users if min_users is None else min_users)
        header, arrays = (a | b for a, b in zip(self.city.contents(), own))
        return header, arrays

    def _own_contents(self, min_users: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What the files hold beside the city."""
        return {}, {}

    def save_pretrained(
        self, save_directory: str | os.PathLike, *args: Any, min_users: int | None = None, **kwargs: Any
    ) -> tuple[str, ...]:
        """As transformers', but all files or none.

        Args:
            min_users: 5 by default. Homes, pairs of home and work and classes of M-STAR's conditions that fewer users
                share are not written. Other cities hold no such counts; their places are all written.

        Raises:
            ValueError: nothing is left of the conditions.
        """
        if min_users is not None:
            saved = copy.copy(self)
            saved._min_users = min_users
            return saved.save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("push_to_hub"):  # it looks at the folder itself
            return super().save_pretrained(save_directory, *args, **kwargs)
        with whole_folder(os.fspath(save_directory)) as scratch:
            paths = super().save_pretrained(str(scratch), *args, **kwargs)
        return tuple(os.path.join(save_directory, os.path.basename(path)) for path in paths)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        paths = tuple(
            os.path.join(save_directory, f"{filename_prefix}-{name}" if filename_prefix else name)
            for name in self.vocab_files_names.values()
        )
        header, arrays = self.contents()
        write_city_files(*paths, kind=self.kinds[0], header=header, arrays=arrays)
        return paths


def as_city(city: Any) -> City:
    """The city itself, also where its class was loaded from another checkpoint's code.

    Raises:
        TypeError: for anything else than a city.
    """
    if isinstance(city, City):
        return city
    if not (hasattr(city, "contents") and hasattr(city, "poi_names")):
        raise TypeError(f"city must be a City, got {type(city).__name__}: City.from_visits(visits, timezone=...).")
    return City.from_contents(*city.contents())


def city_with_places(city: Any, system: str) -> City:
    """Raises a `DataError` for a city without places, which `system` needs."""
    city = as_city(city)
    if not len(city):
        raise DataError(
            f"the city {city.name!r} has no places, which {system} needs: City.from_visits(visits, timezone=...), or "
            "City.from_grid(grid, timezone=...) for cells as places."
        )
    return city
