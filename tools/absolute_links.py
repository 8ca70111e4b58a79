"""Make the links and pictures of a page absolute, for where the repository is not around it: PyPI and the Hub.

    python tools/absolute_links.py https://github.com/OWNER/NAME v1.0.0 README.md checkpoints/samoe-small/README.md

The pages are changed in place: the release does so before it builds. Needs the standard library only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from posixpath import normpath

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def absolute(text: str, *, page: str, repository: str, tag: str) -> str:
    """`text` of the file `page` of the repository, every relative link leading to the files of `tag`."""
    folder = page.rpartition("/")[0]

    def moved(found: re.Match[str]) -> str:
        path, sharp, anchor = found["target"].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        at = normpath(f"{folder}/{path}").lstrip("/")
        if not (ROOT / at).exists():
            raise SystemExit(f"{page}: there is no {found['target']}")
        kind = "raw" if found["image"] else "blob"
        return f"{found['image']}[{found['text']}]({repository.rstrip('/')}/{kind}/{tag}/{at}{sharp}{anchor})"

    return LINK.sub(moved, text)


def main(repository: str, tag: str, *pages: str) -> None:
    for page in pages:
        path = ROOT / page
        text = absolute(path.read_text(encoding="utf-8"), page=page, repository=repository, tag=tag)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
