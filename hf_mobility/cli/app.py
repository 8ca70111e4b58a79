"""`hf-mobility`: the verbs of the package as commands, files in and files out.

Unusual: a command holds no method of its own, it reads, calls one verb and writes. What is wrong with data or arguments
is said by the library, in its one sentence on stderr, with exit code 1; 2 is a command that was written wrongly. Heavy
packages are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import files

app = typer.Typer(
    name="hf-mobility",
    help="Models of human mobility: next places, synthetic weeks, embeddings. Files are .parquet, .csv or .geoparquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Timezone = Annotated[str | None, typer.Option(help="IANA name, for naive times and for a new city.")]
Columns = Annotated[list[str], typer.Option("--column", metavar="ROLE=NAME", help="A column's name in the file.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write; its suffix says how.")]
MaybeOutput = Annotated[Path | None, typer.Option("--output", "-o", help="File to write as well.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Model = Annotated[str, typer.Argument(help="Folder or Hub id.")]
Visits = Annotated[Path, typer.Argument(help="File of visits: user_id, time, location_id, lat, lon.")]
NewCity = Annotated[Path | None, typer.Option("--city", help="Visits or places of another city than the checkpoint's.")]
Reader = Literal["table", "tsmc2014", "tist2015", "gowalla", "yjmob100k", "geolife", "cabspotting"]
KeptOut = Annotated[float, typer.Option("--test-fraction", help="Left out, for `evaluate` with the same one and seed.")]
System = Literal["samoe", "mstar-codec", "mstar", "raw"]
Strength = Literal["auto", "none", "weak", "strong"]
Unknown = Literal["error", "nearest", "drop"]
Pooling = Literal["sum", "mean", "log"]


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose faults in data and arguments end in one sentence and exit code 1."""

    @wraps(function)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"hf-mobility: {error}{_as_options(str(error), function)}", err=True)
            raise typer.Exit(1) from error

    return app.command()(told)


def _as_options(sentence: str, function: Callable[..., None]) -> str:
    """The library speaks of arguments; which of them the command has as options."""
    spoken = set(re.findall(r"\b([a-z_]+)(?:=| must\b)", sentence)) & set(inspect.signature(function).parameters)
    options = [f"--{name.replace('_', '-')}" for name in sorted(spoken)]
    options += [f"--column {role}=NAME" for role in re.findall(r"as in (\w+)='my_column'", sentence)]
    missing = [option for option in options if option not in sentence]
    return f" (Here: {', '.join(missing)}.)" if missing else ""


@_command
def prepare(
    output: Output,
    source: Annotated[Path | None, typer.Argument(help="File (or folder of a GPS set) to read.")] = None,
    reader: Annotated[Reader, typer.Option(help="Public format of the source.")] = "table",
    places: Annotated[Path | None, typer.Option(help="Second file of tist2015: the POIs.")] = None,
    box: Annotated[str | None, typer.Option(metavar="S,W,N,E", help="Of check-ins, degrees.")] = None,
    anchor: Annotated[str | None, typer.Option(metavar="LAT,LON", help="Of yjmob100k, whose place is hidden.")] = None,
    start: Annotated[str, typer.Option(help="First day of yjmob100k or of a simulation.")] = "2024-01-01",
    points: Annotated[bool, typer.Option("--points", help="Keep GPS points as they are; else stays in cells.")] = False,
    cell_km: Annotated[float, typer.Option(help="Side in km of the cells that stays of GPS sets lie in.")] = 0.5,
    simulate: Annotated[int | None, typer.Option(metavar="PEOPLE", help="Simulate a city instead of reading.")] = None,
    days: Annotated[int, typer.Option(help="Of a simulation.")] = 56,
    observe: Annotated[float, typer.Option(help="Share of simulated visits that are kept.")] = 1.0,
    card: Annotated[Path | None, typer.Option(help="Where to write a dataset card of a simulation.")] = None,
    seed: Seed = 0,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
) -> None:
    """Public formats, tables or a simulation -> one checked table of visits.

    \b
    hf-mobility prepare checkins.csv -o visits.parquet --timezone Europe/Paris --column user_id=uid
    hf-mobility prepare dataset_TSMC2014_NYC.txt --reader tsmc2014 -o nyc.parquet
    hf-mobility prepare Geolife/Data --reader geolife -o beijing.parquet --cell-km 0.5
    hf-mobility prepare --simulate 200 --days 28 --seed 1 -o simville.parquet --card README.md
    """
    if (source is None) == (simulate is None):
        raise typer.BadParameter("give either a source to read or --simulate PEOPLE")
    if card is not None and simulate is None:
        raise typer.BadParameter("--card describes a simulation; give --simulate PEOPLE as well")
    files.check_suffix(output)
    if simulate is not None:
        zone = {"timezone": timezone} if timezone else {}
        frame = files.simulated(simulate, card, num_days=days, seed=seed, observe=observe, start=start, **zone)
    elif source is not None:
        frame = files.read_source(
            source,
            reader,
            places=places,
            box=files.numbers(box, 4),
            anchor=files.numbers(anchor, 2),
            start=start,
            cell_km=None if points else cell_km,
            timezone=timezone,
            columns=files.column_names(column),
        )
    files.write_frame(frame, output)
    rejected = frame.attrs.get("read_report", {}).get("rejected")
    left_out = f"; left out: {rejected}" if rejected else ""
    files.done(f"{len(frame):,} rows of {frame['user_id'].nunique():,} people{left_out}", output)


