"""The pods of writer, reader and consumer. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from flowagg_operator.spec import Component, Owner, SecretRef, Server, Spec

PORT: Final = 8080
PORT_NAME: Final = "http"
KAFKA_FILES: Final = "/etc/flowagg/kafka"
"""Where pods find the files of kafka.configSecretRef; its properties may name files beside them."""
HASH: Final = "flowaggregator.io/secrets"
"""Annotation of the pods with the digest of the Secrets that are read once, at the start: another rolls them."""

_FILES: Final = "/etc/flowagg"
_OF_CONNECTIONS: Final = ("FLOWAGG_KAFKA_", "FLOWAGG_REDIS_", "FLOWAGG_SENTINEL_", "FLOWAGG_LOG_")
"""Settings that all programs which reach Kafka and Redis have."""
_MARGIN_SECONDS: Final = 10
"""What a pod gets to end beyond the times that it is given itself."""
_DRAIN_SECONDS: Final = 5.0
"""With ActiveActive: how long requests still come after SIGTERM, until every node's proxy has heard of the end."""
_ELECTED_DRAIN_SECONDS: Final = 2.0
"""The same with ActivePassive, after the hand-over: while a component changes its mode, standbys are led to as well."""
_SHUTDOWN_SECONDS: Final = 20.0
_HANDOVER_SECONDS: Final = 10.0
"""With ActivePassive: the bound on the wait for the successor, which comes before draining."""
ELECTION: Final = "flowaggregator.io/election"
"""Annotation of the pods: which Lease they compete for."""


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator was installed with.

    images: component -> image, and that of `cli`. job_seconds: longest time of a Job that clones or removes a view.
    """

    images: dict[str, str]
    image_pull_policy: str = ""
    job_seconds: int = 21_600


def pod_template(
    owner: Owner,
    spec: Spec,
    component: str,
    platform: Platform,
    secrets_digest: str,
    slices: Sequence[str],
    view: str = "",
) -> dict[str, Any]:
    """The template of a component's pods.

    secrets_digest: of the Secrets that the component reads once. slices: the EndpointSlices that its active pod
    writes; none: there is no election. view: the one that they keep or read; empty: as the spec says.
    """
    part = part_of(spec, component)
    files = _files(spec, component)
    annotations = dict(part.pod_annotations)
    if secrets_digest:
        annotations[HASH] = secrets_digest
    if slices:
        annotations[ELECTION] = lease_name(owner, component)
    metadata: dict[str, Any] = {"labels": owner.labels(component)}
    if annotations:
        metadata["annotations"] = annotations
    pod: dict[str, Any] = {
        "serviceAccountName": account_name(owner, component),
        "automountServiceAccountToken": bool(slices),
        "enableServiceLinks": False,  # the variables of foreign Services would count as unknown settings
        "terminationGracePeriodSeconds": grace_seconds(part, elected=bool(slices)),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": _spread(owner, component, part),
        "containers": [
            {
                "name": component,
                "image": part.image or platform.images[component],
                "env": environment(owner, spec, component, slices, view),
                "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
                "resources": part.resources,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "startupProbe": _probe("/livez", period=1, failures=60),
                "livenessProbe": _probe("/livez", period=10, failures=6, timeout=5),
                "readinessProbe": _probe("/readyz", period=2, failures=2, timeout=3),
                # The last lines of the log: they name the setting that is wrong, and status shows them.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": name, "mountPath": path, "readOnly": True} for name, path, _ in files],
            }
        ],
        "volumes": [{"name": name, "secret": _volume(ref)} for name, _, ref in files],
    }
    container = pod["containers"][0]
    if policy := spec.image_pull_policy or platform.image_pull_policy:
        container["imagePullPolicy"] = policy
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image_pull_secrets]
    if part.node_selector:
        pod["nodeSelector"] = part.node_selector
    if part.tolerations:
        pod["tolerations"] = part.tolerations
    if part.affinity:
        pod["affinity"] = part.affinity
    return {"metadata": metadata, "spec": pod}


def environment(
    owner: Owner, spec: Spec, component: str, slices: Sequence[str], view: str = ""
) -> list[dict[str, Any]]:
    """The settings of a component as variables; those of the spec's env come last."""
    part = part_of(spec, component)
    own: dict[str, str] = {"FLOWAGG_PORT": str(PORT)}
    own |= _kafka(spec)
    if component == "writer":
        own["FLOWAGG_KEYED_PARTITIONS"] = str(spec.kafka.topic.keyed_partitions)
    else:
        own |= _redis(spec)
        own["FLOWAGG_VIEW"] = view or (spec.reader.view if component == "reader" else spec.view.name)
    if component == "consumer":
        own["FLOWAGG_DEAD_LETTER_TOPIC"] = spec.kafka.topic.dead_letters
        if (hours := spec.retention(own["FLOWAGG_VIEW"]).hours) is not None:
            own["FLOWAGG_RETENTION_HOURS"] = f"{hours:.10g}"
    elif (tokens := spec.access.tokens_secret_ref) is not None:
        own["FLOWAGG_TOKENS_FILE"] = f"{_FILES}/access/{tokens.key}"
    given = {variable.name: variable.value for variable in part.env}
    if isinstance(part, Server) and "FLOWAGG_DRAIN_SECONDS" not in given:
        own["FLOWAGG_DRAIN_SECONDS"] = f"{_ELECTED_DRAIN_SECONDS if slices else _DRAIN_SECONDS:g}"
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in own.items()]
    if slices:
        variables += _election(owner, spec, component, slices)
    return variables + [{"name": name, "value": value} for name, value in given.items()]


