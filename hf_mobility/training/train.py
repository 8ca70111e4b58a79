"""`train`: one verb for all systems, from records of people to a model with its city."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import TrainingArguments, set_seed

from ..data.io.records import as_records, name_of
from ..data.parts import training_part
from ..data.training_record import TrainingRecord
from ..data.weeks import WeekTable, refuse_weeks
from ..hub.card_facts import CardFacts, with_rare_places
from ..hub.loading import check_folder, loading
from ..modeling.configuration_raw import VARIANTS
from ..tokenization.city import City
from ..tokenization.errors import DataError
from ..tokenization.tokenization_mstar import MstarTokenizer
from ..tokenization.tokenization_raw import RawTokenizer
from .fit import callers_random_state, nothing, on_device, on_stderr
from .presets import TRAINING_PRESETS, training_arguments
from .recipes import Recipe, train_codec, train_mstar, train_raw, train_records, train_samoe
from .result import Trained, earlier_record
from .same_training import (
    check_checkpoints,
    check_same_training,
    describe_training,
    remove_checkpoints,
    save_training,
)
from .slots import train_slots
from .whole_checkpoints import checkpoints_in, last_checkpoint, remove_after, step_of

SLOTS = "mstar-slots"  # train("mstar", vocabulary="slots")
SYSTEMS: dict[str, Callable[..., Any]] = {
    "samoe": train_samoe,
    "mstar-codec": train_codec,
    "mstar": train_mstar,
    "raw": train_raw,
}
RECORDS = "raw-extended"  # train("raw", variant="extended")
_RECIPES = {**SYSTEMS, SLOTS: train_slots, RECORDS: train_records}
VOCABULARIES = ("cells", "slots")
_SEVERAL_CITIES = ("samoe", SLOTS, RECORDS)
_WEEKS_OF_CELLS = ("mstar-codec", "mstar")
_WEEKS = (*_WEEKS_OF_CELLS, SLOTS)
_ONLY_FOR = {  # an option -> the systems that know it
    "codec": ("mstar",),
    "shifted_copies": _WEEKS_OF_CELLS,
    "min_users": _WEEKS,
    "min_known": _WEEKS,
    "fill_hours": _WEEKS,
    "cell_km": ("mstar-codec",),
    "coverage": ("mstar-codec", "raw"),
    "bounds": ("mstar-codec", "raw"),
    "city": ("samoe", "mstar-codec", SLOTS, "raw", RECORDS),
    "start": ("samoe", "mstar-codec", "mstar", "raw"),
    "batch_size": ("mstar-codec", "mstar", SLOTS, "raw", RECORDS),  # samoe fills its batches by length
}
_FIXED = ("size", "cell_km", "coverage", "bounds", "city")  # by the model to go on with; RAW's bounds may be others
_ALTERNATIVES = (
    ("bounds", "coverage", "how large the city is"),
    ("city", "bounds", "how large the city is"),
    ("city", "coverage", "how large the city is"),
    ("epochs", "steps", "how long to train"),
)
_OWN_KEYWORD = {  # a field of `TrainingArguments` -> the keyword of `train` that says it
    "per_device_train_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "output_dir": "output_dir",
    "seed": "seed",
    "use_cpu": "device",
    "disable_tqdm": "progress",
    "resume_from_checkpoint": "resume",
}
_KEPT = 2  # checkpoints: should the last one be damaged, there is one before it


def train(
    system: str,
    data: Any,
    *,
    vocabulary: str | None = None,
    variant: str | None = None,
    size: str | None = None,
    start: str | Path | None = None,
    codec: Any = None,
    city: Any = None,
    timezone: str | None = None,
    cell_km: float | None = None,
    coverage: float | None = None,
    bounds: Sequence[float] | None = None,
    min_known: float | None = None,
    fill_hours: float | None = None,
    shifted_copies: int = 0,
    min_users: int | None = None,
    test_fraction: float = 0.0,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    save_every: int | None = None,
    resume: bool = False,
    device: Any = None,
    seed: int = 0,
    progress: bool = False,
    **columns: str,
) -> Trained:
    """Train a model of `system` on records of people.

    Args:
        system: `samoe` (next places), `mstar-codec` and then `mstar` (weeks), `raw` (positions).
        data: a table of visits or points, as a frame, dataset, Arrow table or path (see `validate_visits`). For the two
            of M-STAR also weeks of cells (`WeekTable`, or what `read_weeks` reads). For `samoe`, weeks of slots and
            RAW's variant `extended` also a list, one entry per city: a pair (table, `City` or name of the time zone),
            or tables alone, of which all have `timezone`.
        vocabulary: of `mstar`. `slots`: the user's own places, for every city; codec and place head are trained along
            (`MstarSlotTokenizer`). `cells`: the cells of one city, read by a codec that was trained before. By default
            `cells` where `codec` or `start` is given, else `slots`.
        variant: of a new `raw`: `released` (default), windows in the box of one city; or `extended`, records in any
            city, as `raw-small`.
        size: preset of a new model: `tiny`, `small` (default), `base`, ...
        start: folder or Hub id of a model of this kind to go on with, instead of a new one.
        codec: of a new `mstar`: a folder, a Hub id, or what `train("mstar-codec", ...)` returned.
        city: `City` of the records; by default the places that occur in them (`samoe`), or their box. An M-STAR city
            without a grid gets cells of `cell_km`.
        timezone: IANA name: of a new city, and of naive times. By default that of `city`, or of the city of `start` or
            `codec` (not `samoe`, which goes on in other cities); another one is refused.
        cell_km: side of a cell of a new grid (`mstar-codec`); 1 by default.
        coverage: central share of the records, on each axis, that a new grid or box must hold (`mstar-codec`, `raw`).
        bounds: (south, west, north, east) in degrees of a new grid or box, in place of `coverage`.
        min_known: least share of known hours of a week that is trained on (M-STAR); 0.5 by default.
        fill_hours: gaps of at most so many hours in one and the same cell are filled (M-STAR); 0 by default.
        shifted_copies: of each week, moved over the grid (M-STAR; see `shift_weeks`).
        min_users: check before the training that `save_pretrained` with this `min_users` has conditions to write
            (M-STAR). The tokenizer in memory keeps those of all users.
        test_fraction: left out, for `evaluate_checkpoint` with the same fraction and seed.
        epochs, steps: passes over the data (3 by default) or batches; one of the two.
        batch_size: rows of a batch. `samoe` fills batches by length and takes none.
        learning_rate: highest; the preset's by default.
        arguments: other fields of `transformers.TrainingArguments`; those that have a keyword here are refused.
        output_dir: for checkpoints, which `save_every` or `arguments` ask for; none are written by default.
        save_every: steps from one checkpoint to the next; the last two are kept, and one is written at the end.
        resume: go on from the last whole checkpoint of `output_dir`, with the same data and options. The weights become
            those of a training without a break (on a GPU up to rounding).
        device: `cpu` or `cuda`; by default the accelerator where there is one.
        seed: of the first weights, the order of batches and the split.
        progress: show the Trainer's bar, and on stderr what is said of grid, weeks and windows.
        columns: other names of the columns, as in `user_id="uid"`.

    Returns:
        `Trained`, with `model`, `tokenizer`, `history`, `notes`, `save_pretrained` and `push_to_hub`.

    Raises:
        DataError: options that contradict each other or are of another system, numbers below their least value,
            faults of the data, and checkpoints of another training.
        ValueError: a device that is not there, or conditions of which `min_users` leaves nothing.
        OSError: no such folder, file or repository, nothing to resume from, or a checkpoint that cannot be written.

    Example:
        >>> made = train("raw", points, timezone="Asia/Shanghai", steps=1500)  # doctest: +SKIP
        >>> made.save_pretrained("my-raw")  # doctest: +SKIP
    """
    options: dict[str, Any] = {"codec": codec, "shifted_copies": shifted_copies, "min_known": min_known, "city": city}
    options |= {
        "min_users": min_users,
        "fill_hours": fill_hours,
        "cell_km": cell_km,
        "coverage": coverage,
        "bounds": bounds,
    }
    numbers = {"epochs": epochs, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    saving = {"output_dir": output_dir, "save_every": save_every, "resume": resume}
    system = form_of(system, vocabulary, codec=codec, start=start, variant=variant)
    check_options(system, **options, **numbers, **saving, size=size, start=start, arguments=arguments)
    began = time.perf_counter()
    given = {"per_device_train_batch_size": batch_size, "learning_rate": learning_rate, "max_steps": steps}
    given["num_train_epochs"] = (3.0 if steps is None else None) if epochs is None else epochs
    fields = {"save_strategy": "no", "logging_first_step": True, **on_device(device)}
    if save_every is not None:
        fields |= {"save_strategy": "steps", "save_steps": save_every, "save_total_limit": _KEPT}
    fields |= {name: value for name, value in given.items() if value is not None} | dict(arguments or {})
    checkpoint = last_checkpoint(output_dir) if resume and output_dir is not None else None
    fields["resume_from_checkpoint"] = None if checkpoint is None else str(checkpoint)
    with tempfile.TemporaryDirectory() as scratch, callers_random_state():
        set_seed(seed)
        settings = _settings(system, output_dir or scratch, seed=seed, progress=progress, fields=fields)
        tokenizer = _started_tokenizer(system, codec if start is None else start)
        recipe = Recipe(
            **options,
            size=size or "small",
            settings=settings,
            start=None if start is None else str(start),
            tokenizer=tokenizer,
            timezone=_zone(timezone, city=city, tokenizer=tokenizer),
            name=name_of(data),
            seed=seed,
            tell=on_stderr if progress else nothing,
        )
        ready, text = _prepared(system, data, recipe, test_fraction=test_fraction, columns=columns)
        tables = [visits for visits, _ in ready] if system in _SEVERAL_CITIES else [ready]
        split = {"system": system, "test_fraction": test_fraction, "seed": seed}
        if checkpoint is not None or settings.save_strategy != "no":
            told = {**numbers, **_of_the_model(recipe, codec), "arguments": _that_change_the_result(arguments)}
            training = describe_training(tables, **split, **told, data=text)
            if checkpoint is not None:
                check_same_training(checkpoint.parent, training)
                recipe.tell(f"going on from step {step_of(checkpoint)}: {checkpoint}")
                remove_after(checkpoint)
            save_training(str(settings.output_dir), training)
        try:
            made = _RECIPES[system](ready, recipe)
        except BaseException:
            if output_dir is not None and not checkpoints_in(output_dir):
                remove_checkpoints(output_dir)  # their description alone says nothing
            raise
    if start is not None:
        text += f"; before that, what {Path(start).name} was trained on"
    facts = CardFacts(training_data=f"{text}.", seed=seed)
    if system == "samoe":
        facts = dataclasses.replace(facts, privacy=with_rare_places([visits for visits, _ in ready]))
    record = TrainingRecord.of(tables, earlier=earlier_record(codec if start is None else start), **split)
    return Trained(**made._asdict(), seconds=time.perf_counter() - began, facts=facts, record=record)


# --------------------------------------------------------------------------------------------------------------- checks


def form_of(
    system: str, vocabulary: str | None = None, *, codec: Any = None, start: Any = None, variant: str | None = None
) -> str:
    """The recipe: the system, weeks of slots, or records of RAW's variant `extended`.

    Raises:
        DataError: a vocabulary or a variant of another system, an unknown one, or a variant of what is gone on with.
    """
    if variant is not None and (system != "raw" or variant not in VARIANTS):
        raise DataError(f"variant is for raw and one of {', '.join(VARIANTS)}, not {variant!r} of {system}.")
    if variant is not None and start is not None:
        raise DataError("variant: of a new model, but start= goes on with a trained one.")
    if vocabulary is not None and (system != "mstar" or vocabulary not in VOCABULARIES):
        raise DataError(
            f"vocabulary is for mstar and one of {', '.join(VOCABULARIES)}, not {vocabulary!r} of {system}."
        )
    if variant == "extended":
        return RECORDS
    is_new = system == "mstar" and codec is None and start is None
    return SLOTS if vocabulary == "slots" or (vocabulary is None and is_new) else system


def check_options(system: str, **options: Any) -> None:
    """Refuse what contradicts itself, and folders that are not there, before any data are read; `options` are those of
    `train`, None = not given.

    Raises:
        DataError: one sentence.
        FileNotFoundError: no such folder, or nothing to resume from.
    """
    if system not in _RECIPES:
        raise DataError(f"system must be one of {', '.join(SYSTEMS)}, not {system!r}.")
    given = {name: value for name, value in options.items() if value is not None}
    if not given.get("shifted_copies"):
        given.pop("shifted_copies", None)
    for name, systems in _ONLY_FOR.items():
        if name in given and system not in systems:
            named = dict.fromkeys({SLOTS: "mstar", RECORDS: "raw"}.get(one, one) for one in systems)
            other = {SLOTS: "weeks of slots", RECORDS: "raw of variant extended"}.get(system, system)
            raise DataError(f"{name} is for {' and '.join(named)}, not for {other}.")
    if system == "mstar" and ("codec" in given) == ("start" in given):
        raise DataError("mstar needs either codec=, a trained codec, or start=, a generator to go on with.")
    if "start" in given:
        fixed = _FIXED if system == "mstar-codec" else _FIXED[:1]
        if new := [name for name in fixed if name in given]:
            raise DataError(f"{' and '.join(new)}: of a new model, but start= goes on with a trained one.")
    for one, other, what in _ALTERNATIVES:
        if one in given and other in given:
            raise DataError(f"{one} and {other} both say {what}: give one of them.")
    _check_numbers(given)
    _check_arguments(given.get("arguments", {}))
    _check_saving(given)
    for name in ("start", "codec"):
        if isinstance(given.get(name), (str, Path)):
            check_folder(given[name])


def _check_numbers(given: Mapping[str, Any]) -> None:
    if given.get("shifted_copies", 0) < 0:
        raise DataError(f"shifted_copies must be 0 or more, not {given['shifted_copies']}.")
    for name in ("epochs", "learning_rate"):
        if name in given and not 0 < given[name] < math.inf:
            raise DataError(f"{name} must be above 0, not {given[name]}.")
    for name in ("steps", "batch_size", "min_users", "save_every"):
        if name in given and not (given[name] >= 1 and given[name] % 1 == 0):
            raise DataError(f"{name} must be a whole number from 1 on, not {given[name]}.")


def _check_saving(given: Mapping[str, Any]) -> None:
    resume = bool(given.get("resume", False))
    if "output_dir" in given:
        strategy = given.get("arguments", {}).get("save_strategy", "no")
        check_checkpoints(given["output_dir"], saves="save_every" in given or strategy != "no", resume=resume)
    elif resume or "save_every" in given or given.get("arguments", {}).get("save_strategy", "no") != "no":
        raise DataError("checkpoints (save_every=, resume=, save_strategy) need output_dir=, their folder.")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name in _OWN_KEYWORD:
            raise DataError(f"arguments: {name} has a keyword of its own, {_OWN_KEYWORD[name]}=.")
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    if unknown := sorted(set(arguments) - known):
        raise DataError(f"arguments: {', '.join(unknown)} is no field of transformers.TrainingArguments.")


def _that_change_the_result(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """For `training.json`: without what says when to log and save."""
    others = ("logging_", "save_", "report_to", "disable_tqdm", "dataloader_")
    return {name: value for name, value in (arguments or {}).items() if not name.startswith(others)}


def _of_the_model(recipe: Recipe, codec: Any) -> dict[str, Any]:
    """For `training.json`. Of a codec that `train` returned there is no name to compare."""
    names = ("size", "start", "cell_km", "coverage", "bounds", "min_known", "fill_hours", "shifted_copies")
    told = {name: getattr(recipe, name) for name in names}
    told["codec"] = str(codec) if isinstance(codec, (str, Path)) else None
    return told | {"city": None if recipe.city is None else recipe.city.content_hash}


def _settings(system: str, folder: Any, *, seed: int, progress: bool, fields: dict[str, Any]) -> TrainingArguments:
    quiet = {"disable_tqdm": not progress}
    return training_arguments(str(folder), preset=TRAINING_PRESETS[system], seed=seed, **{**quiet, **fields})


# ----------------------------------------------------------------------------------------------------------------- city


def _started_tokenizer(system: str, source: Any) -> Any:
    """The city of what is gone on with: `start`, or the `codec` of a new `mstar`. None for a new city; SAMoE's cities
    are those of its data."""
    if source is None or system in _SEVERAL_CITIES:
        return None
    if hasattr(source, "tokenizer"):
        return source.tokenizer
    with loading(source):
        return (RawTokenizer if system == "raw" else MstarTokenizer).from_pretrained(str(source))


def _zone(timezone: str | None, *, city: Any, tokenizer: Any) -> str | None:
    """The time zone of the records' city; None where nothing says it."""
    known = getattr(tokenizer if city is None else city, "timezone", None)
    if None not in (timezone, known) and str(timezone) != known:
        source = "start= or codec=" if city is None else "city="
        raise DataError(f"timezone={str(timezone)!r}, but {source} is in {known!r}: leave timezone out.")
    return known or timezone


