"""`train` and `adapt`: records in, a folder with model, city and card out."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from . import files, parts
from .options import (
    BatchSize,
    Bounds,
    CellKm,
    Coverage,
    Device,
    FillHours,
    Folder,
    MinKnown,
    Model,
    NewCity,
    Seed,
    SharedBy,
    Strength,
    System,
    TestFraction,
    Unknown,
)
from .reading import Reading

CHECKPOINTS = "checkpoints"  # in the output, while it is trained


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Visits, points (raw) or weeks, files or folders: one, or one a city (samoe, raw extended, new mstar)."
        ),
    ],
    output: Folder,
    system: Annotated[System, typer.Option(help="What to train.")] = "samoe",
    variant: Annotated[str | None, typer.Option(help="Of a new raw: released or extended.")] = None,
    size: Annotated[str | None, typer.Option(help="Preset: tiny, small, base, ...", show_default="small")] = None,
    codec: Annotated[str | None, typer.Option(help="Folder or Hub id of the codec of a new mstar.")] = None,
    start: Annotated[str | None, typer.Option(help="Folder or Hub id of a model to go on with.")] = None,
    city: NewCity = None,
    bounds: Bounds = None,
    coverage: Coverage = None,
    cell_km: CellKm = None,
    min_known: MinKnown = None,
    fill_hours: FillHours = None,
    shifted_copies: Annotated[int, typer.Option(help="Copies of each week, moved over the grid (M-STAR).")] = 0,
    min_users: SharedBy = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.", show_default="3")] = None,
    steps: Annotated[int | None, typer.Option(help="Batches instead of epochs.")] = None,
    batch_size: BatchSize = None,
    learning_rate: Annotated[float | None, typer.Option(help="The preset's by default.")] = None,
    test_fraction: TestFraction = 0.0,
    save_every: Annotated[int, typer.Option(help="Steps from one checkpoint to the next; 0 writes none.")] = 500,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of OUTPUT.")] = False,
    seed: Seed = 0,
    device: Device = None,
    timezone: Annotated[list[str], typer.Option(help="IANA name: one for all cities, or one per file.")] = [],  # noqa: B006
    *,
    reading: Reading,
) -> None:
    """Train a model, and save it with its city and a card.

    On the way checkpoints are written to the folder "checkpoints" of the output, and removed at the end.

    \b
    hf-mobility train paris.parquet lyon.parquet --timezone Europe/Paris --size small -o my-samoe
    hf-mobility train 'visits/*.parquet' --timezone Europe/Paris -o my-samoe
    hf-mobility train points.parquet --system raw --timezone Asia/Shanghai --coverage 0.99 -o my-raw
    hf-mobility train points.parquet --system raw --start my-raw --steps 500 -o my-raw-2
    hf-mobility train here.parquet there.parquet --system raw --variant extended --timezone Asia/Shanghai -o anywhere
    hf-mobility train visits.parquet --timezone Europe/Berlin --system mstar -o weeks
    hf-mobility train visits.parquet --timezone Europe/Berlin --system mstar-codec --cell-km 0.5 -o codec
    hf-mobility train visits.parquet --system mstar --codec codec -o generator
    hf-mobility train few.parquet --system mstar --codec codec --shifted-copies 60 -o before
    hf-mobility train few.parquet --system mstar --start before -o generator
    hf-mobility train few.parquet --system mstar --start before -o generator --resume
    """
    if len(timezone) not in (0, 1, len(data)):
        raise typer.BadParameter(f"give --timezone once, or once per file ({len(data)}); it is given {len(timezone)}x")
    options: dict[str, Any] = {
        "codec": codec,
        "bounds": files.bounds_of(bounds),
        "coverage": coverage,
        "cell_km": cell_km,
    }
    options |= {"min_known": min_known, "fill_hours": fill_hours, "shifted_copies": shifted_copies}
    from ..tokenization.city_files import MIN_USERS

    if min_users is None and system in ("mstar-codec", "mstar"):
        min_users = MIN_USERS
    options |= {"min_users": min_users, "size": size, "start": start, "epochs": epochs}
    options |= {"steps": steps, "batch_size": batch_size}
    checkpoints = output / CHECKPOINTS
    options |= {"output_dir": checkpoints, "save_every": save_every or None, "resume": resume}
    if city is not None and len(data) > 1:
        raise typer.BadParameter("--city is that of one file; several files have one city each")
    files.check_folder(output)
    reading.check(*map(parts.one_of, data), city)
    from ..hub.device import check_device
    from ..training.same_training import remove_checkpoints
    from ..training.train import check_options, form_of
    from ..training.train import train as fit

    check_device(device)
    check_options(form_of(system, codec=codec, start=start, variant=variant), **options, city=city)
    given: list[Any] = timezone or [None]
    zones = given if len(given) == len(data) else given * len(data)
    tables: list[Any] = [replace(reading, timezone=zone).records(path) for path, zone in zip(data, zones)]
    place = replace(reading, timezone=zones[0]).city(city)
    files.doing(f"training {system}")
    several = len(data) > 1
    is_new = not output.exists()
    try:
        made = fit(
            system,
            list(zip(tables, zones)) if several else tables[0],
            **options,
            variant=variant,
            city=place,
            timezone=None if several else zones[0],
            learning_rate=learning_rate,
            test_fraction=test_fraction,
            seed=seed,
            device=device,
            progress=True,
        )
    except BaseException:
        if is_new and output.is_dir() and not any(output.iterdir()):
            output.rmdir()
        raise
    facts = replace(made.facts, command=own_command(output))
    save(made, output, facts=facts, min_users=min_users or MIN_USERS)
    if save_every or resume:
        remove_checkpoints(checkpoints)
    files.done(f"{type(made.model).__name__}, {made.model.num_parameters():,} parameters", output)


def adapt(
    model: Model,
    visits: Annotated[Path, typer.Argument(help="File, or folder of files, of visits, or of points (RAW).")],
    output: Folder,
    strength: Annotated[Strength, typer.Option(help="auto tries them on held-out users.")] = "auto",
    city: NewCity = None,
    unknown: Annotated[Unknown, typer.Option(help="Places that the city does not list.")] = "error",
    base_model: Annotated[str | None, typer.Option(help="Hub id that the adapter is to name as its base.")] = None,
    test_fraction: TestFraction = 0.0,
    seed: Seed = 0,
    device: Device = None,
    *,
    reading: Reading,
) -> None:
    """Fit a LoRA adapter to a city, and save it with the city and a card.

    Data: visits for SAMoE, visits of whole weeks for M-STAR's weeks of slots, points for RAW's variant extended.

    \b
    hf-mobility adapt checkpoints/samoe-small visits.parquet --timezone Europe/Paris -o my-city
    hf-mobility adapt checkpoints/samoe-small visits.parquet --timezone Europe/Paris --test-fraction 0.2 -o tested
    hf-mobility evaluate tested visits.parquet --test-fraction 0.2
    hf-mobility adapt checkpoints/raw-small points.parquet --timezone Europe/Paris -o my-positions
    """
    files.check_folder(output)
    reading.check(parts.one_of(visits), city)
    if reading.timezone is None and (city is None or not city.is_dir()):
        raise ValueError("The time zone of the city is missing: give --timezone, such as Europe/Berlin.")
    from ..hub.device import check_device
    from ..training.adapt import adapt as fit

    check_device(device)
    records, place = reading.records(visits), reading.city(city)
    files.doing(f"adapting {model}")
    local = fit(
        model,
        records,
        city=place,
        timezone=reading.timezone,
        strength=strength,
        unknown=unknown,
        test_fraction=test_fraction,
        seed=seed,
        device=device,
        progress=True,
    )
    facts = replace(local.facts, command=own_command(output))
    save(local, output, base_model=base_model, facts=facts)
    files.say(local.reason)
    places = len(local.tokenizer.city)
    files.done("adapter and city" + (f" ({places:,} places)" if places else ""), output)


def save(made: Any, output: Path, **options: Any) -> None:
    """Save what was trained; where the output cannot be written any more, in a new folder elsewhere.

    Raises:
        OSError: naming what is left.
    """
    try:
        made.save_pretrained(output, **options)
    except OSError as error:
        left, elsewhere = "", Path(tempfile.mkdtemp(prefix="hf-mobility-"))
        try:
            made.save_pretrained(elsewhere, **options)
            left = f": what was trained lies in {elsewhere}"
        except OSError:
            shutil.rmtree(elsewhere)
            if (output / CHECKPOINTS).is_dir():
                left = f": what was trained lies in {output / CHECKPOINTS}, from where --resume saves it"
        raise OSError(f"{output} could not be written ({error.strerror or error}){left}.") from error


def own_command(output: Path) -> str:
    """For the card: files and folders by their last part, which says less of the machine; and without `--resume`, as
    the whole training would be repeated."""
    from ..hub.card_facts import with_base_names

    def is_path(word: str) -> bool:
        return word == str(output) or word.count("/") > 1 or word.startswith(("/", "~", ".")) or Path(word).exists()

    words = [word for word in sys.argv[1:] if word != "--resume"]
    return with_base_names(["hf-mobility", *words], is_path=is_path)
