"""Settings: typed, frozen, read once from FLOWAGG_* variables; secrets also from files.

Every setting NAME is read from the variable FLOWAGG_NAME, or from the file that FLOWAGG_NAME_FILE
names (so that no secret needs to stand in an environment). A FLOWAGG_* variable that no setting
has is refused, with the nearest name: a typing error must not become a silent default.
"""

import difflib
import os
import re
from collections.abc import Mapping
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
        8192, ge=1, description="Connections at a time; past it every request is answered with 503."
    )
    max_waiting_requests: int = Field(
        2048,
        ge=1,
        description="Requests in hand at a time; past it the answer is 503 with Retry-After.",
    )
    keep_alive_seconds: int = Field(75, ge=1, description="Time after which an idle connection is closed, in seconds.")


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


class RedisSettings(Settings):
    """What a service that talks to Redis has."""

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^(redis|rediss)://[^@]*$",
        description="Redis's address, without user or password; unused where FLOWAGG_REDIS_SENTINELS is set.",
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
    redis_username: str | None = Field(None, description="Redis user, where ACLs are on.")
    redis_password: SecretStr = Field(SecretStr(""), description="Redis password; use FLOWAGG_REDIS_PASSWORD_FILE.")
    redis_timeout_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Longest wait for a connection or an answer of Redis, in seconds.",
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


def sentinel_addresses(text: str) -> list[tuple[str, int]]:
    """The hosts and ports of a comma-separated list of host:port, IPv6 in brackets. Raises ValueError."""
    addresses = []
    for part in text.split(",") if text.strip() else ():
        match = _ADDRESS.fullmatch(part.strip())
        if match is None or not 1 <= int(match[3]) <= 65535:
            raise ValueError(f"{part!r} is not host:port")
        addresses.append((match[1] or match[2], int(match[3])))
    return addresses


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
    hidden = given is None or any(word in str(error["loc"]) for word in ("password", "url"))
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
