"""Images of the cluster for tests: their names, and what they are made of."""

from pathlib import Path

import pytest
from flowagg_cluster import services, standins
from flowagg_cluster.images import digest
from flowagg_cluster.services import CHECKOUT, files_of, service_image
from flowagg_cluster.standins import KAFKA, NGINX, PROMETHEUS, REDIS, STANDINS, Standin
from flowagg_stack.provision import KAFKA_VERSION


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout: two services, a library, an operator."""
    files = {
        "Dockerfile": "FROM scratch\n",
        ".dockerignore": "*\n!pyproject.toml\n!libs\n!services\n!operator\n**/__pycache__\n",
        "pyproject.toml": "",
        "README.md": "",
        "libs/flowagg/flow.py": "",
        "services/writer/pyproject.toml": "",
        "services/writer/app.py": "",
        "services/reader/pyproject.toml": "",
        "services/reader/app.py": "",
        "services/reader/__pycache__/app.pyc": "",
        "operator/pyproject.toml": "",
        "operator/app.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def inputs(service: str, checkout: Path) -> str:
    return digest([service], files_of(service, checkout), checkout)


def test_all_five_images_are_built_by_default() -> None:
    assert services.services() == ["cli", "consumer", "operator", "reader", "writer"]


def test_images_are_named_as_kubernetes_completes_the_charts_names() -> None:
    assert service_image("writer") == "docker.io/flow-aggregator/writer:dev"


def test_a_service_is_made_of_its_own_code_the_libraries_and_the_workspace(checkout: Path) -> None:
    found = sorted(str(path.relative_to(checkout)) for path in files_of("reader", checkout))
    assert found == [
        ".dockerignore",
        "Dockerfile",
        "libs/flowagg/flow.py",
        "operator/pyproject.toml",
        "pyproject.toml",
        "services/reader/app.py",
        "services/reader/pyproject.toml",
        "services/writer/pyproject.toml",
    ]


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("services/writer/app.py", {"writer"}),
        ("operator/app.py", {"operator"}),
        ("libs/flowagg/flow.py", {"writer", "reader", "operator"}),
        ("services/reader/pyproject.toml", {"writer", "reader", "operator"}),
        ("Dockerfile", {"writer", "reader", "operator"}),
        ("README.md", set()),
        ("services/reader/__pycache__/app.pyc", set()),
    ],
)
def test_a_change_builds_anew_what_it_is_a_part_of(changed: str, rebuilt: set[str], checkout: Path) -> None:
    names = services.services(checkout)
    before = {name: inputs(name, checkout) for name in names}
    (checkout / changed).write_text("changed", encoding="utf-8")
    assert {name for name in names if inputs(name, checkout) != before[name]} == rebuilt


def test_every_file_that_the_dockerfile_copies_is_an_input() -> None:
    found = {str(path.relative_to(CHECKOUT)) for path in files_of("writer", CHECKOUT)}
    assert {"uv.lock", "pyproject.toml", "dev/cluster/pyproject.toml"} <= found
    assert any(path.startswith("libs/flowagg/src/") for path in found)
    assert any(path.startswith("services/writer/src/") for path in found)


def test_a_digest_sees_names_contents_and_the_right_to_run(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x", encoding="utf-8")
    seen = {digest([], [file], tmp_path), digest(["word"], [file], tmp_path)}
    file.chmod(0o755)
    seen.add(digest([], [file], tmp_path))
    file.write_text("y", encoding="utf-8")
    seen.add(digest([], [file], tmp_path))
    seen.add(digest([], [file.rename(tmp_path / "b")], tmp_path))
    assert len(seen) == 5


def test_words_are_kept_apart_in_a_digest() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])


@pytest.mark.parametrize("standin", STANDINS, ids=lambda one: one.name)
def test_a_standin_has_a_dockerfile_on_a_base_and_no_root(standin: Standin) -> None:
    lines = (standins.SOURCES / standin.name / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "FROM ${BASE}" in lines
    users = [line.split()[1].partition(":")[0] for line in lines if line.startswith("USER ")]
    assert users == {KAFKA: ["1000"], REDIS: ["999"], NGINX: ["101"], PROMETHEUS: ["65534"]}[standin]


def test_standins_have_the_upstream_images_names() -> None:
    assert [standin.image.partition(":")[0] for standin in STANDINS] == [
        "docker.io/apache/kafka",
        "docker.io/library/redis",
        "docker.io/nginxinc/nginx-unprivileged",
        "docker.io/prom/prometheus",
    ]
    assert KAFKA.image.endswith(f":{KAFKA_VERSION}")
