"""Settings: typed, bounded, from the environment and files; unknown ones refused."""

from pathlib import Path

import pytest
from flowagg.kafka import InvalidProperties, client_properties, read_properties
from flowagg.settings import InvalidSettings, describe, sentinel_addresses
from flowagg_consumer.settings import ConsumerSettings
from flowagg_reader.settings import ReaderSettings
from flowagg_writer.settings import WriterSettings


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWAGG_PORT", "9")
    monkeypatch.setenv("FLOWAGG_LINGER_MS", "7")
    settings = WriterSettings.read()
    assert (settings.port, settings.linger_ms) == (9, 7)


def test_an_unknown_setting_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWAGG_KAFKA_BOOTSTRAP_SERVER", "x:1")
    monkeypatch.setenv("FLOWAGG_PORT", "-1")
    with pytest.raises(InvalidSettings) as caught:
        WriterSettings.read()
    assert "did you mean FLOWAGG_KAFKA_BOOTSTRAP_SERVERS?" in str(caught.value)
    assert "FLOWAGG_PORT" in str(caught.value)


def test_a_setting_of_another_service_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWAGG_REDIS_URL", "redis://127.0.0.1")
    with pytest.raises(InvalidSettings, match="unknown setting"):
        WriterSettings.read()


def test_a_secret_comes_from_a_file_and_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    monkeypatch.setenv("FLOWAGG_REDIS_PASSWORD_FILE", str(secret))
    settings = ReaderSettings.read()
    assert settings.redis_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + str(settings.public())
    assert settings.public()["FLOWAGG_REDIS_PASSWORD"] == "(set)"


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWAGG_REDIS_PASSWORD_FILE", "/nowhere/password")
    with pytest.raises(InvalidSettings, match="/nowhere/password"):
        ReaderSettings.read()


def test_a_value_and_its_file_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWAGG_VIEW", "a")
    monkeypatch.setenv("FLOWAGG_VIEW_FILE", str(tmp_path))
    with pytest.raises(InvalidSettings, match="not both"):
        ReaderSettings.read()


@pytest.mark.parametrize("url", ["redis://user:hunter2@127.0.0.1", "http://127.0.0.1:hunter2", "hunter2"])
def test_a_redis_url_with_a_password_is_refused_and_not_echoed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FLOWAGG_REDIS_URL", url)
    with pytest.raises(InvalidSettings, match="FLOWAGG_REDIS_URL") as caught:
        ConsumerSettings.read()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        ("a:1", [("a", 1)]),
        ("main-redis-0.main-redis:26379, 10.0.0.1:65535", [("main-redis-0.main-redis", 26379), ("10.0.0.1", 65535)]),
        ("[::1]:26379", [("::1", 26379)]),
    ],
)
def test_sentinels_are_hosts_and_ports(text: str, addresses: list[tuple[str, int]]) -> None:
    assert sentinel_addresses(ReaderSettings(redis_sentinels=text).redis_sentinels) == addresses


@pytest.mark.parametrize(
    "text", ["a", "a:", ":1", "a:0", "a:65536", "a:1,", "a:1,,b:2", ",", "::1:26379", "a b:1", "redis://a:1", "a:-1"]
)
def test_what_is_not_host_and_port_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FLOWAGG_REDIS_SENTINELS", text)
    with pytest.raises(InvalidSettings, match=r"FLOWAGG_REDIS_SENTINELS.*is not host:port"):
        ConsumerSettings.read()


def test_the_sentinels_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWAGG_SENTINEL_PASSWORD", "hunter2")
    settings = ReaderSettings.read()
    assert "hunter2" not in repr(settings) + str(settings.public())


@pytest.mark.parametrize("settings", [WriterSettings, ConsumerSettings, ReaderSettings])
def test_every_setting_has_a_meaning_and_stands_in_the_help(settings: type[WriterSettings]) -> None:
    text = describe(settings)
    for name, field in settings.model_fields.items():
        assert f"FLOWAGG_{name.upper()}=" in text
        assert field.description
        assert field.description.endswith((".", ".)")) or "503" in field.description


def test_a_properties_file_goes_to_librdkafka(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# comment\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\nbootstrap.servers=ignored:1\n")
    monkeypatch.setenv("FLOWAGG_KAFKA_PROPERTIES_FILE", str(path))
    properties = client_properties(WriterSettings.read(), "writer", {"linger.ms": 1})
    assert properties["security.protocol"] == "SASL_SSL"
    assert properties["sasl.password"] == "a=b"
    assert properties["bootstrap.servers"] == "127.0.0.1:9092"
    assert properties["linger.ms"] == 1


def test_a_broken_properties_file_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("a=b\nnonsense\n")
    with pytest.raises(InvalidProperties, match="line 2"):
        read_properties(path)
