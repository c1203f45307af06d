"""Go for the cluster for tests: which one is taken, and what is checked of one that is fetched."""

import hashlib
import platform
import stat
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from zipfile import ZipFile

import pytest
from flowagg_cluster import golang, tools
from flowagg_stack.provision import Missing

HERE = f"{sys.platform}-{golang._MACHINES.get(platform.machine(), platform.machine())}"
ROOT = f"golang.org/toolchain@v0.0.1-go{golang.PINNED}.{HERE}"
FILES = {"bin/go": "#!/bin/sh\necho go version go1.99.0 x/y\n", "src/_go.mod": "module std\n", "VERSION": "go1.99.0\n"}


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    """A folder that is a Go module proxy, with a toolchain for this machine."""
    folder = tmp_path / "proxy/golang.org/toolchain/@v"
    folder.mkdir(parents=True)
    with ZipFile(folder / f"v0.0.1-go{golang.PINNED}.{HERE}.zip", "w") as archive:
        for name, text in FILES.items():
            archive.writestr(f"{ROOT}/{name}", text)
    return tmp_path / "proxy"


def sum_of_files() -> str:
    lines = [f"{hashlib.sha256(FILES[name].encode()).hexdigest()}  {ROOT}/{name}\n" for name in sorted(FILES)]
    return f"h1:{b64encode(hashlib.sha256(''.join(lines).encode()).digest()).decode()}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.24 darwin/arm64", (1, 24)),
        ("go version devel go1.27-abcdef linux/amd64", (1, 27)),
        ("", ()),
    ],
)
def test_versions_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert golang.version(text) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["https://proxy.golang.org"]),
        ({"GOPROXY": ""}, ["https://proxy.golang.org"]),
        ({"GOPROXY": "https://a.example/go/,direct"}, ["https://a.example/go"]),
        ({"GOPROXY": "https://a.example|file:///srv/go"}, ["https://a.example", "file:///srv/go"]),
        ({"GOPROXY": "off"}, []),
    ],
)
def test_proxies_are_those_of_goproxy_in_its_order(given: dict[str, str], expected: list[str]) -> None:
    assert golang.proxies(given) == expected


def test_a_checksum_is_gos_own(proxy: Path) -> None:
    with ZipFile(next(proxy.rglob("*.zip"))) as archive:
        assert golang.checksum(archive) == sum_of_files()


def test_a_new_enough_go_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_go(tmp_path, "1.26.0", monkeypatch)
    monkeypatch.setenv("GOPROXY", "off")
    assert golang.provide((1, 26), print) == path


@pytest.mark.parametrize("found", [None, "1.19.8"])
def test_without_one_the_pinned_toolchain_is_fetched_once(
    found: str | None, tmp_path: Path, proxy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_go(tmp_path, found, monkeypatch)
    monkeypatch.setenv("GOPROXY", f"file:///nowhere,{proxy.as_uri()},direct")
    monkeypatch.setitem(golang.SUMS, HERE, sum_of_files())
    path = golang.provide((1, 26), print)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == "go version go1.99.0 x/y\n"
    assert (path.parents[1] / "src" / "go.mod").read_text() == "module std\n"
    assert not stat.S_IMODE((path.parents[1] / "VERSION").stat().st_mode) & 0o111
    monkeypatch.setenv("GOPROXY", "off")
    assert golang.provide((1, 26), print) == path


def test_a_toolchain_that_is_not_what_is_pinned_is_refused(
    tmp_path: Path, proxy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_go(tmp_path, None, monkeypatch)
    monkeypatch.setenv("GOPROXY", proxy.as_uri())
    monkeypatch.setitem(golang.SUMS, HERE, "h1:another")
    with pytest.raises(Missing, match="is not what is pinned"):
        golang.provide((1, 26), print)
    assert list((tmp_path / "cache").rglob("*")) == [tmp_path / "cache" / "flow-aggregator"]


def test_without_any_way_to_go_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_go(tmp_path, None, monkeypatch)
    monkeypatch.setenv("GOPROXY", "off")
    with pytest.raises(Missing, match=rf"put Go {golang.PINNED} or newer on the PATH"):
        golang.provide((1, 26), print)


def test_the_pinned_toolchain_builds_every_module() -> None:
    assert golang.version(f"go{golang.PINNED}") >= max(module.go_version for module in tools.MODULES)


def a_go(folder: Path, version: str | None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a program named go of that version alone, or without; an empty cache."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "go"
    if version is not None:
        program.write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return program
