"""Push what a `save_pretrained` writes, for what consists of several parts: pipelines and adapters. Models and
tokenizers have `push_to_hub` from transformers.

Everything is saved into a temporary folder first, so that what cannot be saved makes no repository. Only known files
are sent; before that, stderr says which, how large, what the city lists, and who will see them. A README.md that
`save_pretrained` writes goes along as the model card. huggingface_hub does not send large files again that arrived
before an interrupted push is repeated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi

from ..evaluation.listed import ListedCity
from ..tokenization.city_files import MIN_USERS
from ..tokenization.whole_files import OF_THE_WEIGHTS, WEIGHTS, copy_files, same_files, whole_folder
from .handlers import write_handler
from .known_files import known_files
from .requests import HUB_ID, pushing

if TYPE_CHECKING:
    from .card_facts import CardFacts


class PushToHub:
    """Gives `push_to_hub` to a class that has `save_pretrained(folder)`."""

    def save_pretrained(self, folder: str | Path) -> None:
        raise NotImplementedError

    def _write_card(self, folder: Path, *, name: str, facts: CardFacts | None) -> None:
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
            private: of a new repository. True is refused for one that exists and is public.
            token: of the Hub; by default the one that `hf auth login` stored.
            revision: branch, made where it does not exist; by default `main`.
            create_pr: propose the commit as a pull request instead.
            kwargs: of `save_pretrained`.

        Returns:
            The commit: its address, with `oid` and `commit_message`.

        Raises:
            OSError: where the Hub refuses (`HfHubHTTPError`) or cannot be reached (`ConnectionError`).
            ValueError: for a `repo_id` that cannot be one, an adapter whose base is a folder on this machine, a pickle,
                or a public repository where `private=True` was asked for.
        """
        with TemporaryDirectory() as scratch:
            self.save_pretrained(scratch, **kwargs)
            self._write_card(Path(scratch), name=repo_id, facts=kwargs.get("facts"))
            _check_base(Path(scratch))
            files = [*known_files(Path(scratch))[0], *write_handler(Path(scratch))]
            api = HfApi(token=token)
            with pushing(repo_id):
                repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                _announce(files, ListedCity.of_folder(scratch), api.repo_info(repo_id), private=private)
                if revision is not None and not revision.startswith("refs/pr"):
                    api.create_branch(repo_id, branch=revision, exist_ok=True)
                return api.upload_folder(
                    repo_id=repo_id,
                    folder_path=scratch,
                    allow_patterns=[path.name for path in files],
                    revision=revision,
                    commit_message=commit_message or f"Upload {type(self).__name__}",
                    commit_description=commit_description,
                    create_pr=create_pr,
                )


class SavedWithCard(PushToHub):
    """Saves and pushes a `model`, its `tokenizer` and a card in one folder. `facts` are for the card, where saving or
    pushing gets none."""

    model: Any
    tokenizer: Any
    facts: CardFacts | None = None

    def save_pretrained(
        self, folder: str | Path, *, facts: CardFacts | None = None, min_users: int = MIN_USERS
    ) -> None:
        """Weights (or adapter), city and card in one folder, which `from_pretrained` and the Auto classes load: all of
        them or, where saving fails, none. A card that somebody wrote there stays. One of this package stays as long as
        weights and city do.

        Args:
            facts: for the card, what cannot be read from the weights.
            min_users: homes, pairs of home and work and classes of M-STAR that fewer users share are not written.

        Raises:
            ValueError: `min_users` leaves nothing of the conditions.
        """
        from .cards import write_card

        facts, target = facts or self.facts, Path(folder).resolve()
        with whole_folder(folder) as scratch:
            copy_files(["README.md"], target, scratch)
            self.model.save_pretrained(str(scratch))
            same_weights = same_files(scratch, target, WEIGHTS)
            copy_files(OF_THE_WEIGHTS if same_weights else (), target, scratch)
            _plain_adapter(scratch)
            self.tokenizer.save_pretrained(str(scratch), min_users=min_users)
            self._save_extras(scratch)
            stays = facts is None and same_weights and same_files(scratch, target, "city.*")
            if not (stays and (scratch / "README.md").is_file()):
                write_card(scratch, self.model, tokenizer=self.tokenizer, name=target.name, facts=facts)

    def _save_extras(self, folder: Path) -> None:
        """What a subclass saves beside them."""

    def _write_card(self, folder: Path, *, name: str, facts: CardFacts | None) -> None:
        from .cards import write_card

        facts = facts or self.facts
        write_card(folder, self.model, tokenizer=self.tokenizer, name=name, facts=facts, replace=True)


def _plain_adapter(folder: Path) -> None:
    """PEFT writes a set, whose order differs from process to process, and for a model without a task of PEFT's own the
    class to import, which no file of ours names."""
    path = folder / "adapter_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["auto_mapping"] = None
        if isinstance(config.get("target_modules"), list):
            config["target_modules"] = sorted(config["target_modules"])
        path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _announce(files: list[Path], city: ListedCity | None, repository: Any, *, private: bool | None) -> None:
    """Say what will be sent, what its city lists and who will see it."""
    if private and not repository.private:
        raise ValueError(
            f"{repository.id} exists and is public: make it private in its settings, choose another name, or leave "
            "private out."
        )
    seen = "private: only people with access see it" if repository.private else "public: everybody sees it"
    lines = [f"  {path.name}  {path.stat().st_size:,} bytes" for path in files]
    lines += [] if city is None else city.sentences()
    sys.stderr.write("\n".join([f"Sending {len(files)} files to {repository.id}, which is {seen}:", *lines, ""]))


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
