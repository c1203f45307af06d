"""What the site has beside docs/: README and its like, and each source file that a page links to."""

from pathlib import Path
from typing import Any, Final

from links import PAGES, origin, place, rewritten, targets
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_REPOSITORY: Final = Path(__file__).parents[2]
_LANGUAGES: Final = {
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".sh": "sh",
    ".properties": "properties",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a folder's pages in the place of its "*" in the nav."""
    assert config.nav is not None
    for section in config.nav:
        ((title, pages),) = section.items()
        listed: list[Any] = []
        for page in pages:
            if page.endswith("/*"):
                folder = Path(config.docs_dir) / page.removesuffix("*")
                listed += [
                    f"{folder.name}/{each.name}" for each in sorted(folder.glob("*.md")) if each.name != "README.md"
                ]
            else:
                listed.append(page)
        section[title] = listed
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, and those of the sources that any page links to."""
    todo = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(PAGES)
    done: set[str] = set()
    while todo:
        path = todo.pop()
        if path in done:
            continue
        done.add(path)
        there = _REPOSITORY / path
        if not there.exists():
            raise PluginError(f"a page links to {path}, which is not there")
        if path.endswith(".md"):
            todo += targets(there.read_text(encoding="utf-8"), path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, place(path), content=_content(there, path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the page's links to where the site has what they name."""
    path = origin(page.file.src_uri, lambda path: (_REPOSITORY / path).is_file())
    return rewritten(markdown, path) if path.endswith(".md") else markdown


def _content(there: Path, path: str) -> str:
    if there.suffix == ".md":
        return there.read_text(encoding="utf-8")
    if there.is_dir():
        inside = sorted(each.name + "/" * each.is_dir() for each in there.iterdir() if each.name != "__pycache__")
        return f"# {path}/\n\n" + "".join(f"- `{name}`\n" for name in inside)
    text = there.read_text(encoding="utf-8")
    language = _LANGUAGES.get(there.suffix, "text")
    return f"# {path}\n\n````{language}\n{text}````\n"
