"""Secrets as the operator's own clients of Kafka and Redis see them."""

from collections.abc import Iterator

import pytest
from flowagg.kafka import InvalidProperties, read_properties
from flowagg.settings import KafkaSettings
from flowagg_operator.kafka_look import connect
from flowagg_operator.pods import needed_keys
from flowagg_operator.secret_files import SecretFiles
from flowagg_operator.spec import SecretRef, read_spec

PROPERTIES = b"""security.protocol=SASL_SSL
ssl.ca.location=/etc/flowagg/kafka/ca.crt
sasl.password=${file:/etc/flowagg/kafka/password}
"""
DATA = {"client": {"client.properties": PROPERTIES, "ca.crt": b"CA", "password": b"secret\n"}}


@pytest.fixture
def files() -> Iterator[SecretFiles]:
    made = SecretFiles()
    yield made
    made.close()


def test_properties_may_name_files_beside_them_as_the_pods_see_them(files: SecretFiles) -> None:
    path = files.kafka(DATA, SecretRef(name="client", key="client.properties"))
    properties = read_properties(path)
    assert properties["sasl.password"] == "secret"
    assert properties["ssl.ca.location"] == str(path.parent / "ca.crt")
    assert (path.parent / "ca.crt").read_bytes() == b"CA"


def test_nobody_else_can_read_the_files_and_they_go(files: SecretFiles) -> None:
    path = files.file(DATA, "client", "ca.crt")
    directory = path.parent.parent
    assert directory.stat().st_mode & 0o077 == 0
    files.close()
    assert not directory.exists()


@pytest.mark.parametrize("properties", ["no such property", "enable.idempotence=false", "nonsense.setting=1"])
def test_properties_that_cannot_be_are_a_verdict_that_shows_no_value(properties: str, files: SecretFiles) -> None:
    data = {"client": {"p": properties.encode()}}

    def settings() -> KafkaSettings:
        file = files.kafka(data, SecretRef(name="client", key="p"))
        return KafkaSettings(kafka_bootstrap_servers="127.0.0.1:1", kafka_properties_file=file)

    found = connect(settings)
    assert getattr(found, "reason", "") == "InvalidProperties"


def test_reading_properties_without_a_value_is_refused(files: SecretFiles) -> None:
    with pytest.raises(InvalidProperties):
        read_properties(files.kafka({"client": {"p": b"x"}}, SecretRef(name="client", key="p")))


def test_every_key_that_a_pod_needs_is_looked_for() -> None:
    spec = read_spec(
        {
            "kafka": {"bootstrapServers": "k:1", "configSecretRef": {"name": "k", "key": "client.properties"}},
            "redis": {
                "url": "rediss://r",
                "authSecretRef": {"name": "r", "key": "password"},
                "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "clientSecretRef": {"name": "c"}},
            },
            "access": {"tokensSecretRef": {"name": "t", "key": "tokens.json"}},
        }
    )
    assert needed_keys(spec) == [
        ("k", "client.properties"),
        ("r", "password"),
        ("ca", "ca.crt"),
        ("t", "tokens.json"),
        ("c", "tls.crt"),
        ("c", "tls.key"),
    ]
