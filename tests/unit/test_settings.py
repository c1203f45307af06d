"""Settings: typed, bounded, from the environment and files; unknown ones refused."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from flowagg import kafka
from flowagg.kafka import InvalidProperties, client_properties, read_properties
from flowagg.settings import InvalidSettings, describe, sentinel_addresses
from flowagg_consumer.settings import ConsumerSettings
from flowagg_reader.settings import ReaderSettings
from flowagg_stack.certificates import Authority, Certificate
from flowagg_writer.settings import WriterSettings

UNSAFE_URLS = [
    "redis://127.0.0.1?password=hunter2",
    "rediss://127.0.0.1/0?ssl_cert_reqs=none&hunter2",
    "redis://:hunter2",
    "redis://127.0.0.1/0#hunter2",
]
URL, SENTINELS, TLS, SENTINEL_TLS, CA, CERTIFICATE, KEY = (
    f"FLOWAGG_{name}"
    for name in (
        "REDIS_URL",
        "REDIS_SENTINELS",
        "REDIS_TLS",
        "SENTINEL_TLS",
        "REDIS_CA_FILE",
        "REDIS_CERTIFICATE_FILE",
        "REDIS_KEY_FILE",
    )
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("certificates")).issue("client")


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


@pytest.mark.parametrize("url", ["redis://user:hunter2@127.0.0.1", "http://127.0.0.1:hunter2", "hunter2", *UNSAFE_URLS])
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


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "rediss://main-redis:6380/3", "redis://[::1]:6379"])
def test_a_plain_redis_url_is_taken(url: str) -> None:
    assert ReaderSettings(redis_url=url).speaks_tls == url.startswith("rediss")


@pytest.mark.parametrize(
    "given",
    [
        {URL: "rediss://h"},
        {URL: "rediss://h", CA: "ca", CERTIFICATE: "certificate", KEY: "key"},
        {URL: "rediss://h", TLS: "true", CERTIFICATE: "both"},
        {SENTINELS: "s:1", TLS: "true", SENTINEL_TLS: "true", CA: "ca"},
        {SENTINELS: "s:1", SENTINEL_TLS: "true", CA: "ca", CERTIFICATE: "certificate", KEY: "key"},
        {SENTINELS: "s:1", URL: "rediss://h", TLS: "true"},
    ],
)
def test_tls_to_redis_is_set_in_these_ways(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificate, given: dict[str, str]
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, str(getattr(certificates, value, value)))
    settings = ConsumerSettings.read()
    context = settings.tls_context()
    assert context.check_hostname
    # The system's CAs are trusted where no other is given, and only there.
    assert CA not in given or len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("given", "variable", "words"),
    [
        ({TLS: "true"}, TLS, "write rediss://"),
        ({SENTINELS: "s:1", URL: "rediss://h"}, TLS, "set it to true"),
        ({CA: "ca"}, CA, "nothing speaks TLS"),
        ({SENTINELS: "s:1", CA: "ca"}, CA, "FLOWAGG_REDIS_TLS=true"),
        ({SENTINEL_TLS: "true", CA: "ca"}, CA, "nothing speaks TLS"),
        ({URL: "rediss://h", CA: "/nowhere/ca.pem"}, CA, "/nowhere/ca.pem cannot be read: No such file"),
        ({URL: "rediss://h", CA: "/"}, CA, "cannot be read: Is a directory"),
        ({URL: "rediss://h", CA: ""}, CA, "cannot be read"),
        ({URL: "rediss://h", CA: "key"}, CA, "holds no certificate in PEM form"),
        ({URL: "rediss://h", CERTIFICATE: "key"}, CERTIFICATE, "holds no certificate in PEM form"),
        ({URL: "rediss://h", CERTIFICATE: "certificate"}, KEY, "holds no private key"),
        ({URL: "rediss://h", CERTIFICATE: "certificate", KEY: "certificate"}, KEY, "holds no private key"),
        ({URL: "rediss://h", CERTIFICATE: "ca", KEY: "key"}, KEY, "does not go with the certificate"),
        ({URL: "rediss://h", KEY: "key"}, KEY, "set FLOWAGG_REDIS_CERTIFICATE_FILE too"),
        ({URL: "rediss://h", CERTIFICATE: "certificate", KEY: "/nowhere/key.pem"}, KEY, "cannot be read"),
    ],
)
def test_tls_settings_that_would_not_work_end_the_start_with_their_name(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificate, given: dict[str, str], variable: str, words: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, str(getattr(certificates, value, value)))
    with pytest.raises(InvalidSettings) as caught:
        ReaderSettings.read()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{variable}: ")
    assert words in line


def test_a_key_with_a_passphrase_is_refused_and_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificate, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.write_text(certificates.key.read_text().replace("PRIVATE", "ENCRYPTED PRIVATE"))
    for name, value in ((URL, "rediss://h"), (CERTIFICATE, str(certificates.certificate)), (KEY, str(key))):
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=r"REDIS_KEY_FILE.*has a passphrase"):
        ReaderSettings.read()


@pytest.mark.parametrize("variable", [CA, CERTIFICATE, KEY, "FLOWAGG_KAFKA_PROPERTIES_FILE"])
def test_a_secret_in_the_place_of_its_files_name_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificate, variable: str
) -> None:
    monkeypatch.setenv(URL, "rediss://h")
    if variable == KEY:
        monkeypatch.setenv(CERTIFICATE, str(certificates.certificate))
    secret = certificates.both.read_text()
    monkeypatch.setenv(variable, secret)
    with pytest.raises(InvalidSettings, match=f"{variable}.*name of a file") as caught:
        ReaderSettings.read()
    assert [line for line in secret.splitlines() if line in str(caught.value)] == []


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


def test_a_property_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    secret, path = tmp_path / "password", tmp_path / "kafka.properties"
    secret.write_text("p@$$ = {w}\n")
    path.write_text(f"sasl.username=$me\nsasl.password=${{file:{secret}}}\n")
    assert read_properties(path) == {"sasl.username": "$me", "sasl.password": "p@$$ = {w}"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${file:/nowhere/password}", "/nowhere/password cannot be read: No such file"),
        ("${file:password}", "absolute path"),
        ("${file:/nowhere/password", "absolute path"),
        ("hunter2${file:/nowhere/password}", "nothing before or after"),
        ("${file:/}", "absolute path"),
        ("${file:/tmp}", "Is a directory"),
    ],
)
def test_a_property_whose_file_cannot_be_read_is_named(tmp_path: Path, value: str, words: str) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text(f"a=b\nsasl.password={value}\n")
    with pytest.raises(InvalidProperties) as caught:
        read_properties(path)
    assert f"{path}, line 2: sasl.password: " in str(caught.value)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_reason_of_a_refused_connection_outlives_its_end_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("flowagg.kafka.time.monotonic", lambda: now)
    monkeypatch.setattr(kafka, "_connections", kafka._Connections())
    assert kafka.connection_trouble() is None
    for attempt in range(20):
        refusal = f"sasl_ssl://k:9093/bootstrap: SASL authentication error: no (after {attempt}ms in state AUTH_REQ)"
        kafka.log_error(KafkaError(KafkaError._AUTHENTICATION, refusal))
        kafka.log_error(KafkaError(KafkaError._TRANSPORT, "sasl_ssl://k:9093/bootstrap: Disconnected"))
        kafka.log_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "7/7 brokers are down"))
    assert str(kafka.connection_trouble()).startswith("AuthenticationFailed: sasl_ssl://k:9093/bootstrap: SASL")
    assert len(caplog.records) == 3
    now += 11
    assert kafka.connection_trouble() is None
    kafka.log_error(KafkaError(KafkaError._TRANSPORT, "sasl_ssl://k:9093/bootstrap: Connection refused"))
    assert kafka.connection_trouble() == "sasl_ssl://k:9093/bootstrap: Connection refused"
