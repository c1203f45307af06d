"""Looks at the Kafka, Redis and pods of one FlowAggregator, again and again, and keeps what it found."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowagg.kubernetes import Api, KubernetesError, path
from flowagg.settings import KafkaSettings, RedisSettings
from pydantic import ValidationError

from flowagg_operator import health_metrics, kafka_look, metrics, redis_look
from flowagg_operator.conditions import NOT_LOOKED, Verdict
from flowagg_operator.consuming import Consumers, judge
from flowagg_operator.events import Recorder
from flowagg_operator.kafka_look import KafkaClient, KafkaLook
from flowagg_operator.lag import History, Snapshot
from flowagg_operator.pods import account_name, digest_of
from flowagg_operator.pods_look import PodClient, PodsLook
from flowagg_operator.redis_look import RedisLook
from flowagg_operator.scaler import Scaler
from flowagg_operator.scaling_terms import Observation as Scene
from flowagg_operator.secret_files import SecretData, SecretFiles
from flowagg_operator.settings import OperatorSettings
from flowagg_operator.spec import INSTANCE, Owner, SecretRef, Spec
from flowagg_operator.speed import Speeds
from flowagg_operator.troubles import Trouble
from flowagg_operator.views import Look, found_in, gate

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: a FlowAggregator with its Secrets, as the last pass read them.

    views: names, the one that readers read first: what it had is compared with what another one has later.
    """

    owner: Owner
    spec: Spec
    secrets: SecretData
    views: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What the last look found. partitions, lag, lag_seconds: None: not known."""

    kafka: Verdict = NOT_LOOKED
    redis: Verdict = NOT_LOOKED
    consuming: Verdict = NOT_LOOKED
    scaling: Verdict = NOT_LOOKED
    partitions: int | None = None
    lag: int | None = None
    lag_seconds: float | None = None
    troubles: Mapping[str, tuple[Trouble, ...]] = field(default_factory=dict)
    views: Look = field(default_factory=Look)


class Observer:
    """The looks at one FlowAggregator; `look` is called by one thread at a time."""

    def __init__(
        self,
        api: Api,
        settings: OperatorSettings,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._settings = settings
        self._recorder = recorder
        self._clock = clock
        self._files = SecretFiles()
        self._pods = PodClient(settings.pod_timeout_seconds)
        self._client: KafkaClient | Verdict = NOT_LOOKED
        self._client_for: tuple[str, str] | None = None
        self._scaler = Scaler(api, recorder)
        self._speeds = Speeds()
        self._history = History()
        self._history_of: tuple[str, str, float] = ("", "", 0.0)
        self._shown: set[tuple[str, str, str, str]] = set()
        self._labels: tuple[str, str, str] | None = None
        self._name = ""
        self.last = Observation()
        self._lock = threading.Lock()
        self._closed = False

    def look(self, target: Target) -> Observation:
        """Look once; what was found is in `last` too."""
        with self._lock:
            return self.last if self._closed else self._look(target)

    def _look(self, target: Target) -> Observation:
        began = time.perf_counter()
        kafka = self._look_at_kafka(target)
        found = self._look_at_redis(target)
        redis = found.verdict
        pods = self._look_at_pods(target)
        for sentence in kafka.done:
            self._recorder.say(target.owner, "Normal", "TopicChanged", sentence)
        rate_seconds = float(target.spec.consumer.autoscaling.rate_seconds)
        of = (target.spec.kafka.topic.name, target.spec.view.group, rate_seconds)
        if of != self._history_of:
            self._history, self._history_of = History(rate_seconds), of
        if kafka.snapshot is not None:
            self._history = self._history.after(kafka.snapshot)
        known = kafka.snapshot is not None
        seconds = self._history.lag_seconds if known else None
        replicas = target.spec.consumer.replicas
        stalled = self._history.stalled() if known else {}
        self.last = Observation(
            kafka.verdict,
            redis,
            judge(pods.consumers, stalled, replicas, account_name(target.owner, "consumer")),
            self._scale(target, kafka, pods.consumers),
            kafka.partitions,
            kafka.snapshot.total if kafka.snapshot is not None else None,
            None if seconds is None else round(seconds, 1),
            {component: tuple(said) for component, said in pods.troubles.items()},
            views_of(target, kafka.snapshot, found),
        )
        self._publish(target, kafka.snapshot, pods.consumers)
        self._publish_views(target.owner.name, self.last.views)
        health_metrics.show(target.owner.name, kafka.health, found.health)
        metrics.LOOK_SECONDS.observe(time.perf_counter() - began)
        for name, verdict in (("kafka", kafka.verdict), ("redis", redis)):
            if not verdict.good:
                metrics.LOOKS_FAILED.labels(name).inc()
        return self.last

    def close(self) -> None:
        """Forget everything, with the metrics of the group; after a look that is still under way."""
        threading.Thread(target=self._close, name="observer-end", daemon=True).start()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            self._forget()

    def _forget(self) -> None:
        self._pods.close()
        self._files.close()
        self._scaler.close()
        self._drop_client()
        self._withdraw()
        metrics.VIEW_LAG.remove_by_labels({"name": self._name})
        health_metrics.show(self._name, None, None)

    def _look_at_kafka(self, target: Target) -> KafkaLook:
        spec = target.spec
        ref = spec.kafka.config_secret_ref
        whole = [SecretRef(name=ref.name)] if ref is not None else []
        wanted = (spec.kafka.bootstrap_servers, digest_of(target.secrets, whole))
        if wanted != self._client_for or isinstance(self._client, Verdict):
            self._client_for = wanted
            self._drop_client()
            self._client = kafka_look.connect(lambda: self._kafka_settings(target))
        if isinstance(self._client, Verdict):
            return KafkaLook(self._client, trouble=self._client.message)
        return self._client.look(spec.kafka.topic, spec.view.group, self._clock)

    def _drop_client(self) -> None:
        if isinstance(self._client, KafkaClient):
            self._client.close()
        self._client = NOT_LOOKED

    def _kafka_settings(self, target: Target) -> KafkaSettings:
        kafka = target.spec.kafka
        return KafkaSettings(
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            kafka_topic=kafka.topic.name,
            kafka_timeout_seconds=self._settings.kafka_timeout_seconds,
            kafka_properties_file=(
                self._files.kafka(target.secrets, kafka.config_secret_ref) if kafka.config_secret_ref else None
            ),
        )

    def _look_at_redis(self, target: Target) -> RedisLook:
        try:
            return redis_look.look(self._redis_settings(target), target.views)
        except UnicodeDecodeError:
            text = "spec.redis: a password in one of its Secrets is no UTF-8 text"
            return RedisLook(Verdict("False", "InvalidSettings", text))
        except ValidationError as error:
            said = "; ".join(str(e["msg"]) for e in error.errors(include_input=False))
            return RedisLook(Verdict("False", "InvalidSettings", f"spec.redis cannot be used: {said}"))

    def _redis_settings(self, target: Target) -> RedisSettings:
        redis, secrets = target.spec.redis, target.secrets
        tls = redis.tls

        def file(ref: SecretRef | None, key: str = "") -> Path | None:
            return self._files.file(secrets, ref.name, key or ref.key) if ref else None

        def text(ref: SecretRef | None) -> str:
            return secrets[ref.name][ref.key].decode("utf-8").rstrip("\r\n") if ref else ""

        behind = bool(redis.sentinels)
        return RedisSettings(
            redis_url=redis.url or "redis://unused",
            redis_sentinels=",".join(redis.sentinels),
            redis_master_name=redis.master_name,
            sentinel_username=redis.sentinel_username or None,
            sentinel_password=text(redis.sentinel_auth_secret_ref),
            sentinel_timeout_seconds=self._settings.sentinel_timeout_seconds,
            redis_username=redis.username or None,
            redis_password=text(redis.auth_secret_ref),
            redis_timeout_seconds=self._settings.redis_timeout_seconds,
            redis_tls=tls.enabled if behind else False,
            sentinel_tls=tls.sentinel if behind else False,
            redis_ca_file=file(tls.ca_secret_ref),
            redis_certificate_file=file(tls.client_secret_ref, "tls.crt"),
            redis_key_file=file(tls.client_secret_ref, "tls.key"),
            redis_tls_verify_hostname=tls.verify_hostname,
        )

    def _look_at_pods(self, target: Target) -> PodsLook:
        try:
            pods = self._api.list(
                path("v1", "pods", target.owner.namespace), {"labelSelector": f"{INSTANCE}={target.owner.name}"}
            )
        except KubernetesError as error:
            _log.warning("the pods could not be read", extra={"reason": str(error)})
            return PodsLook({}, Consumers())
        return self._pods.look(pods)

    def _scale(self, target: Target, kafka: KafkaLook, consumers: Consumers) -> Verdict:
        now = self._clock()
        self._speeds = self._speeds.after(now, consumers.worked)
        state, members, owners = group_of(kafka.snapshot, consumers)
        scene = Scene(
            at=now,
            history=self._history if kafka.snapshot is not None else None,
            trouble=kafka.trouble,
            group=state,
            members=members,
            owners=owners,
            unhindered_rate=self._speeds.rate,
        )
        return self._scaler.step(target.owner, target.spec.consumer.autoscaling, scene)

    def _publish(self, target: Target, snapshot: Snapshot | None, consumers: Consumers) -> None:
        """Bring the metrics up to the last look; what is not known is not shown."""
        name, topic, group = target.owner.name, target.spec.kafka.topic.name, target.spec.view.group
        if snapshot is None or self._labels != (name, group, topic):
            self._withdraw()
        if snapshot is None:
            return
        self._labels = (name, group, topic)
        exported = self._settings.kafka_exporter_metrics
        for partition, lag in snapshot.lags.items():
            labels = (name, group, topic, str(partition))
            offset = snapshot.committed.get(partition, -1)
            self._shown.add(labels)
            metrics.LAG.labels(name, str(partition)).set(lag)
            metrics.COMMITTED_OFFSET.labels(name, str(partition)).set(offset)
            if exported:
                metrics.GROUP_LAG.labels(*labels).set(lag)
                metrics.GROUP_OFFSET.labels(*labels).set(offset)
        members = group_of(snapshot, consumers)[1] or 0
        metrics.LAG_SUM.labels(name).set(snapshot.total)
        metrics.MEMBERS.labels(name).set(members)
        if exported:
            metrics.GROUP_LAG_SUM.labels(name, group, topic).set(snapshot.total)
            metrics.GROUP_MEMBERS.labels(name, group).set(members)
        if (rate := self._history.arrival_rate) is not None:
            metrics.ARRIVAL_RATE.labels(name).set(rate)
        if (seconds := self._history.lag_seconds) is None:
            metrics.LAG_SECONDS.remove(name)
            metrics.GROUP_LAG_SECONDS.remove(name, group)
            return
        metrics.LAG_SECONDS.labels(name).set(seconds)
        if exported:
            metrics.GROUP_LAG_SECONDS.labels(name, group).set(seconds)

    def _publish_views(self, name: str, look: Look) -> None:
        metrics.VIEW_LAG.remove_by_labels({"name": name})
        for view, found in (look.found or {}).items():
            if found.lag is not None and found.partitions:
                metrics.VIEW_LAG.labels(name, view).set(found.lag)
        self._name = name

    def _withdraw(self) -> None:
        for name, group, topic, partition in self._shown:
            metrics.LAG.remove(name, partition)
            metrics.COMMITTED_OFFSET.remove(name, partition)
            metrics.GROUP_LAG.remove(name, group, topic, partition)
            metrics.GROUP_OFFSET.remove(name, group, topic, partition)
        self._shown.clear()
        if self._labels is not None:
            name, group, topic = self._labels
            metrics.LAG_SUM.remove(name)
            metrics.ARRIVAL_RATE.remove(name)
            metrics.LAG_SECONDS.remove(name)
            metrics.MEMBERS.remove(name)
            metrics.GROUP_LAG_SUM.remove(name, group, topic)
            metrics.GROUP_LAG_SECONDS.remove(name, group)
            metrics.GROUP_MEMBERS.remove(name, group)
            self._labels = None


def views_of(target: Target, snapshot: Snapshot | None, redis: RedisLook) -> Look:
    """What a look at Redis, after one at Kafka, says of the views."""
    whole = None if snapshot is None else not any(snapshot.low.values())
    if redis.views is None:
        return Look(whole_log=whole)
    ends = None if snapshot is None else snapshot.high
    found = {name: found_in(one.metas, one.begun, ends, one.damaged) for name, one in redis.views.items()}
    read, wanted = target.views[0] if target.views else "", target.spec.reader.view
    before, after = redis.views.get(read), redis.views.get(wanted)
    if read == wanted or before is None or after is None or before.damaged or after.damaged:
        return Look(found, whole)
    return Look(found, whole, gate(read, wanted, before.metas, after.metas))


def group_of(snapshot: Snapshot | None, consumers: Consumers) -> tuple[str, int | None, Mapping[int, str] | None]:
    """The group's state, how many members it has, and who owns what; empty and None where that is not known.

    A broker that does not tell is made up for by the consumers themselves: with every partition owned, all is well.
    """
    if snapshot is None:
        return "", None, None
    if snapshot.members is not None:
        owners = {partition: name for name, owned in snapshot.members.items() for partition in owned}
        return snapshot.state, len(snapshot.members), owners
    if consumers.silent or not consumers.answered:
        return "Unknown", None, None
    whole = snapshot.high.keys() <= consumers.owned.keys()
    return "Stable" if whole else "Unknown", len(set(consumers.owned.values())), consumers.owned
