"""One pipeline over many files of whole users, on one machine or on many: `map_parts`, a map of Ray Data.

Each worker loads the pipeline once and answers one part after the other. Nothing is shuffled: `partition_by_user` wrote
the files so that all rows of a user are in one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .data.io.streams import arrow_table
from .tokenization.errors import DataError, NoRecordsError

if TYPE_CHECKING:
    import ray.data

__all__ = ["map_parts"]

Loaded = TypeVar("Loaded")
_log = logging.getLogger(__name__)


def map_parts(
    parts: Iterable[Any],
    load: Callable[[], Loaded],
    work: Callable[[Loaded, Any], Any],
    *,
    workers: int = 1,
    **resources: Any,
) -> ray.data.Dataset:
    """What `work` returns for each part, as a Ray dataset; needs `pip install 'hf_mobility[ray]'`.

    A worker that is killed is started again, and its part is worked on anew. Parts come in the order in which they are
    done; the rows of one stay together.

    Args:
        parts: one task each: files of whole users, as `partition_by_user` returns them, or seeds to generate with.
        load: called once by each worker; returns a pipeline or a tokenizer. Its paths, and those of the parts, must be
            readable on every machine.
        work: (what `load` returned, part) -> frame, Arrow table or `datasets.Dataset`. Parts of which nothing is left
            (`NoRecordsError`) are logged and left out.
        workers: processes at the same time.
        resources: of each worker, as `Dataset.map_batches` takes them, such as `num_cpus=4` or `num_gpus=1`.

    Returns:
        A lazy `ray.data.Dataset`: the work begins with `write_parquet(folder)`, `to_pandas()` or another of its verbs.

    Raises:
        DataError: no parts, or workers below 1.
        ImportError: without Ray.

    Example:
        >>> load = partial(NextLocationPipeline.from_pretrained, "my-city")  # doctest: +SKIP
        >>> answers = map_parts(parts, load, lambda pipe, part: pipe.predict(part), workers=8)  # doctest: +SKIP
        >>> answers.write_parquet("next")  # doctest: +SKIP
    """
    rows = [{"part": str(part.absolute()) if isinstance(part, Path) else part} for part in parts]
    if not rows:
        raise DataError("There are no parts to map: give at least one file.")
    if workers < 1:
        raise DataError(f"workers must be at least 1, not {workers}.")
    data = _ray_data()
    return data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        fn_constructor_args=(load, work),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=workers),
        **resources,
    )


class _Worker:
    """Loads once, then maps batches of one part each."""

    def __init__(self, load: Callable[[], Any], work: Callable[[Any, Any], Any]) -> None:
        self.loaded, self.work = load(), work

    def __call__(self, batch: dict[str, Any]) -> Iterator[Any]:
        for part in batch["part"].tolist():
            try:
                yield arrow_table(self.work(self.loaded, part))
            except NoRecordsError as error:
                _log.warning("%s is left out: %s", part, error)


def _ray_data() -> Any:
    try:
        import ray.data
    except ImportError as error:
        raise ImportError("map_parts needs Ray Data: pip install 'hf_mobility[ray]'") from error
    return ray.data