def job_environment(spec: Spec) -> list[dict[str, Any]]:
    """The settings of a Job of the command: where Kafka and Redis are, as the consumers have it."""
    own = {**_kafka(spec), **_redis(spec)}
    own |= {one.name: one.value for one in spec.consumer.env if one.name.startswith(_OF_CONNECTIONS)}
    return [{"name": name, "value": value} for name, value in own.items()]


def part_of(spec: Spec, component: str) -> Component:
    """The spec's part of a component."""
    return spec.consumer if component == "consumer" else spec.server(component)


def account_name(owner: Owner, component: str) -> str:
    """Name of a component's ServiceAccount; Deployment and PodDisruptionBudget have it too."""
    return f"{owner.name}-{component}"


def lease_name(owner: Owner, component: str) -> str:
    """Name of a component's Lease."""
    return f"{owner.name}-{component}"


def grace_seconds(part: Component, *, elected: bool) -> int:
    """What a pod gets to end by itself: hand-over or draining, the work in hand, and a margin; in seconds."""
    given = {variable.name: variable.value for variable in part.env}
    total = _seconds(given.get("FLOWAGG_SHUTDOWN_SECONDS"), _SHUTDOWN_SECONDS)
    if isinstance(part, Server):
        total += _seconds(given.get("FLOWAGG_DRAIN_SECONDS"), _ELECTED_DRAIN_SECONDS if elected else _DRAIN_SECONDS)
    if elected:
        total += _seconds(given.get("FLOWAGG_ELECTION_HANDOVER_SECONDS"), _HANDOVER_SECONDS)
    return round(total) + _MARGIN_SECONDS


def secrets_read_once(spec: Spec, component: str) -> list[SecretRef]:
    """The Secrets that a component reads at its start alone; the tokens are read again when they change."""
    return [ref for name, _, ref in _files(spec, component) if name != "access"]


def needed_keys(spec: Spec) -> list[tuple[str, str]]:
    """Every Secret that is named, with each key that must be in it."""
    redis = spec.redis
    refs = [
        spec.kafka.config_secret_ref,
        redis.auth_secret_ref,
        redis.sentinel_auth_secret_ref,
        redis.tls.ca_secret_ref,
        spec.access.tokens_secret_ref,
    ]
    needed = [(ref.name, ref.key) for ref in refs if ref is not None]
    if (client := redis.tls.client_secret_ref) is not None:
        needed += [(client.name, "tls.crt"), (client.name, "tls.key")]
    return needed


def _kafka(spec: Spec) -> dict[str, str]:
    own = {
        "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": spec.kafka.bootstrap_servers,
        "FLOWAGG_KAFKA_TOPIC": spec.kafka.topic.name,
    }
    if (ref := spec.kafka.config_secret_ref) is not None:
        own["FLOWAGG_KAFKA_PROPERTIES_FILE"] = f"{KAFKA_FILES}/{ref.key}"
    return own


