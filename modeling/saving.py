"""A base of all models: how they are saved and what they write beside their weights, and the table of tokens that none
of them has."""

from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.dynamic_module_utils import custom_object_save

from .loading import LoadedWhole


class SavedWithCode(LoadedWhole):
    """A model whose folder carries the code that it needs, so that `trust_remote_code=True` loads it where this package
    is not installed. transformers copies the files and names the saved class, by its `_auto_class`; the bare model,
    with which `AutoModel` opens every folder here, and the pipeline of the model's task are named too.

    Notes:
        `push_to_hub` sends a model card of this package, and `save_pretrained` writes all files or none. Both are
        looked up by name: as a folder's own code this file stands alone, has no cards and saves as transformers does.
    """

    config: Any
    base_model: Any

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """As `PreTrainedModel.save_pretrained`, but all files or none.

        Raises:
            OSError: a folder that cannot be written to, or a full disk.
        """
        self._name_code()
        files = _of_the_package("tokenization.whole_files")
        try:
            if files is None or kwargs.get("push_to_hub") or not is_main_process:  # a push looks at the folder itself
                super().save_pretrained(save_directory, is_main_process, *args, **kwargs)  # type: ignore[misc]
                return
            with files.whole_folder(save_directory) as scratch:
                super().save_pretrained(str(scratch), is_main_process, *args, **kwargs)  # type: ignore[misc]
                if files.same_files(scratch, save_directory, files.WEIGHTS):
                    files.copy_files(files.OF_THE_WEIGHTS, save_directory, scratch)
        except SafetensorError as error:
            raise OSError(f"{save_directory} could not be written: {error}.") from error

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
        elif hasattr(self.config, "custom_pipelines"):  # of a model with a task, whose configuration this one was
            del self.config.custom_pipelines

    def _upload_modified_files(self, working_dir: str | Path, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        if cards := _of_the_package("hub.cards"):
            cards.write_card(working_dir, self, name=repo_id)  # in place of an unfilled one
            _of_the_package("hub.handlers").write_handler(Path(working_dir))
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]


def _of_the_package(module: str) -> Any:
    """A module of the installed package; None where this file is a folder's own code."""
    package, _, _ = __name__.rpartition(".modeling.")
    is_own_code = not package or package.startswith("transformers_modules")
    return None if is_own_code else import_module(f"{package}.{module}")
