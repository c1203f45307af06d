"""Where a file of the repository stands on the site, and links in pages that lead there. Pure."""

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Final

PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages outside of docs/, and where they stand on the site."""

_LINK: Final = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)((?:#[^)\s]*)?)(?=\))")
_CODE: Final = re.compile(r"^( *)(```+)[^`]*?$.*?^\1\2$|(`+)[^`]+?\3", re.M | re.S)
"""Blocks between fences, and code within a line."""


def place(path: str) -> str:
    """Where the site has a file or folder of the repository: sources that are no Markdown become pages."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return PAGES[path]
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def origin(uri: str, is_page: Callable[[str], bool]) -> str:
    """The file of the repository that a page of the site is made of. is_page: whether there is such a file."""
    for path, page in PAGES.items():
        if page == uri:
            return path
    if uri.startswith("source/"):
        path = uri.removeprefix("source/")
        source = path.removesuffix(".md")
        return path if is_page(path) else source
    return f"docs/{uri}"


def targets(markdown: str, path: str) -> Iterator[str]:
    """Files and folders of the repository that a page of it links to."""
    for link in _LINK.finditer(_without_code(markdown)):
        yield _resolved(path, link[1])


def rewritten(markdown: str, path: str) -> str:
    """The page with its links as they lead on the site. path: of the page in the repository."""
    here = posixpath.dirname(place(path))

    def lead(link: re.Match[str]) -> str:
        return posixpath.relpath(place(_resolved(path, link[1])), here or ".") + link[2]

    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_LINK.sub(lead, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _LINK.sub(lead, markdown[end:])])


def _resolved(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _without_code(markdown: str) -> str:
    return _CODE.sub("", markdown)
