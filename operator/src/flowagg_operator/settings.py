"""The operator's settings."""

from flowagg.settings import Settings
from pydantic import Field, ValidationInfo, field_validator


class OperatorSettings(Settings):
    """What the operator reads from the environment."""

    namespace: str = Field(
        "", validate_default=True, min_length=1, max_length=63, description="Namespace whose FlowAggregators are kept."
    )
    pod_name: str = Field(
        "", validate_default=True, min_length=1, max_length=253, description="Name of this pod: who holds the Lease."
    )
    election_lease: str = Field(
        "flow-aggregator-operator", min_length=1, max_length=253, description="Lease that the one acting replica holds."
    )
    lease_seconds: float = Field(
        15.0, ge=2, le=300, description="Time without a renewal after which another replica acts, in seconds."
    )
    renew_deadline_seconds: float = Field(
        10.0,
        ge=1,
        le=299,
        description="Time without a successful renewal after which this replica ends, in seconds; less than the "
        "lease's, so that two never act at a time.",
    )
    retry_seconds: float = Field(
        2.0, gt=0, le=60, description="Time between two renewals, or two looks at another's Lease, in seconds."
    )
    writer_image: str = Field(
        "", validate_default=True, min_length=1, description="Image of writers whose FlowAggregator names none."
    )
    reader_image: str = Field(
        "", validate_default=True, min_length=1, description="Image of readers whose FlowAggregator names none."
    )
    consumer_image: str = Field(
        "", validate_default=True, min_length=1, description="Image of consumers whose FlowAggregator names none."
    )
    cli_image: str = Field(
        "",
        description="Image of the flowagg command, for the Jobs that clone and remove views; empty: views are neither "
        "cloned nor removed, and status says so.",
    )
    view_job_seconds: int = Field(
        21_600,
        ge=60,
        le=604_800,
        description="Longest time that a Job which clones or removes a view may take, in seconds; past it, it fails.",
    )
    image_pull_policy: str = Field(
        "",
        pattern="^(|Always|IfNotPresent|Never)$",
        description="When those images are pulled; empty: as Kubernetes does.",
    )
    resync_seconds: float = Field(
        30.0, ge=1, le=3600, description="Time between two passes over a FlowAggregator without an event, in seconds."
    )
    settle_seconds: float = Field(
        0.2, ge=0, le=10, description="Time from an event to the pass, so that events that come together share one."
    )
    first_retry_seconds: float = Field(
        1.0, gt=0, le=60, description="Wait before a pass that failed is tried again, in seconds; doubled each time."
    )
    last_retry_seconds: float = Field(60.0, gt=0, le=3600, description="Longest such wait, in seconds.")
    workers: int = Field(
        4, ge=1, le=64, description="FlowAggregators whose Kafka, Redis and consumers are looked at at a time."
    )
    lag_seconds: float = Field(
        5.0, ge=0.5, le=15, description="Time between two looks at Kafka, Redis and the consumers, in seconds."
    )
    kafka_exporter_metrics: bool = Field(
        False,
        description="Whether the lag is served under the names of kafka_exporter (kafka_consumergroup_*) too, for "
        "dashboards that know them; where a kafka_exporter runs, its series and these would be counted twice.",
    )
    kubernetes_timeout_seconds: float = Field(
        10.0, gt=0, le=60, description="Longest wait for an answer of the API server, in seconds."
    )
    kafka_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Longest wait for an answer of Kafka, in seconds."
    )
    redis_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="Longest wait for an answer of Redis, in seconds."
    )
    sentinel_timeout_seconds: float = Field(
        0.5, gt=0, le=60, description="Longest wait for an answer of one sentinel, in seconds."
    )
    pod_timeout_seconds: float = Field(
        1.0, gt=0, le=30, description="Longest wait for an answer of a pod's /readyz or /metrics, in seconds."
    )
    events_a_minute: int = Field(
        20, ge=1, le=600, description="Kubernetes events a minute, as a bound; those past it are only logged."
    )
    stuck_seconds: float = Field(
        120.0, gt=0, le=3600, description="Time that a pass may take before /livez fails, in seconds."
    )

    @field_validator("renew_deadline_seconds")
    @classmethod
    def _check_deadline(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("lease_seconds", float("inf")):
            raise ValueError("must be less than FLOWAGG_LEASE_SECONDS")
        return value

    @field_validator("retry_seconds")
    @classmethod
    def _check_retry(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("renew_deadline_seconds", float("inf")):
            raise ValueError("must be less than FLOWAGG_RENEW_DEADLINE_SECONDS")
        return value