def _redis(spec: Spec) -> dict[str, str]:
    redis, own = spec.redis, dict[str, str]()
    if redis.url:
        own["FLOWAGG_REDIS_URL"] = redis.url
    else:
        own["FLOWAGG_REDIS_SENTINELS"] = ",".join(redis.sentinels)
        own["FLOWAGG_REDIS_MASTER_NAME"] = redis.master_name
        if redis.tls.enabled:
            own["FLOWAGG_REDIS_TLS"] = "true"
        if redis.tls.sentinel:
            own["FLOWAGG_SENTINEL_TLS"] = "true"
    if not redis.tls.verify_hostname:
        own["FLOWAGG_REDIS_TLS_VERIFY_HOSTNAME"] = "false"
    if redis.username:
        own["FLOWAGG_REDIS_USERNAME"] = redis.username
    if (ref := redis.auth_secret_ref) is not None:
        own["FLOWAGG_REDIS_PASSWORD_FILE"] = f"{_FILES}/redis/{ref.key}"
    if redis.sentinel_username:
        own["FLOWAGG_SENTINEL_USERNAME"] = redis.sentinel_username
    if (ref := redis.sentinel_auth_secret_ref) is not None:
        own["FLOWAGG_SENTINEL_PASSWORD_FILE"] = f"{_FILES}/sentinel/{ref.key}"
    if (ref := redis.tls.ca_secret_ref) is not None:
        own["FLOWAGG_REDIS_CA_FILE"] = f"{_FILES}/redis-ca/{ref.key}"
    if redis.tls.client_secret_ref is not None:
        own["FLOWAGG_REDIS_CERTIFICATE_FILE"] = f"{_FILES}/redis-client/tls.crt"
        own["FLOWAGG_REDIS_KEY_FILE"] = f"{_FILES}/redis-client/tls.key"
    return own


def _election(owner: Owner, spec: Spec, component: str, slices: Sequence[str]) -> list[dict[str, Any]]:
    election = spec.election
    own = {
        "FLOWAGG_ELECTION_LEASE": lease_name(owner, component),
        "FLOWAGG_ELECTION_ENDPOINT_SLICES": ",".join(slices),
        "FLOWAGG_ELECTION_LEASE_SECONDS": str(election.lease_seconds),
        "FLOWAGG_ELECTION_RENEW_SECONDS": f"{election.renew_seconds:g}",
        "FLOWAGG_ELECTION_ATTEMPT_SECONDS": f"{election.attempt_seconds:g}",
    }
    fields = {
        "FLOWAGG_ELECTION_NAMESPACE": "metadata.namespace",
        "FLOWAGG_POD_NAME": "metadata.name",
        "FLOWAGG_POD_UID": "metadata.uid",
        "FLOWAGG_POD_IPS": "status.podIPs",
        "FLOWAGG_NODE_NAME": "spec.nodeName",
    }
    # apiVersion is the API server's default: said here so that what is there can be compared.
    return [{"name": name, "value": value} for name, value in own.items()] + [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}}
        for name, field in fields.items()
    ]


def _files(spec: Spec, component: str) -> list[tuple[str, str, SecretRef]]:
    """The Secrets of a component: name of the volume, where it is mounted, and what of it (no key: all of it)."""
    found: list[tuple[str, str, SecretRef | None]] = []
    if (kafka := spec.kafka.config_secret_ref) is not None:
        found.append(("kafka", KAFKA_FILES, SecretRef(name=kafka.name)))
    if component != "writer":
        redis = spec.redis
        found += [
            ("redis", f"{_FILES}/redis", redis.auth_secret_ref),
            ("sentinel", f"{_FILES}/sentinel", redis.sentinel_auth_secret_ref),
            ("redis-ca", f"{_FILES}/redis-ca", redis.tls.ca_secret_ref),
            ("redis-client", f"{_FILES}/redis-client", redis.tls.client_secret_ref),
        ]
    if component != "consumer":
        found.append(("access", f"{_FILES}/access", spec.access.tokens_secret_ref))
    return [(name, path, ref) for name, path, ref in found if ref is not None]


def _volume(ref: SecretRef) -> dict[str, Any]:
    volume: dict[str, Any] = {"secretName": ref.name}
    if ref.key:
        volume["items"] = [{"key": ref.key, "path": ref.key}]
    return volume


def _spread(owner: Owner, component: str, part: Component) -> list[dict[str, Any]]:
    """Over nodes and zones where that is possible, unless the spec says otherwise."""
    selector = {"matchLabels": owner.selector(component)}
    if part.topology_spread_constraints:
        return [{"labelSelector": selector, **constraint} for constraint in part.topology_spread_constraints]
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _probe(path: str, *, period: int, failures: int, timeout: int = 2) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _seconds(text: str | None, default: float) -> float:
    """A time of the spec's env; one that is no number is refused by the service itself."""
    try:
        return default if text is None else max(0.0, float(text))
    except ValueError:
        return default


def digest_of(data: Mapping[str, Mapping[str, bytes]], refs: Sequence[SecretRef]) -> str:
    """A digest of what Secrets hold. data: name of a Secret -> its keys and what they hold."""
    chosen = []
    for ref in refs:
        held = data.get(ref.name, {})
        kept = {ref.key: held.get(ref.key, b"")} if ref.key else dict(held)
        chosen.append((ref.name, {key: hashlib.sha256(content).hexdigest() for key, content in kept.items()}))
    return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()[:16]
