"""Settings: typed, frozen, read once from FLOWAGG_* variables; secrets also from files.

Every setting NAME is read from the variable FLOWAGG_NAME, or from the file that FLOWAGG_NAME_FILE
names (so that no secret needs to stand in an environment). A FLOWAGG_* variable that no setting
has is refused, with the nearest name: a typing error must not become a silent default.
"""

import difflib
import os
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import pydantic
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from flowagg.errors import FlowaggError
from flowagg.view import VIEW_NAME

PREFIX = "FLOWAGG_"
_FILE = "_FILE"
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)):([0-9]{1,5})")
_T = TypeVar("_T", bound="Settings")


class InvalidSettings(FlowaggError):
    """The environment holds settings that are unknown or out of bounds; all of them are listed."""


class Settings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a pod's own
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    shutdown_seconds: float = Field(
        20.0,
        gt=0,
        le=600,
        description="Longest time to finish work in hand after SIGTERM, in seconds.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments (used by tests) before files before the environment; nothing else is read."""
        return init_settings, _FileSource(settings_cls), env_settings

    @classmethod
    def read(cls) -> Self:
        """Read the settings from the process's environment. Raises InvalidSettings."""
        problems = _unknown(cls, os.environ)
        try:
            settings = cls()
        except pydantic.ValidationError as error:
            problems += [f"{_variable(str(e['loc'][0]))}: {_because(e)}" for e in error.errors()]
        except OSError as error:
            problems.append(f"{error.filename}: cannot be read: {error.strerror}")
        else:
            if not problems:
                return settings
        raise InvalidSettings("\n".join(problems))

    def public(self) -> dict[str, Any]:
        """All settings by variable name; secrets only as set or not."""
        shown = self.model_dump()
        return {_variable(name): _masked(value) for name, value in shown.items()}


class HttpSettings(Settings):
    """What a service that answers clients over HTTP has."""

    max_connections: int = Field(
        8192,
        ge=1,
        description="Connections at a time; a further one is answered 503 and closed, but for probes and metrics.",
    )
    max_waiting_requests: int = Field(
        2048,
        ge=1,
        description="Requests in hand at a time; past it the answer is 503 with Retry-After.",
    )
    keep_alive_seconds: int = Field(75, ge=1, description="Time after which an idle connection is closed, in seconds.")
    max_head_bytes: int = Field(
        64 * 1024, ge=1024, le=2**20, description="Largest request line and headers, in bytes; past it 431."
    )
    max_head_fields: int = Field(100, ge=10, le=1000, description="Most header lines of a request; past it 431.")
    head_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Longest time for a request's line and headers to arrive, in seconds; past it 408.",
    )
    stall_seconds: float = Field(
        15.0,
        gt=0,
        le=600,
        description="Time after which a client that takes nothing of its answer is cut off, in seconds.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Time after SIGTERM for which requests are still taken, each answer closing its connection, "
        "in seconds: for clients that have not heard of the end yet.",
    )
    tokens_file: Path | None = Field(
        None,
        description="File of the bearer tokens that may write and read (JSON, hashed); read again when it changes. "
        "Unset: everybody may.",
    )
    access_log: bool = Field(False, description="Log a line for each request.")
    tls_certificate_file: Path | None = Field(
        None, description="File of the certificate chain (PEM) to serve HTTPS with; read again when it changes."
    )
    tls_key_file: Path | None = Field(None, description="File of the certificate's private key (PEM).")


class KafkaSettings(Settings):
    """What a service that talks to Kafka has."""

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", min_length=1, description="Kafka's addresses, host:port, comma-separated."
    )
    kafka_topic: str = Field(
        "flows",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="Topic that holds the log of flows.",
    )
    kafka_properties_file: Path | None = Field(
        None,
        description="File of further librdkafka properties, one key=value a line (security.protocol, sasl.*, ...); "
        "mount it from a Secret.",
    )
    kafka_timeout_seconds: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Longest wait for an answer of Kafka to a look-up, in seconds.",
    )
    kafka_hedge_seconds: float = Field(
        0.5,
        ge=0.05,
        le=60,
        description="Time after which a look-up without an answer of Kafka is tried by a new client too, in seconds.",
    )

    @field_validator("kafka_properties_file")
    @classmethod
    def _check_is_a_name(cls, value: Path | None) -> Path | None:
        if value is not None and "\n" in str(value):  # or what it holds would be shown
            raise ValueError("is the name of a file, not its content")
        return value


