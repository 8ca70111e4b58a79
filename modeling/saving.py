"""A base of all models: what they write beside their weights, and the table of tokens that none of them has."""

from importlib import import_module
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import custom_object_save

from .loading import LoadedWhole


class SavedWithCode(LoadedWhole):
    """A model whose folder carries the code that it needs, so that `trust_remote_code=True` loads it where this package
    is not installed. transformers copies the files and names the saved class, by its `_auto_class`; the bare model,
    with which `AutoModel` opens every folder here, and the pipeline of the model's task are named too.

    Notes:
        `push_to_hub` sends a model card of this package. The cards are looked up by name, because as a folder's own
        code this file stands alone and has none.
    """

    config: Any
    base_model: Any

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As `PreTrainedModel.save_pretrained`."""
        self._name_code()
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def save_code(self, folder: str | Path) -> None:
        """Add the code to a folder that holds the model without it, and name it in `config.json`."""
        self._name_code()
        custom_object_save(self, str(folder), config=self.config)
        self.config.save_pretrained(str(folder))

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing to resize: places, cells and points are inputs. PEFT asks for it where a tokenizer lies beside an
        adapter."""
        return self.get_input_embeddings()  # type: ignore[attr-defined]

    def _name_code(self) -> None:
        from .pipelines_mobility import PIPELINES  # here, because importing pipelines takes time

        body = type(self.base_model)
        reference = f"{body.__module__.rpartition('.')[2]}.{body.__name__}"
        self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), "AutoModel": reference}
        if (name := type(self).__name__) in PIPELINES:
            task, pipeline, auto = PIPELINES[name]
            self.config.custom_pipelines = {task: {"impl": f"pipelines_mobility.{pipeline.__name__}", "pt": [auto]}}

    def _upload_modified_files(self, working_dir: str | Path, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        package, _, _ = __name__.rpartition(".modeling.")
        if package:  # installed
            cards = import_module(f"{package}.hub.cards")
            cards.write_card(working_dir, self, name=repo_id)  # in place of an unfilled one
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]
