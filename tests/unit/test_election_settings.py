"""The settings of the election: none at all, or all that it takes."""

from pathlib import Path

import pytest
from flowagg.election_thread import elector
from flowagg.kubernetes import InvalidKubeconfig
from flowagg.settings import InvalidSettings
from flowagg_reader.settings import ReaderSettings
from flowagg_writer.settings import WriterSettings
from prometheus_client import REGISTRY

WHOLE = {
    "FLOWAGG_ELECTION_LEASE": "main-writer",
    "FLOWAGG_ELECTION_NAMESPACE": "flows",
    "FLOWAGG_ELECTION_ENDPOINT_SLICES": "main-writer, main-writer-ipv6",
    "FLOWAGG_POD_NAME": "writer-a",
    "FLOWAGG_POD_IPS": "10.0.0.1,fd00::1",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("settings", [WriterSettings, ReaderSettings])
def test_without_a_lease_there_is_no_election_and_the_replica_is_active(
    settings: type[WriterSettings | ReaderSettings],
) -> None:
    assert elector(settings.read()) is None
    assert REGISTRY.get_sample_value("flowagg_active") == 1


def test_lists_are_read_apart(environment: pytest.MonkeyPatch) -> None:
    settings = WriterSettings.read()
    assert settings.slice_names() == ("main-writer", "main-writer-ipv6")
    assert settings.pod_addresses() == ("10.0.0.1", "fd00::1")
    assert (settings.election_lease_seconds, settings.election_renew_seconds) == (3, 1.0)


@pytest.mark.parametrize("missing", sorted(WHOLE.keys() - {"FLOWAGG_ELECTION_LEASE"}))
def test_a_lease_without_what_it_takes_is_refused(environment: pytest.MonkeyPatch, missing: str) -> None:
    environment.delenv(missing)
    with pytest.raises(InvalidSettings, match=f"set {missing} too"):
        WriterSettings.read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLOWAGG_POD_IPS", "writer-a"),
        ("FLOWAGG_ELECTION_LEASE", ""),
        ("FLOWAGG_ELECTION_LEASE_SECONDS", "0"),
        ("FLOWAGG_ELECTION_RENEW_SECONDS", "1.6"),
        ("FLOWAGG_ELECTION_ATTEMPT_SECONDS", "2"),
    ],
)
def test_what_cannot_work_is_refused(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(InvalidSettings, match=name):
        WriterSettings.read()


def test_defaults_that_do_not_fit_a_shorter_lease_are_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FLOWAGG_ELECTION_LEASE_SECONDS", "1")
    with pytest.raises(InvalidSettings, match=r"FLOWAGG_ELECTION_RENEW_SECONDS(.|\n)*FLOWAGG_ELECTION_ATTEMPT_SECONDS"):
        WriterSettings.read()


def test_an_election_outside_of_a_pod_is_refused_with_the_reason(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    environment.setenv("KUBERNETES_SERVICE_PORT", "443")
    environment.setenv("FLOWAGG_SERVICE_ACCOUNT_DIRECTORY", str(tmp_path))
    with pytest.raises(InvalidKubeconfig, match="token: cannot be read"):
        elector(WriterSettings.read())
