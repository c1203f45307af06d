"""The settings of `flowagg dead-letters`."""

from flowagg.settings import KafkaSettings, RedisSettings
from pydantic import Field


class DeadLetterSettings(KafkaSettings, RedisSettings):
    """What the command reads; those of Redis too, so that one environment serves every command."""

    dead_letter_topic: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="Topic for records that are no flows; by default the topic's name with .dead-letters.",
    )
    replay_batch: int = Field(500, ge=1, le=100_000, description="Most letters that are replayed in one transaction.")
    replay_transaction_seconds: float = Field(
        10.0,
        ge=1,
        le=900,
        description="Time after which Kafka aborts the transaction of a replay that has died, in seconds; until then "
        "what is behind it in its partitions waits.",
    )
    dead_letter_read_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Longest time without a record while letters or the journal are read, in seconds.",
    )

    @property
    def letters(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letter_topic or f"{self.kafka_topic}.dead-letters"

    @property
    def journal(self) -> str:
        """The name of the journal: of the flows topic, so that views with dead-letter topics of their own share it."""
        return f"{self.kafka_topic}.replayed"