class RedisSettings(Settings):
    """What a service that talks to Redis has."""

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        # Nothing more: redis-py would take a password, or leave to verify nothing, from what follows a "?".
        pattern=r"^rediss?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]*)?$",
        description="Redis's address, without user or password; rediss:// for TLS. Unused where "
        "FLOWAGG_REDIS_SENTINELS is set.",
    )
    redis_sentinels: str = Field(
        "",
        description="Sentinels' addresses, host:port, comma-separated; they name the Redis master. "
        "Empty: FLOWAGG_REDIS_URL is the master.",
    )
    redis_master_name: str = Field(
        "main", pattern=r"^[A-Za-z0-9._-]+$", description="Name by which the sentinels know the Redis master."
    )
    sentinel_username: str | None = Field(None, description="User on the sentinels, where ACLs are on.")
    sentinel_password: SecretStr = Field(
        SecretStr(""), description="Password of the sentinels; use FLOWAGG_SENTINEL_PASSWORD_FILE."
    )
    sentinel_timeout_seconds: float = Field(
        0.2,
        gt=0,
        le=60,
        description="Longest wait for a connection or an answer of one sentinel, in seconds; then the next is asked.",
    )
    sentinel_recheck_seconds: float = Field(
        1.0,
        gt=0,
        le=300,
        description="Time after which a reader in use asks the sentinels again where the master is, in seconds.",
    )
    redis_username: str | None = Field(None, description="Redis user, where ACLs are on.")
    redis_password: SecretStr = Field(SecretStr(""), description="Redis password; use FLOWAGG_REDIS_PASSWORD_FILE.")
    redis_timeout_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Longest wait for a connection or an answer of Redis, in seconds.",
    )
    redis_tls: bool = Field(
        False,
        validate_default=True,
        description="Speak TLS with the Redis that the sentinels name; where there are none FLOWAGG_REDIS_URL says so.",
    )
    sentinel_tls: bool = Field(False, description="Speak TLS with the sentinels.")
    redis_ca_file: Path | None = Field(
        None,
        description="File of the CA certificates (PEM) that Redis and the sentinels are verified with; "
        "unset: those of the system.",
    )
    redis_certificate_file: Path | None = Field(
        None,
        description="File of the client certificate (PEM), with those between it and the CA, for Redis and the "
        "sentinels.",
    )
    redis_key_file: Path | None = Field(
        None,
        validate_default=True,
        description="File of the client certificate's private key (PEM, no passphrase); unset: it is in the "
        "certificate's file.",
    )
    redis_tls_verify_hostname: bool = Field(
        True,
        description="Whether the certificates of Redis and the sentinels must name the hosts that are connected to.",
    )
    view: str = Field(
        "default",
        pattern=VIEW_NAME,
        description="View that is kept or read; the consumers' Kafka group is flowagg-VIEW.",
    )

    @field_validator("redis_sentinels")
    @classmethod
    def _check_sentinels(cls, value: str) -> str:
        sentinel_addresses(value)
        return value.strip()

    @field_validator("redis_tls")
    @classmethod
    def _check_tls(cls, value: bool, info: pydantic.ValidationInfo) -> bool:
        """What is meant to be encrypted never goes in the clear."""
        url = info.data.get("redis_url", "")
        if info.data.get("redis_sentinels", ""):
            if not value and url.startswith("rediss:"):
                raise ValueError("set it to true: with sentinels the rediss:// of FLOWAGG_REDIS_URL has no effect")
        elif value and url.startswith("redis:"):
            raise ValueError("write rediss:// in FLOWAGG_REDIS_URL: this setting is for a Redis behind sentinels")
        return value

    @field_validator("redis_ca_file", "redis_certificate_file", "redis_key_file")
    @classmethod
    def _check_tls_is_used(cls, value: Path | None, info: pydantic.ValidationInfo) -> Path | None:
        data = info.data
        if not {"redis_url", "redis_sentinels", "redis_tls", "sentinel_tls"} <= data.keys():
            return value  # they are wrong, which is told already
        sentinels = data["redis_sentinels"]
        used = data["redis_tls"] or data["sentinel_tls"] if sentinels else data["redis_url"].startswith("rediss:")
        if value is not None and not used:
            turn_on = "FLOWAGG_REDIS_TLS=true" if sentinels else "rediss:// in FLOWAGG_REDIS_URL"
            raise ValueError(f"nothing speaks TLS, so it has no effect: write {turn_on}, or take this out")
        return value

    @field_validator("redis_ca_file", "redis_certificate_file")
    @classmethod
    def _check_certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            check_pem(value)
            try:
                ssl.create_default_context(cafile=value)
            except ssl.SSLError as error:
                raise ValueError(f"{value} holds no certificate in PEM form ({error.reason})") from None
        return value

    @field_validator("redis_key_file")
    @classmethod
    def _check_key(cls, value: Path | None, info: pydantic.ValidationInfo) -> Path | None:
        if "redis_certificate_file" not in info.data:
            return value  # it is wrong, which is told already
        certificate = info.data["redis_certificate_file"]
        if certificate is None:
            if value is not None:
                raise ValueError("set FLOWAGG_REDIS_CERTIFICATE_FILE too: a key is of no use without its certificate")
            return value
        file = value or certificate
        text = check_pem(file)
        if b"PRIVATE KEY-----" not in text:
            raise ValueError(f"{file} holds no private key in PEM form")
        if b"ENCRYPTED" in text:
            raise ValueError(f"the key in {file} has a passphrase: write it without one")
        try:
            ssl.create_default_context().load_cert_chain(certificate, file)
        except ssl.SSLError as error:
            raise ValueError(f"{file} does not go with the certificate in {certificate} ({error.reason})") from None
        return value

    @property
    def speaks_tls(self) -> bool:
        """Whether connections to Redis itself are encrypted."""
        return self.redis_tls if self.redis_sentinels else self.redis_url.startswith("rediss:")

    def tls_context(self) -> ssl.SSLContext:
        """How TLS is spoken with Redis and the sentinels: the given CA alone is trusted, else the system's."""
        context = ssl.create_default_context(cafile=self.redis_ca_file)
        context.check_hostname = self.redis_tls_verify_hostname
        if self.redis_certificate_file is not None:
            context.load_cert_chain(self.redis_certificate_file, self.redis_key_file)
        return context


