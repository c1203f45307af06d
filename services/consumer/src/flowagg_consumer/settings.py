"""The consumer's settings."""

from typing import Literal

from flowagg.settings import KafkaSettings, RedisSettings
from pydantic import Field


class ConsumerSettings(KafkaSettings, RedisSettings):
    """What the consumer reads from the environment."""

    batch_records: int = Field(
        1_000_000, ge=1, le=10_000_000, description="Records of a partition after which they are applied, in one call."
    )
    batch_writes: int = Field(
        20_000,
        ge=1,
        le=50_000,
        description="Totals to be written for a partition after which they are; Redis does nothing else meanwhile.",
    )
    batch_ms: int = Field(
        250,
        ge=0,
        le=10_000,
        description="Longest time for which records are gathered, in milliseconds, so that each total is written once: "
        "while more of them wait than have been gathered. With FLOWAGG_FLOWS_PER_SECOND nothing is gathered.",
    )
    batch_linger_ms: int = Field(
        5,
        ge=0,
        le=1000,
        description="Time to wait for more records once there is one, in milliseconds.",
    )
    flows_per_second: float | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Most records that one consumer applies a second, where others use Redis too; unset: no bound.",
    )
    prefetch_bytes: int = Field(4 * 2**20, ge=2**20, description="Most bytes fetched ahead of the fold.")
    cache_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="Memory for totals of owned partitions, in bytes (estimated); past it they are read from Redis.",
    )
    native: bool = Field(
        True,
        description="Whether records are taken and added up by compiled code; false: by Python alone, to the same "
        "totals, with several times the CPU and memory.",
    )
    max_in_flight: int = Field(
        2, ge=1, le=16, description="Batches sent to Redis and not yet answered; further ones wait."
    )
    dead_letter_topic: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="Topic for records that are no flows; by default the topic's name with .dead-letters.",
    )
    dedupe_window_seconds: float = Field(
        86_400.0,
        ge=60,
        description="Log time for which a repeat of a keyed POST counts nothing, in seconds; fixed for a view.",
    )
    retention_hours: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Log time for which an hour is kept after its last record, in hours; unset: for ever.",
    )
    reread_seconds: float = Field(
        0.5,
        gt=0,
        le=60,
        description="Time between two reads of the stored positions of owned partitions, in seconds.",
    )
    commit_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Time between two commits to Kafka (for lag tools only), in seconds.",
    )
    retry_seconds: float = Field(
        0.2,
        gt=0,
        le=60,
        description="Wait before a partition that could not be loaded is tried again, in seconds.",
    )
    group_protocol: Literal["auto", "consumer", "classic"] = Field(
        "auto",
        description="Kafka's group protocol: consumer (KIP-848), classic (cooperative-sticky), or by the broker.",
    )
    session_timeout_seconds: float = Field(
        10.0,
        ge=1,
        le=300,
        description="Time after which Kafka gives a silent consumer's partitions to others, in seconds (classic).",
    )
    heartbeat_seconds: float = Field(
        0.5,
        ge=0.1,
        le=100,
        description="Time between heartbeats to the group, in seconds: how soon a rebalance is noticed (classic).",
    )
    max_poll_seconds: float = Field(
        45.0,
        ge=6,
        le=3600,
        description="Time after which a consumer that does not come back to Kafka loses its partitions, in seconds; "
        "also how long the group waits (KIP-848) for one that does not give up a partition. At least three times "
        "FLOWAGG_KAFKA_TIMEOUT_SECONDS, for which the consumer may wait itself, are taken.",
    )
    membership_check_seconds: float = Field(
        2.0,
        ge=0.5,
        le=300,
        description="Time between looks at what the group thinks that this consumer owns, in seconds; where both "
        "disagree in two looks, it joins anew (KIP-848).",
    )
    group_patience_seconds: float = Field(
        30.0,
        ge=2,
        le=3600,
        description="Time after which a group whose coordinator cannot answer, though Kafka does, is given up for "
        "another one, in seconds.",
    )
    silence_seconds: float = Field(
        5.0,
        ge=0.5,
        le=300,
        description="Time between looks at partitions of which nothing comes, in seconds; where two find that the log "
        "has more, the consumer joins the group anew.",
    )
    stuck_seconds: float = Field(
        60.0,
        gt=0,
        le=600,
        description="Time without a turn of the main loop after which /livez fails, in seconds.",
    )
