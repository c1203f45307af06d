"""Where links of the docs lead on the site."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FILE = ROOT / "dev" / "site" / "links.py"
_SPEC = importlib.util.spec_from_file_location("site_links", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
links = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(links)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("docs/guides/tls.md", "guides/tls.md"),
        ("docs/assets/ui-dark.png", "assets/ui-dark.png"),
        ("README.md", "index.md"),
        ("SECURITY.md", "security.md"),
        ("libs/flowagg/src/flowagg/view.py", "source/libs/flowagg/src/flowagg/view.py.md"),
        ("examples/flows/README.md", "source/examples/flows/README.md"),
    ],
)
def test_a_file_of_the_repository_has_its_place_on_the_site(path: str, uri: str) -> None:
    assert links.place(path) == uri
    assert links.origin(uri, lambda given: (ROOT / given).is_file()) == path


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("README.md", "[a](docs/guides/tls.md#redis)", "[a](guides/tls.md#redis)"),
        ("README.md", "![a](docs/assets/a.svg)", "![a](assets/a.svg)"),
        ("docs/guides/a.md", "[a](../../CHANGELOG.md)", "[a](../changelog.md)"),
        ("docs/guides/a.md", "[a](../../skaffold.yaml)", "[a](../source/skaffold.yaml.md)"),
        ("docs/guides/a.md", "[a](../../dev/cluster/tools/)", "[a](../source/dev/cluster/tools.md)"),
        ("docs/guides/a.md", "[a](tls.md) [b](#here)", "[a](tls.md) [b](#here)"),
        ("docs/guides/a.md", "[c](https://a.example/b.md)", "[c](https://a.example/b.md)"),
        ("docs/guides/a.md", "`[a](../../b.py)` [c](../../b.py)", "`[a](../../b.py)` [c](../source/b.py.md)"),
        (
            "docs/guides/a.md",
            "```sh\n[a](../b.py)\n```\n[c](../../b.py)",
            "```sh\n[a](../b.py)\n```\n[c](../source/b.py.md)",
        ),
    ],
)
def test_a_link_leads_to_the_same_on_the_site(path: str, before: str, after: str) -> None:
    assert links.rewritten(before, path) == after


def test_what_a_page_links_to_is_found_but_not_in_code() -> None:
    text = "[a](../../b.py) `[d](d.md)` [c](c.md#x) [h](https://a.example/)\n\n```\n[e](e.md)\n```\n"
    assert list(links.targets(text, "docs/guides/a.md")) == ["b.py", "docs/guides/c.md"]
