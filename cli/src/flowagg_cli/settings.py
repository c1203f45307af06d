"""The settings of the commands on views, and how they are read in a consumer's environment."""

import os
from typing import Final, TypeVar

from flowagg.settings import PREFIX, KafkaSettings, RedisSettings, Settings

_S = TypeVar("_S", bound=Settings)

OF_CONSUMERS: Final = frozenset(
    {
        "batch_linger_ms",
        "batch_ms",
        "batch_records",
        "batch_writes",
        "cache_bytes",
        "commit_seconds",
        "dead_letter_read_seconds",
        "dead_letter_topic",
        "dedupe_window_seconds",
        "flows_per_second",
        "group_protocol",
        "heartbeat_seconds",
        "max_in_flight",
        "max_poll_seconds",
        "membership_check_seconds",
        "native",
        "group_patience_seconds",
        "prefetch_bytes",
        "replay_batch",
        "replay_transaction_seconds",
        "reread_seconds",
        "retention_hours",
        "retry_seconds",
        "session_timeout_seconds",
        "silence_seconds",
        "stuck_seconds",
        "token_file",
        "url",
    }
)
"""The consumer's own settings and other commands': a Job gets the environment of a consumer, and a person has one
environment for all commands, so they are no typing errors here."""


class ViewSettings(KafkaSettings, RedisSettings):
    """What `flowagg views` reads from the environment; the view is named on the command line."""


def read_settings(settings_class: type[_S]) -> _S:
    """Read settings; a consumer's that the class does not have are left aside. Raises InvalidSettings."""
    for name in OF_CONSUMERS - settings_class.model_fields.keys():
        for variable in (PREFIX + name.upper(), f"{PREFIX}{name.upper()}_FILE"):
            os.environ.pop(variable, None)
    return settings_class.read()