class ElectionSettings(Settings):
    """What a service has of which one replica is active at a time.

    Without a lease's name there is no election, and nothing else here has an effect.
    """

    election_namespace: str = Field(
        "", description="Namespace of the Lease, the EndpointSlices and this pod; from the downward API."
    )
    election_endpoint_slices: str = Field(
        "",
        description="EndpointSlices that lead the Service to the active pod, comma-separated: one an IP family. The "
        "operator makes them; the active replica writes their endpoints.",
    )
    pod_name: str = Field("", description="This pod's name; from the downward API (metadata.name).")
    pod_uid: str = Field("", description="This pod's uid; from the downward API (metadata.uid).")
    pod_ips: str = Field(
        "", description="This pod's addresses, comma-separated; from the downward API (status.podIPs)."
    )
    node_name: str = Field("", description="This pod's node; from the downward API (spec.nodeName).")
    election_lease: str | None = Field(
        None,
        min_length=1,
        description="Lease by which the replicas choose the active one. Unset: no election, every replica serves as "
        "the active one does.",
    )
    election_lease_seconds: int = Field(
        3,
        ge=1,
        le=300,
        description="Time without a renewal after which another replica takes over, in seconds. On a slow cluster: "
        "15, with 2 for FLOWAGG_ELECTION_RENEW_SECONDS.",
    )
    election_renew_seconds: float = Field(
        1.0,
        gt=0,
        validate_default=True,
        description="Time between two renewals by the active replica, in seconds; at most half of the lease's.",
    )
    election_attempt_seconds: float = Field(
        0.6,
        gt=0,
        validate_default=True,
        description="Time for the Kubernetes API to answer, in seconds, before the call is repeated on a new "
        "connection; the first may still be answered. At most half of the lease's.",
    )
    election_handover_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Longest time after SIGTERM for another replica to take over, in seconds; meanwhile the active one "
        "serves on. FLOWAGG_DRAIN_SECONDS and FLOWAGG_SHUTDOWN_SECONDS begin after it.",
    )
    election_linger_seconds: float = Field(
        2.0,
        ge=0,
        le=600,
        description="Time for which an ending replica serves on once the Service leads to another, in seconds: for "
        "clients and proxies that have not heard of it yet.",
    )
    service_account_directory: Path = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="Folder of the token and the CA certificate for the Kubernetes API, whose address is in "
        "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT; the token is read again when it changes.",
    )

    @field_validator("pod_ips")
    @classmethod
    def _check_addresses(cls, value: str) -> str:
        for part in _parts(value):
            ip_address(part)
        return value

    @field_validator("election_lease")
    @classmethod
    def _check_identity(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        needed = ("election_namespace", "election_endpoint_slices", "pod_name", "pod_ips")
        missing = [_variable(name) for name in needed if not info.data.get(name, "wrong, which is told already")]
        if value is not None and missing:
            raise ValueError(f"set {', '.join(missing)} too")
        return value

    @field_validator("election_renew_seconds", "election_attempt_seconds")
    @classmethod
    def _check_fits_lease(cls, value: float, info: pydantic.ValidationInfo) -> float:
        lease_seconds = info.data.get("election_lease_seconds")
        if lease_seconds is not None and value > lease_seconds / 2:
            raise ValueError(f"is at most half of FLOWAGG_ELECTION_LEASE_SECONDS ({lease_seconds})")
        return value

    def slice_names(self) -> tuple[str, ...]:
        """The EndpointSlices' names."""
        return _parts(self.election_endpoint_slices)

    def pod_addresses(self) -> tuple[str, ...]:
        """The pod's IP addresses."""
        return _parts(self.pod_ips)


def check_pem(path: Path) -> bytes:
    """The content of a file of certificates or keys. Raises ValueError, never with what could be a key."""
    if "-----BEGIN" in str(path):
        raise ValueError("is the name of a file, not its content")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def sentinel_addresses(text: str) -> list[tuple[str, int]]:
    """The hosts and ports of a comma-separated list of host:port, IPv6 in brackets. Raises ValueError."""
    addresses = []
    for part in text.split(",") if text.strip() else ():
        match = _ADDRESS.fullmatch(part.strip())
        if match is None or not 1 <= int(match[3]) <= 65535:
            raise ValueError(f"{part!r} is not host:port")
        addresses.append((match[1] or match[2], int(match[3])))
    return addresses


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class _FileSource(EnvSettingsSource):
    """FLOWAGG_NAME_FILE: the setting's value is the named file's content, without the last line end."""

    def __call__(self) -> dict[str, Any]:
        return {
            name: Path(path).read_text(encoding="utf-8").rstrip("\r\n")
            for name in self.settings_cls.model_fields
            if (path := os.environ.get(_variable(name) + _FILE)) is not None and not name.endswith(_FILE.lower())
        }


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else ""
    return value


def _because(error: Any) -> str:
    """Pydantic's message with the value that was given, secrets never."""
    message = str(error["msg"])
    given = error.get("input")
    hidden = given is None or any(word in str(error["loc"]) for word in ("password", "url", "_file"))
    return message if hidden else f"{message}, not {given!r}"


def _unknown(cls: type[_T], environment: Mapping[str, str]) -> list[str]:
    known = {_variable(name) for name in cls.model_fields}
    files = {name + _FILE for name in known if not name.endswith(_FILE)}
    problems = []
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in known:
            continue
        if variable in files:
            if variable.removesuffix(_FILE) in environment:
                problems.append(f"{variable}: set either this or {variable.removesuffix(_FILE)}, not both")
            continue
        near = difflib.get_close_matches(variable, known | files, n=1)
        problems.append(f"{variable}: unknown setting" + (f"; did you mean {near[0]}?" if near else ""))
    return problems


def describe(cls: type[Settings]) -> str:
    """The settings as text for --help: variable, default and meaning."""
    lines = []
    for name, field in cls.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        lines.append(f"  {_variable(name)}={'' if default is None else default}\n      {field.description}")
    return "\n".join(lines)
