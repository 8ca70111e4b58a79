"""`info` and `push`: what a folder or file holds, and a folder sent to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import files
from .options import MaybeOutput, SharedBy
from .reading import Reading


def info(
    target: Annotated[str, typer.Argument(help="A model's folder or Hub id, or a file of visits.")],
    output: MaybeOutput = None,
) -> None:
    """What a checkpoint or a table of visits holds.

    \b
    hf-mobility info checkpoints/samoe-small
    hf-mobility info visits.parquet -o facts.csv
    """
    files.check_output(output)
    facts = _facts_of_file(Path(target)) if Path(target).is_file() else _facts_of_model(target)
    for name, value in facts.items():
        files.say(f"{name + ':':14}{value}", output=output)
    if output is not None:
        import pandas as pd

        files.write_frame(
            pd.DataFrame({"what": list(facts), "value": [str(value) for value in facts.values()]}), output
        )
        files.done(f"{len(facts)} lines", output)


def push(
    folder: Annotated[Path, typer.Argument(help="A saved model, pipeline or adapter.")],
    repo_id: Annotated[str, typer.Argument(help="user/name, or name below your own.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; main by default.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id for an adapter's base.")] = None,
    base_revision: Annotated[
        str | None, typer.Option(help="Revision of the base model that the adapter names.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    min_users: SharedBy = None,
) -> None:
    """Upload the model files of a saved folder to the Hugging Face Hub (log in with `hf auth login` first).

    Says before sending which files go, what the city lists, and who will see them.

    \b
    hf-mobility push my-city me/my-city --private
    """
    from ..hub.folder import SavedFolder

    message = message or f"Upload {folder.resolve().name}"
    commit = SavedFolder(folder).push_to_hub(
        repo_id,
        private=private or None,
        revision=revision,
        commit_message=message,
        base_model=base_model,
        base_revision=base_revision,
        min_users=5 if min_users is None else min_users,
    )
    typer.echo(str(commit.commit_url))


def _facts_of_file(path: Path) -> dict[str, Any]:
    from ..data.weeks import WeekTable

    reading = Reading(timezone="UTC")
    data = reading.records(path)
    if isinstance(data, WeekTable):
        return _facts_of_weeks(data)
    frame = reading.visits(path)
    span = f"{frame['time'].min():%Y-%m-%d} to {frame['time'].max():%Y-%m-%d}"
    facts = {"rows": f"{len(frame):,}", "users": f"{frame['user_id'].nunique():,}", "time": span}
    if "location_id" in frame:
        facts["places"] = f"{frame['location_id'].nunique():,}"
    return facts | {"columns": ", ".join(frame.columns)}


def _facts_of_weeks(table: Any) -> dict[str, Any]:
    users = "not named" if table.user_id is None else f"{len(set(table.user_id.tolist())):,}"
    facts = {"weeks": f"{len(table):,}", "users": users, "slots": table.cells.shape[1]}
    if table.grid is not None:
        facts["grid"] = f"{table.grid.rows} x {table.grid.columns}"
    return facts | {"known": f"{table.known.mean():.0%} of the hours", "zone": table.timezone or "not named"}


def _facts_of_model(target: str) -> dict[str, Any]:
    """A few lines about a model's folder or Hub id; no weight is read."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import find_adapter_config_file

    from ..hub.requests import loading

    with loading(target):
        if find_adapter_config_file(target) is not None:
            from peft import PeftConfig

            config: Any = PeftConfig.from_pretrained(target)
            facts = {"adapter": config.peft_type.value, "base": config.base_model_name_or_path}
        else:
            config = AutoConfig.from_pretrained(target)
            facts = {"model": ", ".join(config.architectures or ["not saved with a model"]), "type": config.model_type}
        tokenizer = AutoTokenizer.from_pretrained(target)
    local = {"tokenizer": type(tokenizer).__name__, "city": getattr(tokenizer, "name", ""), "zone": tokenizer.timezone}
    sizes = {"cells": getattr(tokenizer, "num_cells", 0), "places": len(getattr(tokenizer, "location_ids", ()))}
    return facts | local | {what: f"{size:,}" for what, size in sizes.items() if size}