@_command
def train(
    visits: Annotated[list[Path], typer.Argument(help="One file of visits per city.")],
    output: Folder,
    system: Annotated[System, typer.Option(help="What to train.")] = "samoe",
    size: Annotated[str | None, typer.Option(help="Preset: tiny, small, base, ...", show_default="small")] = None,
    codec: Annotated[str | None, typer.Option(help="Folder of the codec of a new mstar.")] = None,
    start: Annotated[str | None, typer.Option(help="Folder of a trained mstar to go on with.")] = None,
    shifted_copies: Annotated[int, typer.Option(help="Of each week, moved over the grid; for few weeks (M-STAR).")] = 0,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = 3.0,
    steps: Annotated[int, typer.Option(help="Batches instead of epochs.")] = -1,
    batch_size: Annotated[int | None, typer.Option(help="Rows of a batch; samoe fills batches by length.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The preset's by default.")] = None,
    test_fraction: KeptOut = 0.0,
    seed: Seed = 0,
    timezone: Annotated[list[str], typer.Option(help="Of the cities: one for all, or one per file.")] = [],  # noqa: B006
    column: Columns = [],  # noqa: B006
) -> None:
    """Train a model from visits, and save it with its city and a card.

    \b
    hf-mobility train paris.parquet lyon.parquet --timezone Europe/Paris --size small -o my-samoe
    hf-mobility train simville.parquet --timezone Europe/Berlin --system mstar-codec --steps 1500 -o codec
    hf-mobility train simville.parquet --timezone Europe/Berlin --system mstar --codec codec -o generator
    hf-mobility train few.parquet --timezone Europe/Berlin --system mstar-codec --shifted-copies 3 -o codec
    hf-mobility train few.parquet --timezone Europe/Berlin --system mstar --codec codec --shifted-copies 60 -o before
    hf-mobility train few.parquet --timezone Europe/Berlin --system mstar --start before -o generator
    hf-mobility train simville.parquet --timezone Europe/Berlin --system raw --test-fraction 0.2 -o encoder
    """
    if len(timezone) not in (1, len(visits)):
        raise typer.BadParameter(
            f"give --timezone once, or once per file ({len(visits)}); it is given {len(timezone)}x"
        )
    from ..hub.cards import CardFacts, write_card
    from . import train as cli_train
    from .evaluate import training_part

    zones = timezone if len(timezone) == len(visits) else timezone * len(visits)
    cities = files.read_cities(visits, zones, columns=files.column_names(column))
    if test_fraction:
        known = partial(training_part, system, test_fraction=test_fraction, seed=seed)
        cities = [(name, known(frame), zone) for name, frame, zone in cities]
    given = {"per_device_train_batch_size": batch_size, "learning_rate": learning_rate}
    arguments = {"num_train_epochs": epochs, "max_steps": steps}
    arguments |= {name: value for name, value in given.items() if value is not None}
    model, tokenizer = cli_train.train(
        system,
        cities,
        size=size,
        codec=codec,
        start=start,
        copies=shifted_copies,
        seed=seed,
        folder=output,
        arguments=arguments,
    )
    model.config.use_cache = True  # the Trainer turned it off
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    people = [f"{name}: {len(frame):,} visits of {frame['user_id'].nunique():,} people" for name, frame, _ in cities]
    people += [f"before that, what {Path(start).name} was trained on"] if start else []
    facts = CardFacts(training_data="; ".join(people) + ".", command=_own_command(), seed=seed)
    write_card(output, model, tokenizer=tokenizer, facts=facts)
    files.done(f"{type(model).__name__}, {model.num_parameters():,} parameters", output)


