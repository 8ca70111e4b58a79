"""What a model card says that cannot be read from the weights, and what it takes over from the card of the checkpoint
that the weights come from.

A licence goes with the weights: a checkpoint that is saved again or adapted keeps it, and the account of its training
data, unless its owner writes another. Words of another card are quoted, and cut where they are long.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCard

from ..tokenization.city_files import MIN_USERS

LONGEST_QUOTE, LONGEST_LICENSE = 4000, 100  # characters


@dataclass(frozen=True)
class CardFacts:
    """What cannot be read from the weights; Markdown texts, all optional.

    summary: first paragraph. notes: limits of this checkpoint. usage_note: below the snippet. training_data, bias: what
    it was trained on, and who is missing there. weights_license: an identifier of the Hub such as "apache-2.0", or
    words of your own; data_license alike. license_link: address of the licence of the weights, or the name of its file
    in the folder. datasets: their ids, as the Hub lists them. command, seed, versions: what made it (versions of this
    process by default).
    results: a table as `summarize`, `fidelity_report` or `horizon_table` return it (`model`, metrics, and `city` or
    `data`), in which the names of this model's rows begin with `ours` and all others are baselines. figures: in place
    of the printed table. privacy: what `hf_mobility.evaluation.audit` returned, or words.
    """

    summary: str = ""
    notes: str = ""
    usage_note: str = ""
    training_data: str = "Not recorded."
    bias: str = "Not recorded. Find out who is missing from the training data before you rely on this model."
    weights_license: str = "unknown"
    data_license: str = "not recorded"
    license_link: str = ""
    datasets: tuple[str, ...] = ()
    command: str = ""
    seed: int | None = None
    versions: str = ""
    results: pd.DataFrame | None = None
    ours: str = ""
    figures: str = ""
    privacy: pd.DataFrame | str = (
        "No audit of this checkpoint is recorded. `hf_mobility.evaluation.audit` measures copies, nearness to the "
        "training weeks, rare places and unicity."
    )


def with_rare_places(tables: Sequence[pd.DataFrame], *, min_users: int = MIN_USERS) -> str:
    """For `privacy`: of how many places in canonical frames of visits, one a city, few users were. The city's files do
    not say it."""
    people = [visits.groupby("location_id", observed=True)["user_id"].nunique() for visits in tables]
    few, places = (sum(map(len, counts)) for counts in ([some[some < min_users] for some in people], people))
    return (
        f"{CardFacts.privacy}\n\nIn the training visits, {few:,} of {places:,} places were those of fewer than "
        f"{min_users} users."
    )


def with_inherited(facts: CardFacts, config: Any, *, adapter: bool) -> CardFacts:
    """`facts`, completed by the card beside the weights that `config` was loaded with, if there is one: both licences,
    training data and who is missing there. What `facts` says itself goes before; what an adapter was trained on comes
    on top of its base's data."""
    where = str(getattr(config, "name_or_path", "") or "")
    commit = getattr(config, "_commit_hash", None)  # of a model of the Hub
    path = _card_beside(where, commit)
    if path is None:
        return facts
    try:
        card = ModelCard.load(path, ignore_metadata_errors=True)
    except Exception:  # what YAML can be wrong in is many; a card that cannot be read says nothing
        return facts
    terms, sections = card.data.to_dict(), _sections(card.text)
    source = where if commit else Path(where).name  # no path of this machine
    if facts.weights_license == CardFacts.weights_license:  # the link goes with the licence, never without it
        facts = replace(facts, license_link=_link(terms.get("license_link"), where if commit else ""))
    facts = replace(facts, datasets=facts.datasets or _ids(terms.get("datasets")))
    found: dict[str, Any] = {
        "weights_license": terms.get("license_weights") or terms.get("license_name") or terms.get("license"),
        "data_license": terms.get("license_data"),
        "training_data": sections.get("Training data"),
        "bias": sections.get("Sampling bias"),
    }
    unsaid: dict[str, Any] = {field.name: field.default for field in fields(CardFacts)}
    for name, words in found.items():
        if not words or words == unsaid[name]:
            continue
        text: Any = _quoted(words, source) if name in ("training_data", "bias") else _in_one_line(words)
        said = getattr(facts, name)
        if said == unsaid[name]:
            facts = replace(facts, **{name: text})
        elif adapter and name == "training_data":
            facts = replace(facts, training_data=f"{said}\n\n{text}")
    return facts


def _link(link: Any, repository: str) -> str:
    """A stranger's link: an address, or the file of a repository of the Hub, else nothing."""
    text = str(link or "")
    if re.fullmatch(r"https://[\w./~-]{1,200}", text):
        return text
    known_file = repository and re.fullmatch(r"LICENSE(\.md|\.txt)?", text)
    return f"https://huggingface.co/{repository}/blob/main/{text}" if known_file else ""


def _ids(given: Any) -> tuple[str, ...]:
    """A stranger's ids of data sets, those that can be ids."""
    names = given if isinstance(given, list) else [given]
    return tuple(name for name in names if isinstance(name, str) and re.fullmatch(r"[\w./-]{1,100}", name))


def _quoted(words: str, source: str) -> str:
    """A stranger's words as a quotation, without HTML and pictures; one that is quoted already stays."""
    words = words.replace("<", "&lt;").replace("![", "[")
    if len(words) > LONGEST_QUOTE:
        words = f"{words[:LONGEST_QUOTE]} [...]"
    if re.fullmatch(r"From the card of [\w./-]+:\n\n(>.*\n?)+", words):
        return words
    lines = [f"> {line}".rstrip() for line in words.splitlines()]
    return "\n".join([f"From the card of {source}:", "", *lines])


def _in_one_line(words: Any) -> str:
    return " ".join(str(words).replace("<", "&lt;").split())[:LONGEST_LICENSE]


def with_base_names(words: Sequence[str], *, is_path: Callable[[str], bool] | None = None) -> str:
    """A command in which each path is its last part only.

    Args:
        words: of the command.
        is_path: whether a word, or what stands behind its `=`, is a path; by default one from the root, the home or
            the folder above.
    """
    is_path = is_path or re.compile(r"[/\\~]|\.\.?[/\\]|[A-Za-z]:[/\\]").match  # type: ignore[assignment]
    shown = []
    for word in words:
        option, equals, value = word.rpartition("=")
        last = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        shown.append(f"{option}{equals}{last}" if is_path and is_path(value) else word)
    return shlex.join(shown)


def _sections(text: str) -> dict[str, str]:
    """The words below each `## Title` of a card."""
    parts = (part.partition("\n") for part in f"\n{text}".split("\n## ")[1:])
    return {title.strip(): words.strip() for title, _, words in parts}


def _card_beside(where: str, commit: str | None) -> Path | None:
    """A folder's README.md, or that of a model of the Hub where it can be had."""
    path: str | Path | None = Path(where) / "README.md" if where else None
    if commit is not None:
        from transformers.utils import cached_file

        try:
            path = cached_file(where, "README.md", revision=commit, _raise_exceptions_for_missing_entries=False)
        except OSError:
            path = None
    return Path(path) if path is not None and Path(path).is_file() else None
