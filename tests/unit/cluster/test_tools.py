"""Tool modules of the cluster for tests: what is pinned, where it is kept, how it is built."""

import re
from pathlib import Path

import pytest
from flowagg_cluster import tools
from flowagg_cluster.tools import ETCD, HELM, HELM3, KUBERNETES, MODULES, PAUSE, BuildFailed, ToolModule
from flowagg_stack.provision import Missing


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolModule:
    """A module of a checkout and a cache of their own."""
    monkeypatch.setattr(tools, "SOURCES", tmp_path / "tools")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tools" / "thing").mkdir(parents=True)
    write(tmp_path, "go.mod", "module x\n\ngo 1.25.3\n\nrequire (\n\texample.org/thing v1.2.3\n)\n")
    return ToolModule("thing", "example.org/thing", ("thing",))


def write(folder: Path, name: str, text: str) -> None:
    (folder / "tools" / "thing" / name).write_text(text, encoding="utf-8")


def same(module: ToolModule) -> ToolModule:
    """The module, read anew."""
    return ToolModule(module.name, module.requirement, module.programs)


@pytest.mark.parametrize("one", MODULES, ids=lambda one: one.name)
def test_each_module_pins_its_version_and_all_below_it(one: ToolModule) -> None:
    assert one.requirement is None or re.fullmatch(r"\d+\.\d+\.\d+", one.version)
    assert one.requirement is None or (one.source / "go.sum").is_file()
    assert one.go_version >= (1, 24)


def test_no_two_modules_have_a_program_of_one_name() -> None:
    names = [name for module in MODULES for name in module.programs]
    assert len(names) == len(set(names))
    assert {"helm", "helm3", "kubectl"} <= set(names)


def test_a_programs_folder_is_named_by_version_and_pins(module: ToolModule, tmp_path: Path) -> None:
    assert module.version == "1.2.3"
    assert re.fullmatch(r"cluster-thing-1\.2\.3-[0-9a-f]{8}", module.directory.name)
    before = module.tag
    assert same(module).tag == before
    write(tmp_path, "go.sum", "another pin\n")
    assert same(module).tag != before


def test_changed_stamps_build_anew(module: ToolModule, tmp_path: Path) -> None:
    before = module.tag
    write(tmp_path, "stamps", "a.version=v{version}\n")
    assert same(module).tag != before


def test_stamps_tell_a_program_its_version(module: ToolModule, tmp_path: Path) -> None:
    assert module.linker_flags() == "-s -w"
    write(tmp_path, "stamps", "a.version=v{version}\na.major={major}\na.minor={minor}\n")
    assert module.linker_flags() == "-s -w -X a.version=v1.2.3 -X a.major=1 -X a.minor=2"


def test_a_module_without_its_requirement_says_what_to_do(module: ToolModule, tmp_path: Path) -> None:
    write(tmp_path, "go.mod", "module x\n")
    with pytest.raises(BuildFailed, match="go mod tidy"):
        _ = module.version


def test_kubernetes_and_both_helms_know_their_versions() -> None:
    assert f"version.gitVersion=v{KUBERNETES.version}" in KUBERNETES.linker_flags()
    for helm in (HELM, HELM3):
        assert f"internal/version.version=v{helm.version}" in helm.linker_flags()


def test_helm_3_renders_for_the_kubernetes_that_its_client_speaks_as_helm_4_does() -> None:
    # Helm 4 reads this from its own build; Helm 3 is told by the linker, and would say 1.20.
    minors = {
        re.search(r"k8s\.io/client-go v0\.(\d+)\.", (helm.source / "go.mod").read_text())[1]  # type: ignore[index]
        for helm in (HELM, HELM3)
    }
    assert len(minors) == 1
    assert f"chartutil.k8sVersionMinor={minors.pop()}" in HELM3.linker_flags()


def test_a_program_that_is_not_built_says_how_to_build_it(module: ToolModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MODULES", (module,))
    with pytest.raises(Missing, match="flowagg_cluster build thing"):
        tools.program("thing")
    module.directory.mkdir(parents=True)
    assert tools.program("thing") == module.directory / "thing"
    with pytest.raises(Missing, match="other is none of"):
        tools.program("other")


def test_what_is_built_is_not_built_again_and_needs_no_go(module: ToolModule, monkeypatch: pytest.MonkeyPatch) -> None:
    module.directory.mkdir(parents=True)
    monkeypatch.setenv("PATH", "")
    said: list[str] = []
    tools.build([module], said.append)
    assert said == []


def test_a_program_is_found_by_its_own_and_by_its_modules_name() -> None:
    assert tools.module_of("kubectl") is KUBERNETES
    assert tools.module_of("etcd") is ETCD
    assert tools.module_of("pause") is PAUSE


def test_built_programs_come_first_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    path = tools.search_path().split(":")
    assert path[-1] == "/usr/bin"
    assert str(HELM3.directory) in path
