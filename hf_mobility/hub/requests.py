"""Requests to the Hugging Face Hub: what a name may be, and each refusal said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .known_files import check_folder_content

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LOG_IN = "log in with `hf auth login` or pass token="


def check_folder(name_or_path: str | Path) -> None:
    """Refuse at once a name that can only be a folder's, where there is no such folder; transformers would ask the Hub
    for it, a minute long where the Hub cannot be reached.

    Raises:
        FileNotFoundError: for a name that is no folder and no Hub id, and without a copy in the cache.
    """
    name = str(name_or_path)
    if Path(name).is_dir() or (HUB_ID.fullmatch(name) and not name.startswith(".")):
        return
    if "/" not in name and isinstance(_cached(name), str):
        return
    raise FileNotFoundError(f"{name} could not be loaded: there is no such folder, and a Hub id is user/name.")


def _cached(name: str) -> object:
    try:
        return try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None


@contextmanager
def loading(name_or_path: str | Path, role: str = "") -> Iterator[None]:
    """Say in one sentence why a repository could not be read; transformers needs several.

    Args:
        role: what it is to be read as, for that sentence.

    Raises:
        OSError: where the Hub refuses or (`ConnectionError`) breaks off, or (`FileNotFoundError`) at once for a folder
            that is not there; other errors pass through.
        ValueError: for files of a folder that are damaged. Weights are the model's to refuse.
    """
    check_folder(name_or_path)
    if Path(name_or_path).is_dir():
        check_folder_content(Path(name_or_path))
    try:
        yield
    except (OSError, HTTPError) as error:
        if refusal := _refusal(error):
            raise OSError(f"{name_or_path}{role} could not be loaded: {_why(refusal)}.") from error
        if broken := _broken_connection(error):
            raise ConnectionError(
                f"{name_or_path}{role} could not be loaded: the Hub cannot be reached or broke off ({_says(broken)}); "
                "call it again."
            ) from error
        raise


@contextmanager
def pushing(repo_id: str) -> Iterator[None]:
    """Say in one sentence why a push failed.

    Raises:
        HfHubHTTPError: where the Hub refuses.
        ConnectionError: where the connection breaks off.
    """
    try:
        yield
    except (OSError, RuntimeError, HTTPError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise ConnectionError(
                f"The push to {repo_id} was interrupted ({_says(error.__cause__ or error)}): call it again, large "
                "files that arrived are not sent twice."
            ) from error
        sentence = f"The push to {repo_id} was refused: {_why(refusal)}."
        raise type(refusal)(sentence, response=refusal.response) from error


def _refusal(error: BaseException | None) -> HfHubHTTPError | None:
    """The Hub's answer that brought an error about."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _broken_connection(error: BaseException | None) -> HTTPError | None:
    """The fault of the connection behind an error; transformers reports some without naming their cause."""
    while error is not None and (isinstance(error, HfHubHTTPError) or not isinstance(error, HTTPError)):
        error = error.__cause__ or error.__context__
    return error


def _says(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def _why(refusal: HfHubHTTPError) -> str:
    status = refusal.response.status_code
    if isinstance(refusal, RevisionNotFoundError):
        return "the repository has no such revision (branch, tag or commit)"
    if isinstance(refusal, GatedRepoError):
        return "its owner must grant access first, ask for it on the repository's page"
    if isinstance(refusal, RepositoryNotFoundError):
        return f"there is no such folder or repository, or it is private and needs a token: {_LOG_IN}"
    if status == 401:
        return f"the token is missing or not valid (401): {_LOG_IN}"
    if status == 403:
        return f"the token does not allow this (403): {refusal.server_message or 'it may lack the right to write'}"
    return f"the Hub answered {status}: {refusal.server_message or str(refusal).splitlines()[0]}"
