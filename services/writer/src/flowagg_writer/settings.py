"""The writer's settings."""

from flowagg.idempotency import MAX_INDEX
from flowagg.settings import ElectionSettings, HttpSettings, KafkaSettings
from pydantic import Field


class WriterSettings(HttpSettings, KafkaSettings, ElectionSettings):
    """What the writer reads from the environment."""

    max_body_bytes: int = Field(
        8 * 2**20, ge=1024, description="Largest body of a POST as sent, in bytes; past it 413."
    )
    max_inflated_bytes: int = Field(
        64 * 2**20, ge=1024, description="Largest body of a POST once gzip is undone, in bytes; past it 413."
    )
    max_flows: int = Field(100_000, ge=1, le=MAX_INDEX, description="Most flows of a POST; past it 413.")
    max_in_flight_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="Bytes of bodies in hand, and of records on the way to Kafka, each; past it 503 with Retry-After.",
    )
    post_timeout_seconds: float = Field(
        15.0,
        ge=1,
        le=300,
        description="Longest time for a POST, from its first byte to its answer, in seconds; past it 503.",
    )
    keyed_partitions: int = Field(
        6,
        ge=1,
        description="Partitions that records with an Idempotency-Key are spread over: at most as many as the topic "
        "has, else such a POST is answered 503. It must never change while the dedupe window of a topic lasts: "
        "a repeat would be counted again.",
    )
    native: bool = Field(
        True,
        description="Whether plain bodies without an Idempotency-Key and by tokens for all "
        "vpc_ids, are read and handed to Kafka by compiled code; false: by Python, to the same records, with twice the "
        "CPU.",
    )
    known_keys: int = Field(
        100_000,
        ge=0,
        description="Idempotency-Keys that this writer remembers, the least recently used going first; a known key "
        "with another body is answered 422.",
    )
    linger_ms: int = Field(
        2,
        ge=0,
        le=1000,
        description="Time that records wait to share a batch to Kafka, in milliseconds.",
    )
    topic_refresh_seconds: float = Field(
        5.0,
        gt=0,
        le=300,
        description="Time between two looks at the topic (does it exist, which is its id), in seconds.",
    )