@_command
def adapt(
    model: Model,
    visits: Visits,
    output: Folder,
    strength: Annotated[Strength, typer.Option(help="auto asks held-out people.")] = "auto",
    base_model: Annotated[str | None, typer.Option(help="Hub id that the adapter is to name as its base.")] = None,
    test_fraction: KeptOut = 0.0,
    seed: Seed = 0,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
) -> None:
    """Fit a LoRA adapter of SAMoE to a city, and save it with the city and a card.

    \b
    hf-mobility adapt checkpoints/samoe-small visits.parquet --timezone Europe/Paris -o my-city
    hf-mobility adapt checkpoints/samoe-small visits.parquet --timezone Europe/Paris --test-fraction 0.2 -o judged
    hf-mobility evaluate judged visits.parquet --test-fraction 0.2
    """
    columns = files.column_names(column)
    city = files.read_city(visits, timezone=timezone, columns=columns)
    frame = files.read_visits(visits, timezone=timezone, columns=columns)
    from ..hub.cards import CardFacts
    from ..training.adapt import adapt as fit
    from .evaluate import training_part

    if test_fraction:
        frame = training_part("samoe", frame, test_fraction=test_fraction, seed=seed)
        city = city.with_popularity(frame)
    local = fit(model, city, frame, strength=strength, seed=seed)
    text = f"The adapter: {len(frame):,} visits of {frame['user_id'].nunique():,} people."
    facts = CardFacts(notes=local.reason, training_data=text, command=_own_command(), seed=seed)
    local.save_pretrained(output, base_model=base_model, facts=facts)
    files.done(local.reason)
    files.done(f"adapter and city ({len(city):,} places)", output)


@_command
def predict(
    model: Model,
    visits: Visits,
    output: Output,
    top_k: Annotated[int, typer.Option(help="Places per person.")] = 5,
    city: NewCity = None,
    unknown: Annotated[Unknown, typer.Option(help="Places that the city does not list.")] = "error",
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
) -> None:
    """The next place of everybody in a table of visits.

    \b
    hf-mobility predict my-city visits.parquet -o next.csv --top-k 3
    hf-mobility predict checkpoints/samoe-small visits.csv --city visits.csv --timezone Europe/Paris -o next.geoparquet
    """
    files.check_suffix(output)
    columns = files.column_names(column)
    frame = files.read_visits(visits, timezone=timezone, columns=columns)
    place = None if city is None else files.read_city(city, timezone=timezone, columns=columns)
    from ..pipelines.next_location import NextLocationPipeline

    pipe = NextLocationPipeline.from_pretrained(model, city=place)
    table = pipe.predict(frame, top_k=top_k, unknown=unknown)
    files.write_frame(table, output)
    files.done(f"{len(table):,} places for {table['user_id'].nunique():,} people", output)


@_command
def generate(
    model: Model,
    output: Output,
    number: Annotated[int, typer.Option("--number", "-n", help="Weeks.")] = 1000,
    start: Annotated[str, typer.Option(help="Local date of the first hour.")] = "2024-01-01",
    batch_size: Annotated[int, typer.Option(help="Weeks at one time.")] = 256,
    seed: Seed = 0,
) -> None:
    """Synthetic weeks of hourly cells, one row per hour.

    \b
    hf-mobility generate checkpoints/mstar-small -n 1000 --seed 0 -o weeks.parquet
    """
    files.check_suffix(output)
    from ..pipelines.trajectory_generation import TrajectoryGenerationPipeline

    pipe = TrajectoryGenerationPipeline.from_pretrained(model, batch_size=batch_size)
    table = pipe.generate(number, seed=seed, start=start, progress=sys.stderr.isatty())
    files.write_frame(table, output)
    files.done(f"{number:,} weeks", output)


@_command
def embed(
    model: Model,
    points: Annotated[Path, typer.Argument(help="File of points (user_id, time, lat, lon) or visits.")],
    output: Output,
    regions: Annotated[Path | None, typer.Option(help="GeoJSON: embed regions instead of people.")] = None,
    cell_km: Annotated[float | None, typer.Option(help="Embed square cells of this side in km as regions.")] = None,
    pooling: Annotated[Pooling, typer.Option(help="Of the people of a region.")] = "sum",
    min_users: Annotated[int, typer.Option(help="Regions with fewer people are left out.")] = 5,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
) -> None:
    """Vectors of people, or of regions by who was there (RAW).

    \b
    hf-mobility embed checkpoints/raw-small points.parquet -o people.parquet
    hf-mobility embed checkpoints/raw-small points.parquet --cell-km 1.0 -o cells.parquet
    """
    if regions is not None and cell_km is not None:
        raise typer.BadParameter("give either --regions or --cell-km")
    files.check_suffix(output)
    frame = files.read_visits(points, timezone=timezone, columns=files.column_names(column))
    from ..pipelines.embedding import MobilityEmbeddingPipeline
    from ..tokenization.grid import SquareGrid

    pipe = MobilityEmbeddingPipeline.from_pretrained(model)
    progress = sys.stderr.isatty()
    if regions is None and cell_km is None:
        table = pipe.embed_users(frame, progress=progress)
    else:
        where: Any = regions
        if cell_km is not None:
            where = SquareGrid.around(frame["lat"], frame["lon"], cell_km=cell_km)
        table = pipe.embed_regions(frame, where, pooling=pooling, min_users=min_users, progress=progress)
    files.write_frame(table, output)
    files.done(f"{len(table):,} vectors", output)