# ----------------------------------------------------------------------------------------------------------------- data


def _prepared(
    system: str, data: Any, recipe: Recipe, *, test_fraction: float, columns: dict[str, str]
) -> tuple[Any, str]:
    """What the recipe takes, without the test part, and what the card says of it."""

    def part(source: Any, zone: str | None) -> Any:
        records = as_records(source, timezone=zone, **columns)
        return training_part(system, records, test_fraction=test_fraction, seed=recipe.seed)

    if system not in _SEVERAL_CITIES:
        if isinstance(data, (list, tuple)):
            raise DataError(f"{system} is trained on one city at a time, {len(data)} are given.")
        records = part(data, recipe.timezone)
        return records, _describe(records, name_of(data))
    pairs = _pairs(data, recipe)
    if any(where is None for _, where in pairs):
        raise DataError("The time zone is missing: pass timezone=, such as 'Europe/Berlin', or city=.")
    if system == RECORDS:
        cities = [_city_of_points(source, where, part) for source, where in pairs]
    else:
        cities = [_city_of(source, where, part, bool(test_fraction)) for source, where in pairs]
    texts = [_describe(visits, city.name) for visits, city in cities]
    return cities, "; ".join(texts)


def _pairs(data: Any, recipe: Recipe) -> list[tuple[Any, Any]]:
    """(visits, `City` or name of the time zone or None), one per city."""
    if not isinstance(data, (list, tuple)):
        return [(data, recipe.city or recipe.timezone)]
    if not data:
        raise DataError("There is no city to train on: the list is empty.")
    if recipe.city is not None:
        raise DataError("city= is that of one table: in a list, give each its own, as in (visits, city).")
    paired = [isinstance(entry, (list, tuple)) for entry in data]
    if recipe.timezone is not None and all(paired):
        raise DataError(
            "timezone= is that of visits alone: every entry of the list has a city or time zone of its own."
        )
    entries = [entry if pair else (entry, recipe.timezone) for entry, pair in zip(data, paired)]
    if wrong := [number for number, entry in enumerate(entries) if len(entry) != 2]:
        raise DataError(f"{len(wrong)} entries of the list are no pairs (visits, city or time zone), first {wrong[0]}.")
    return [(source, where) for source, where in entries]


