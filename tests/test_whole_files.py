"""Files and folders are whole or as they were: writers that die half-way, and two at one time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from samoe_town import CONFIG, TOKENIZER, make_city
from transformers import modeling_utils

from hf_mobility import NextLocationPipeline, SamoeForNextLocation
from hf_mobility.cli.files import check_output, write_frame
from hf_mobility.evaluation.report import to_csv
from hf_mobility.tokenization import city_files
from hf_mobility.tokenization.city import City
from hf_mobility.tokenization.whole_files import whole_file, whole_folder

TABLE = pd.DataFrame({"a": range(100)})


def dies_half_way(writer: Any) -> Any:
    """A writer that leaves a part of its file behind, and fails as on a full disk."""

    def write(subject: Any, target: Any, *args: Any, **options: Any) -> None:
        writer(subject, target, *args, **options)
        content = Path(target).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])
        raise OSError("No space left on device")

    return write


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_table_is_the_old_one_or_the_new_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    write_frame(TABLE, path)
    before = path.read_bytes()
    for method in ("to_csv", "to_parquet"):
        monkeypatch.setattr(pd.DataFrame, method, dies_half_way(getattr(pd.DataFrame, method)))
    for target in (path, tmp_path / f"new-{name}"):
        with pytest.raises(OSError, match="No space left"):
            write_frame(TABLE * 2, target)
    assert path.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [name]


def test_a_report_a_link_and_a_device(tmp_path: Path) -> None:
    (tmp_path / "real.csv").touch()
    (tmp_path / "link.csv").symlink_to("real.csv")
    to_csv(pd.DataFrame({"model": ["a"], "mrr": [0.5]}), tmp_path / "link.csv", command="make it")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text().startswith("# make it\n")
    with whole_file("/dev/null") as file:
        assert file == Path("/dev/null")


def test_a_city_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files, for `City.save` and for tokenizers."""
    make_city().save(tmp_path)
    monkeypatch.setattr(city_files, "save_file", dies_half_way(city_files.save_file))
    with pytest.raises(OSError, match="No space left"):
        make_city(name="Other").save(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        TOKENIZER.save_vocabulary(str(tmp_path))
    assert City.load(tmp_path) == make_city()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["city.json", "city.safetensors"]


def pipeline(fill: float) -> NextLocationPipeline:
    model = SamoeForNextLocation(CONFIG)
    torch.nn.init.constant_(next(model.parameters()), fill)
    return NextLocationPipeline(model, TOKENIZER)


@pytest.mark.parametrize("part", ["model", "tokenizer", "card"])
def test_a_saved_folder_is_whole_or_absent(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pipeline(1.0), pipeline(2.0)
    first.save_pretrained(tmp_path / "old")
    (tmp_path / "old" / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if part == "card":
            patch.setattr("hf_mobility.hub.cards.model_card", die)
            (tmp_path / "old" / "README.md").unlink()
            del before["README.md"]
        else:
            patch.setattr(getattr(second, part), "save_pretrained", die)
        for name in ("old", "new"):
            with pytest.raises(KeyboardInterrupt):
                second.save_pretrained(tmp_path / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    second.save_pretrained(tmp_path / "old")
    loaded = NextLocationPipeline.from_pretrained(tmp_path / "old")
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), second.model.parameters()))
    assert (tmp_path / "old" / "notes.txt").read_text() == "mine"


def test_a_model_alone_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tokenizer and card, as a `Trainer` saves it; a full disk is an `OSError` whichever library meets it."""
    first, second = (pipeline(fill).model for fill in (1.0, 2.0))
    first.save_pretrained(tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    writer = modeling_utils.safe_save_file

    def full(*args: Any, **options: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    for failing in (full, lambda weights, *args, **options: dies_half_way(writer)(weights, *args, **options)):
        monkeypatch.setattr(modeling_utils, "safe_save_file", failing)
        for name in ("old", "new"):
            with pytest.raises(OSError, match="No space left on device"):
                second.save_pretrained(tmp_path / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    monkeypatch.undo()
    second.save_pretrained(tmp_path / "old")
    loaded = SamoeForNextLocation.from_pretrained(tmp_path / "old")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), second.parameters()))


def test_a_training_record_stays_beside_its_own_weights_only(tmp_path: Path) -> None:
    first, second = (pipeline(fill).model for fill in (1.0, 2.0))
    first.save_pretrained(tmp_path)
    (tmp_path / "training_record.json").write_text("{}")
    SamoeForNextLocation.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "training_record.json").read_text() == "{}"
    second.save_pretrained(tmp_path)
    assert not (tmp_path / "training_record.json").exists()


def test_the_configuration_goes_first_and_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the moves, the folder has none."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (folder / name).write_text("old")
    replace = __import__("os").replace
    seen = []

    def spy(source: Path, target: Path) -> None:
        seen.append((target.name, sorted(path.name for path in folder.glob("[!.]*"))))
        replace(source, target)

    monkeypatch.setattr("os.replace", spy)
    with whole_folder(folder) as scratch:
        for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
            (scratch / name).write_text("new")
    names = ["model.safetensors", "tokenizer_config.json", "config.json"]
    assert seen == [(name, names[:count]) for count, name in enumerate(names)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def _write_often(folder: Path, value: int) -> None:
    for _ in range(150):
        with whole_folder(folder) as scratch:
            for name in ("config.json", "a", "b", "c"):
                (scratch / name).write_text(str(value))


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(tmp_path / "one", value)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len({path.read_text() for path in (tmp_path / "one").iterdir()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_output_is_tested_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is no folder"):
        check_output(tmp_path / "file" / "t.csv")
    with pytest.raises(IsADirectoryError):
        (tmp_path / "t.csv").mkdir()
        check_output(tmp_path / "t.csv")


def test_parts_of_a_model_go_with_a_new_model_only(tmp_path: Path) -> None:
    first, second = (pipeline(fill).model for fill in (1.0, 2.0))
    first.save_pretrained(tmp_path, max_shard_size="10KB")
    with whole_folder(tmp_path) as scratch:
        (scratch / "adapter_model.safetensors").touch()
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    second.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("model-*-of-*.safetensors"))
    first.save_pretrained(tmp_path, max_shard_size="10KB")
    loaded = SamoeForNextLocation.from_pretrained(tmp_path)
    assert torch.equal(next(loaded.parameters()), next(first.parameters()))
