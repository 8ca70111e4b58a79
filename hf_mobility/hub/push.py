"""Push what a `save_pretrained` writes, load by Hub id, and say in one sentence what went wrong.

Models and tokenizers have `push_to_hub` from transformers; this is for what consists of several: pipelines, adapters.

Unusual: everything is saved into a temporary folder first, and what cannot be saved makes no repository; a README.md
that `save_pretrained` writes goes along as the model card. Large files that already arrived are not sent again when an
interrupted push is repeated; huggingface_hub takes care of that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from .cards import CardFacts

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LOG_IN = "log in with `hf auth login` or pass token="


@contextmanager
def loading(name_or_path: str | Path) -> Iterator[None]:
    """Say in one sentence why a repository could not be read; transformers needs several.

    Raises:
        OSError: where the Hub refuses or (`ConnectionError`) breaks off; other errors pass through.
    """
    try:
        yield
    except (OSError, HTTPError) as error:
        if refusal := _refusal(error):
            raise OSError(f"{name_or_path} could not be loaded: {_why(refusal)}.") from error
        if broken := _broken_connection(error):
            raise ConnectionError(
                f"{name_or_path} could not be loaded: the Hub cannot be reached or broke off ({_says(broken)}); "
                "call it again."
            ) from error
        raise


class PushToHub:
    """Gives `push_to_hub` to a class that has `save_pretrained(folder)`."""

    def save_pretrained(self, folder: str | Path) -> None:
        raise NotImplementedError

    def _write_card(self, folder: Path, *, name: str, facts: Any) -> None:
        """Into a folder of our own, under the name that the Hub will know it by."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> CommitInfo:
        """Upload what `save_pretrained` writes to a model repository, which is made where it does not exist yet.

        Args:
            repo_id: `user/name`, or `name` below the user's own.
            private: of a new repository; without effect on one that exists.
            token: of the Hub; by default the one that `hf auth login` stored.
            revision: branch, made where it does not exist; by default `main`.
            create_pr: propose the commit as a pull request instead.
            kwargs: of `save_pretrained`.

        Returns:
            The commit: its address, with `oid` and `commit_message`.

        Raises:
            OSError: where the Hub refuses (`HfHubHTTPError`) or cannot be reached (`ConnectionError`).
            ValueError: for a `repo_id` that cannot be one, or an adapter whose base is a folder on this machine.
        """
        with TemporaryDirectory() as scratch:
            self.save_pretrained(scratch, **kwargs)
            self._write_card(Path(scratch), name=repo_id, facts=kwargs.get("facts"))
            if kwargs.get("base_model") is None:
                _check_base(Path(scratch))
            api = HfApi(token=token)
            with _pushing(repo_id):
                repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                if revision is not None and not revision.startswith("refs/pr"):
                    api.create_branch(repo_id, branch=revision, exist_ok=True)
                return api.upload_folder(
                    repo_id=repo_id,
                    folder_path=scratch,
                    revision=revision,
                    commit_message=commit_message or f"Upload {type(self).__name__}",
                    commit_description=commit_description,
                    create_pr=create_pr,
                )


class SavedWithCard(PushToHub):
    """Saves and pushes a `model`, its `tokenizer` and a card in one folder."""

    model: Any
    tokenizer: Any

    def save_pretrained(self, folder: str | Path, *, facts: CardFacts | None = None) -> None:
        """Weights (or adapter), city and card in one folder, which `from_pretrained` and the Auto classes load. A card
        that somebody wrote there stays.

        Args:
            facts: for the card, what cannot be read from the weights.
        """
        from .cards import write_card

        self.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        write_card(folder, self.model, tokenizer=self.tokenizer, facts=facts)

    def _write_card(self, folder: Path, *, name: str, facts: Any) -> None:
        from .cards import write_card

        write_card(folder, self.model, tokenizer=self.tokenizer, name=name, facts=facts, replace=True)


def _check_base(folder: Path) -> None:
    """Nobody else can load an adapter whose base is named by a path, and the path tells about this machine."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return
    base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    if not HUB_ID.fullmatch(base or "") or Path(base).exists():
        raise ValueError(
            f"the adapter's base model is {base!r}, which nobody else can load: push the base model and adapt from its "
            "Hub id, or, for an Adaptation, pass base_model=."
        )


@contextmanager
def _pushing(repo_id: str) -> Iterator[None]:
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
