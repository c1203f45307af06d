"""The spec of a FlowAggregator, as the API server hands it over: validated and with its defaults (crd.yaml). Pure."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Mode = Literal["ActivePassive", "ActiveActive"]
"""Whether one replica serves while the others stand by, or all of them serve."""
Source = Literal["Auto", "Log", "Clone"]
"""What a new view is made of: the log, another view, or the log where it is whole and else another view."""
DeletionPolicy = Literal["Retain", "Delete"]
"""What becomes of a view's data once the spec no longer names it."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the spec; field names are those of the CRD in snake case."""


class SecretRef(_Part, frozen=True, kw_only=True):
    """A key of a Secret; where key is empty, the Secret as a whole."""

    name: str
    key: str = ""


class Topic(_Part, frozen=True, kw_only=True):
    """The topic that holds the log of flows."""

    name: str = "flows"
    partitions: int = 6
    replication_factor: int = 1
    keyed_partitions: int = 6
    config: dict[str, str] = {}

    @property
    def dead_letters(self) -> str:
        """Name of the topic for records that are no flows: the consumers' own default."""
        return f"{self.name}.dead-letters"


class Kafka(_Part, frozen=True, kw_only=True):
    """The Kafka cluster."""

    bootstrap_servers: str
    topic: Topic = Topic()
    config_secret_ref: SecretRef | None = None


class Tls(_Part, frozen=True, kw_only=True):
    """TLS with Redis and the sentinels."""

    enabled: bool = False
    sentinel: bool = False
    verify_hostname: bool = True
    ca_secret_ref: SecretRef | None = None
    client_secret_ref: SecretRef | None = None


class Redis(_Part, frozen=True, kw_only=True):
    """Redis: behind sentinels, or at one address."""

    sentinels: list[str] = []
    master_name: str = "main"
    url: str = ""
    username: str = ""
    auth_secret_ref: SecretRef | None = None
    sentinel_username: str = ""
    sentinel_auth_secret_ref: SecretRef | None = None
    tls: Tls = Tls()


class Variable(_Part, frozen=True, kw_only=True):
    """A further setting of a component."""

    name: str
    value: str


class Component(_Part, frozen=True, kw_only=True):
    """What writer, reader and consumer have in common. Manifest parts are kept as they are."""

    replicas: int
    image: str = ""
    resources: dict[str, Any] = {}
    env: list[Variable] = []
    pod_annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    topology_spread_constraints: list[dict[str, Any]] = []


class Server(Component, frozen=True, kw_only=True):
    """A component that clients reach: writer or reader."""

    replicas: int = 2
    mode: Mode = "ActivePassive"
    view: str = "default"


class Autoscaling(_Part, frozen=True, kw_only=True):
    """How the operator sets the number of consumers. Utilizations are parts of the consumers' capacity."""

    enabled: bool = True
    min: int = 1
    max: int | None = None
    dry_run: bool = False
    target_utilization: float = 0.6
    scale_up_utilization: float = 0.95
    catch_up_seconds: int = 120
    lag_seconds: int = 30
    rate_seconds: int = 60
    scale_up_interval_seconds: int = 30
    settle_seconds: int = 60
    scale_down_window_seconds: int = 1800
    stalled_seconds: int = 60
    ineffective_hold_seconds: int = 900
    manual_hold_seconds: int = 900


class Consumer(Component, frozen=True, kw_only=True):
    """The consumers."""

    replicas: int = 1
    autoscaling: Autoscaling = Autoscaling()


class Election(_Part, frozen=True, kw_only=True):
    """Times of the election of the active replica, in seconds."""

    lease_seconds: int = 3
    renew_seconds: float = 1
    attempt_seconds: float = 0.6


class Access(_Part, frozen=True, kw_only=True):
    """Who may write and read."""

    tokens_secret_ref: SecretRef | None = None


class Retention(_Part, frozen=True, kw_only=True):
    """How long a view keeps its hours."""

    hours: float | None = None


class View(_Part, frozen=True, kw_only=True):
    """A view that is kept."""

    name: str
    retention: Retention = Retention()
    source: Source = "Auto"
    clone_from: str = ""
    deletion_policy: DeletionPolicy = "Retain"
    replicas: int | None = None

    @property
    def group(self) -> str:
        """The consumer group that keeps it."""
        return f"flowagg-{self.name}"


class Named(_Part, frozen=True, kw_only=True):
    """A reference by name alone."""

    name: str


class Spec(_Part, frozen=True, kw_only=True):
    """spec of a FlowAggregator."""

    kafka: Kafka
    redis: Redis
    writer: Server = Server()
    reader: Server = Server()
    consumer: Consumer = Consumer()
    election: Election = Election()
    access: Access = Access()
    image_pull_secrets: list[Named] = []
    image_pull_policy: str = ""
    views: list[View] = msgspec.field(default_factory=lambda: [View(name="default")])

    @property
    def view(self) -> View:
        """The first view: its consumers are scaled."""
        return self.views[0]

    def retention(self, view: str) -> Retention:
        """How long a view keeps its hours."""
        return next((one.retention for one in self.views if one.name == view), Retention())

    def server(self, component: str) -> Server:
        """The writer's or the reader's part."""
        return self.writer if component == "writer" else self.reader


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The FlowAggregator that everything belongs to."""

    name: str
    namespace: str
    uid: str

    def selector(self, component: str) -> dict[str, str]:
        """Labels by which the pods of a component are chosen; they never change."""
        return {
            "app.kubernetes.io/name": "flow-aggregator",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": component,
        }

    def labels(self, component: str) -> dict[str, str]:
        """Labels of every object of a component."""
        return self.selector(component) | {MANAGED_BY: MANAGER}

    def reference(self) -> dict[str, Any]:
        """The owner reference: the object goes when the FlowAggregator goes."""
        return {"apiVersion": API_VERSION, "kind": KIND, "name": self.name, "uid": self.uid, "controller": True}

    def metadata(self, name: str, component: str) -> dict[str, Any]:
        """Metadata of an object of a component."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(component),
            "ownerReferences": [self.reference()],
        }


GROUP = "flowaggregator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FlowAggregator"
PLURAL = "flowaggregators"
MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
MANAGER = "flow-aggregator-operator"
"""The label's value, and the field manager of server-side apply."""
COMPONENTS = ("writer", "reader", "consumer")
SERVERS = ("writer", "reader")


def read_spec(spec: Mapping[str, Any]) -> Spec:
    """The spec in a FlowAggregator. Raises msgspec.ValidationError, with the place of the fault, for one that an
    older or newer CRD has let through."""
    return msgspec.convert(dict(spec), Spec)


def owner_of(resource: Mapping[str, Any]) -> Owner:
    """The owner that a FlowAggregator is."""
    metadata = resource["metadata"]
    return Owner(name=metadata["name"], namespace=metadata["namespace"], uid=metadata["uid"])