@_command
def evaluate(
    model: Model,
    visits: Visits,
    output: MaybeOutput = None,
    city: NewCity = None,
    test_fraction: Annotated[float, typer.Option(help="Of each person's visits, or of the people.")] = 0.2,
    seed: Seed = 0,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
) -> None:
    """Judge a model on visits that it was not trained on, baselines first.

    SAMoE: ranking of everybody's last visits. M-STAR: fidelity of generated weeks to those of a part of the people.
    RAW: positions of a part of the people rolled out. Train and adapt with the same --test-fraction and --seed.

    \b
    hf-mobility evaluate checkpoints/samoe-small visits.parquet --city visits.parquet --timezone Europe/Paris
    hf-mobility evaluate judged visits.parquet -o results.csv
    """
    files.check_suffix(output)
    columns = files.column_names(column)
    frame = files.read_visits(visits, timezone=timezone, columns=columns)
    place = None if city is None else files.read_city(city, timezone=timezone, columns=columns)
    from .evaluate import judge

    table, short = judge(model, frame, city=place, test_fraction=test_fraction, seed=seed)
    files.done(short.to_string(index=False))
    for note in table.attrs.get("notes", ()):
        typer.echo(f"hf-mobility: {note}", err=True)
    if output is not None:
        files.write_frame(table, output)
        files.done("all measures", output)


@_command
def audit(
    data: Annotated[Path, typer.Argument(help="Generated weeks, or visits.")],
    output: MaybeOutput = None,
    train: Annotated[Path | None, typer.Option(help="What the generator was trained on.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Weeks or visits of other real people.")] = None,
    city: Annotated[str | None, typer.Option(help="Generator whose grid turns visits into weeks.")] = None,
    min_people: Annotated[int, typer.Option(help="Places with fewer people count as rare.")] = 5,
    seed: Seed = 0,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
) -> None:
    """What visits, or generated weeks, give away about single people.

    \b
    hf-mobility audit visits.parquet -o audit.csv
    hf-mobility audit weeks.parquet --train train.parquet --held-out others.parquet --city checkpoints/mstar-small
    """
    files.check_suffix(output)
    from ..evaluation import audit as measure

    how: dict[str, Any] = {"timezone": timezone, "columns": files.column_names(column)}
    if (train is None) != (held_out is None) or (train is None and files.holds_weeks(data)):
        raise typer.BadParameter("weeks are compared with others: give both --train and --held-out")
    if train is None or held_out is None:
        table = measure(files.read_visits(data, **how), min_people=min_people, seed=seed)
    else:
        tables = (files.read_week_cells(path, city=city, **how) for path in (data, train, held_out))
        (made, _), (known, users), (other, _) = tables
        table = measure(made, train=known, held_out=other, train_users=users, min_people=min_people, seed=seed)
    for sentence in table["sentence"]:
        files.done(sentence)
    if output is not None:
        files.write_frame(table, output)
        files.done(f"{len(table)} measures", output)


@_command
def info(target: Annotated[str, typer.Argument(help="A model's folder or Hub id, or a file of visits.")]) -> None:
    """What a checkpoint or a table of visits holds.

    \b
    hf-mobility info checkpoints/samoe-small
    hf-mobility info visits.parquet
    """
    for name, value in files.facts_of(target).items():
        files.done(f"{name + ':':14}{value}")


@_command
def push(
    folder: Annotated[Path, typer.Argument(help="A saved model, pipeline or adapter.")],
    repo_id: Annotated[str, typer.Argument(help="user/name, or name below your own.")],
    private: Annotated[bool, typer.Option("--private", help="Of a new repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; main by default.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id for an adapter's base.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Upload a saved folder to the Hugging Face Hub (log in with `hf auth login` first).

    \b
    hf-mobility push my-city me/my-city --private
    """
    from .push import SavedFolder

    options: dict[str, Any] = {"base_model": base_model} if base_model else {}
    message = message or f"Upload {folder.name}"
    commit = SavedFolder(folder).push_to_hub(
        repo_id, private=private or None, revision=revision, commit_message=message, **options
    )
    files.done(str(commit.commit_url))


def _own_command() -> str:
    return shlex.join(["hf-mobility", *sys.argv[1:]])


if __name__ == "__main__":
    app()
