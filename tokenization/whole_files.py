"""Files and folders that are written whole or not at all: in a hidden folder beside or in the target, then renamed.

A reader finds what was there before or what is new, and so does whoever comes after a crash.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WEIGHTS = "*model*.safetensors"
INDEX = "model.safetensors.index.json"
OF_THE_WEIGHTS = ("training_record.json", "adaptation.csv")  # true of the weights beside them, and of no others
# Without these a folder cannot be loaded: they go first from the old one, and come last into the new one.
CONFIGS = ("tokenizer_config.json", "adapter_config.json", "config.json")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, of the same name in a new folder beside `path`. It becomes `path` when the block ends without
    an error, and is removed otherwise. Devices and pipes are written to directly."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    with TemporaryDirectory(prefix=".", dir=target.parent) as scratch:
        yield Path(scratch, target.name)
        os.replace(Path(scratch, target.name), target)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden folder inside `folder`, whose files move up when the block ends without an error. The configuration goes
    first and comes last, so that nobody loads half a model; other files that lie there stay. Two writers move one after
    the other (not on Windows). A `folder` that was made for a block that fails is removed again."""
    target = Path(folder).resolve()
    is_new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".", dir=target) as hidden:
            scratch = Path(hidden, target.name)
            scratch.mkdir()
            yield scratch
            with _locked(target):
                _move(scratch, target)
    except BaseException:
        if is_new and not any(target.iterdir()):
            target.rmdir()
        raise


def copy_files(names: Iterable[str], source: str | Path, target: str | Path) -> None:
    """Those that are there."""
    for name in names:
        if Path(source, name).is_file():
            shutil.copyfile(Path(source, name), Path(target, name))


def same_files(one: str | Path, other: str | Path, pattern: str) -> bool:
    """Whether two folders hold the same files of a pattern, at least one, byte for byte."""
    names = sorted(path.name for path in Path(one).glob(pattern))
    others = sorted(path.name for path in Path(other).glob(pattern))
    return bool(names) and names == others and all(cmp(Path(one, name), Path(other, name), False) for name in names)


def _move(scratch: Path, target: Path) -> None:
    names = [path.relative_to(scratch) for path in sorted(scratch.rglob("*")) if path.is_file()]
    last = [Path(name) for name in CONFIGS if Path(name) in names]
    for name in last:
        (target / name).unlink(missing_ok=True)
    old = [target / name for name in OF_THE_WEIGHTS] if any(name.match(WEIGHTS) for name in names) else []
    if any(name.match("model*.safetensors") for name in names):  # whole or in parts, which do not stand together
        old += [*target.glob("model-*-of-*.safetensors"), target / INDEX, target / "model.safetensors"]
    for path in old:
        path.unlink(missing_ok=True)
    for name in [*(name for name in names if name not in last), *last]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / name, target / name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time; the lock is on the folder itself and ends with the process."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
