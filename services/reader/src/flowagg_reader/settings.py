"""The reader's settings."""

from flowagg.settings import HttpSettings, KafkaSettings, RedisSettings
from pydantic import Field


class ReaderSettings(HttpSettings, KafkaSettings, RedisSettings):
    """What the reader reads from the environment."""

    fresh_wait_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Longest wait for the view to reach what a GET must reflect, in seconds.",
    )
    get_timeout_seconds: float = Field(
        15.0, ge=1, le=300, description="Longest time for a GET, in seconds; past it 503."
    )
    kafka_timeout_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="Longest wait for the log's end offsets, in seconds; past it the answer is marked as not fresh.",
    )
    max_large_reads: int = Field(4, ge=1, description="Reads of an hour's totals at a time; further ones wait.")
