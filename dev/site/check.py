"""Check the built site: links and anchors lead somewhere, pages and style sheets load nothing from elsewhere, and each
page of docs/ has the lists, code and tables that a reader of its Markdown sees."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

_LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
_URL = re.compile(r"url\([\"']?([^\"')]+)")
_COUNTED = frozenset({"pre", "li", "table", "h1", "h2", "h3", "img"})


class _Reader(HTMLParser):
    """Links, what is loaded, anchors, and the elements of a page's text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.elements: Counter[str] = Counter()
        self._article = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._article += tag == "article"
        if self._article and tag in _COUNTED:
            self.elements[tag] += 1
        if "id" in given:
            self.anchors.add(given["id"])
        for name in ("href", "src"):
            if name in given:
                if (tag, name) in _LOADED and given.get("rel") not in ("canonical", "next", "prev"):
                    self.loaded.append(given[name])
                self.links.append(given[name])

    def handle_endtag(self, tag: str) -> None:
        self._article -= tag == "article"


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    return reader


def _of_links(site: Path, pages: Mapping[Path, _Reader]) -> Iterator[str]:
    for path, reader in pages.items():
        name = path.relative_to(site)
        if name.name == "404.html":  # served at any address: its links begin at the root
            continue
        yield from (f"{name}: loads {link}" for link in reader.loaded if urlsplit(link).netloc)
        for link in reader.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name}: {link} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name}: {link}: there is no such anchor"


def _of_sheets(site: Path) -> Iterator[str]:
    for sheet in site.rglob("*.css"):
        for url in _URL.findall(sheet.read_text(encoding="utf-8")):
            if urlsplit(url).netloc:
                yield f"{sheet.relative_to(site)}: loads {url}"


def _of_pages(site: Path, docs: Path, pages: Mapping[Path, _Reader]) -> Iterator[str]:
    parser = MarkdownIt("commonmark").enable("table")
    for source in sorted(docs.rglob("*.md")):
        uri = source.relative_to(docs)
        built = site / uri.with_suffix(".html")
        if uri.name == "README.md":
            built = built.with_name("index.html")
        if built not in pages:
            yield f"{uri}: no page was made of it"
            continue
        wanted = _read("<article>" + parser.render(source.read_text(encoding="utf-8")) + "</article>").elements
        shown = pages[built].elements
        for tag in sorted(_COUNTED):
            if wanted[tag] != shown[tag] and not (tag == "h1" and not wanted[tag]):  # which it makes of the title
                yield f"{uri}: {wanted[tag]} <{tag}> in its Markdown, {shown[tag]} on the site"


def main() -> int:
    """The exit status: 1 where something is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("site", type=Path)
    arguments.add_argument("docs", type=Path)
    given = arguments.parse_args()
    site = given.site.resolve()
    pages = {path: _read(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    findings = [*_of_links(site, pages), *_of_sheets(site), *_of_pages(site, given.docs, pages)]
    print(*findings, sep="\n", end="\n" if findings else "")
    print(f"{len(pages)} pages, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
