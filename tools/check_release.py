"""Checks that a tag may be released and prints its release notes: `python tools/check_release.py TAG [REPOSITORY_URL]`.

The tag is `v` and the package's version; CHANGELOG.md has a section of that version, and CITATION.cff names its version
and date. With the address of the repository, the URLs in setup.cfg must lead there. Needs the standard library only.
"""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = r"^## {version} - (?P<date>\d{{4}}-\d{{2}}-\d{{2}})\n(?P<notes>.*?)(?=^## |\Z)"
ADDRESSES = ("Source", "Documentation", "Changelog", "Issues")


def fail(sentence: str) -> None:
    raise SystemExit(f"check_release: {sentence}")


def release_notes(tag: str) -> str:
    """The text of the tag's section of CHANGELOG.md."""
    found = re.search(r'^__version__ = "(.+)"$', read("hf_mobility/version.py"), flags=re.MULTILINE)
    version = found[1] if found else ""
    if tag != f"v{version}":
        fail(f"the tag is {tag}, the package's version is {version!r}")
    pattern = SECTION.format(version=re.escape(version))
    section = re.search(pattern, read("CHANGELOG.md"), flags=re.MULTILINE | re.DOTALL)
    if not section or not section["notes"].strip():
        fail(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD' with text")
    assert section
    citation = read("CITATION.cff").splitlines()
    for line in (f"version: {version}", f"date-released: {section['date']}"):
        if line not in citation:
            fail(f"CITATION.cff has no line '{line}'")
    return section["notes"].strip()


def check_addresses(repository: str) -> None:
    """The project URLs that lead to the repository are there and do lead there."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    urls = dict(line.split(" = ") for line in config["metadata"]["project_urls"].strip().splitlines())
    wrong = [name for name in ADDRESSES if not urls.get(name, "").startswith(repository)]
    if wrong:
        fail(f"project_urls in setup.cfg has no {', '.join(wrong)} that begins with {repository}")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def main(tag: str, repository: str | None = None) -> None:
    notes = release_notes(tag)
    if repository:
        check_addresses(repository)
    print(notes)


if __name__ == "__main__":
    main(*sys.argv[1:])