def _city_of(source: Any, where: Any, part: Callable[..., Any], left_out: bool) -> tuple[pd.DataFrame, City]:
    """Training visits and their city; `where` is a `City` or the name of a time zone."""
    if not isinstance(where, City):
        visits = part(source, where)
        _check_visits(visits)
        return visits, City.from_visits(visits, timezone=where, name=name_of(source))
    visits = part(source, where.timezone)
    _check_visits(visits)
    return visits, where.with_popularity(visits) if left_out else where


def _city_of_points(source: Any, where: Any, part: Callable[..., Any]) -> tuple[pd.DataFrame, City]:
    """Training points and their city, of which only the clock is used."""
    points = part(source, getattr(where, "timezone", where))
    refuse_weeks(points, "trained")
    if isinstance(where, City):
        return points, where
    return points, RawTokenizer.from_points(points, timezone=where, name=name_of(source)).city


def _check_visits(visits: Any) -> None:
    if isinstance(visits, WeekTable) or "location_id" not in visits:
        raise DataError("places are learned from visits: the table has no column location_id (assign_cells makes it).")


def _describe(records: Any, name: str) -> str:
    if isinstance(records, WeekTable):
        text = f"{len(records):,} weeks"
    else:
        kind = "visits" if "location_id" in records else "points"
        text = f"{len(records):,} {kind} of {records['user_id'].nunique():,} users"
    return f"{name}: {text}" if name else text
