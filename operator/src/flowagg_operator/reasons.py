"""The reasons that conditions have, and what to do about each. The reference is made from this."""

from collections.abc import Mapping
from typing import Final

from flowagg_operator.conditions import CONSUMING, KAFKA, READY, REDIS, SCALING, VIEW_READY

REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    READY: {
        "Running": "All that is wanted is there and ready.",
        "Reconciling": "What was changed is on its way, or the message says what is in its way: a Secret that is not "
        "there, a right that the operator lacks, an object of the same name that belongs to somebody else.",
        "WriterNotReady": "Fewer writers are ready than are wanted, or an EndpointSlice of somebody else leads their "
        "Service elsewhere. The message names the pod and the last lines of its log.",
        "ReaderNotReady": "The same of the readers.",
        "ConsumerNotReady": "Fewer consumers are ready than are wanted; see Consuming.",
        "KafkaUnreachable": "See KafkaReady.",
        "RedisUnreachable": "See RedisReady.",
        "InvalidSpec": "The cluster's CRD and this operator do not go together: upgrade the chart, which applies it.",
    },
    KAFKA: {
        "TopicReady": "The topic and its dead-letter topic are there, as spec says.",
        "Unreachable": "No broker answers. Look at the brokers and at spec.kafka.bootstrapServers.",
        "AuthenticationFailed": "Kafka refuses the user. Look at sasl.* in the Secret of spec.kafka.configSecretRef.",
        "AuthorizationFailed": "The user may not look or create. Grant it: describe, create and alter of both topics, "
        "describe of the group.",
        "InvalidProperties": "The file of properties holds a name or value that no client takes.",
        "TopicMissing": "The topic is not there and could not be created; the message says why.",
        "TopicMisconfigured": "The topic differs from spec or risks records: more partitions than spec says (they are "
        "never taken away), another replication factor, a setting that exactness rests on. Ready does not follow it.",
    },
    REDIS: {
        "MasterReady": "The master answers, and has room.",
        "Unreachable": "It does not answer. Look at it and at spec.redis.",
        "AuthenticationFailed": "Redis or a sentinel refuses the user or password. Look at the Secrets in spec.redis.",
        "NoMaster": "No sentinel knows a master that is up, or the address is a replica's.",
        "RedisFull": "used_memory has reached maxmemory: nothing is applied, nothing lost. Raise maxmemory, or "
        "keep fewer hours.",
        "RedisMisconfigured": "maxmemory-policy is not noeviction: Redis would drop totals. Ready does not follow it.",
        "InvalidSettings": "The certificates that spec.redis.tls names cannot be used.",
    },
    CONSUMING: {
        "Applying": "Records are applied.",
        "Paused": "spec.consumer.replicas is 0.",
        "Waiting": "Consumers run and wait, for the reason that the message gives.",
        "NoConsumer": "No consumer pod answers (yet).",
        "PartitionStopped": "A consumer has stopped partitions, since going on could make totals wrong: "
        "docs/guides/stopped-partitions.md.",
        "StalledPartition": "Records wait in a partition and none was applied for a minute. The message names its pod.",
    },
    VIEW_READY: {
        "Serving": "Readers read spec.reader.view, and every view of spec.views is kept.",
        "Building": "A view is not there yet; the message says what is waited for. Readers go on with the former one.",
        "CatchingUp": "Readers go on with the former view until the new one has applied as much in every partition. "
        "The message says how far it is.",
        "Incomplete": "The new view lacks records that the former one has: make it as a clone, or set the annotation "
        "flowaggregator.io/read-now to its name: docs/guides/views.md.",
        "OtherTopic": "The new view counts in another topic than the former one. Where that is wanted so, set the "
        "annotation flowaggregator.io/read-now to its name.",
        "DamagedView": "Redis holds something under a view's keys that FlowAggregator did not write; the message names "
        "it. Readers do not change over from or to that view by themselves: docs/guides/repair.md.",
        "CloneFailed": "The Job that makes a view from another, or that removes its former data, has failed. The "
        "message names it: look at its log, mend the cause and delete the Job, and it is tried again.",
        "RemovalFailed": "The same of the Job that removes a view which spec.views no longer names.",
        "NotApplied": "A view lacks consumers that are ready: what it holds is right, and falls behind. Ready does not "
        "follow it unless it is the first view.",
    },
    SCALING: {
        "Automatic": "The lag decides how many consumers there are; status.autoscaling says by which numbers.",
        "DryRun": "What would be done is reported, and not carried out (spec.consumer.autoscaling.dryRun).",
        "Disabled": "spec.consumer.autoscaling.enabled is false.",
        "Unreachable": "The API server did not answer; nothing is changed meanwhile.",
        "LagUnknown": "The group's offsets could not be looked up: nothing is changed until they can be.",
        "ManualOverride": "A number was set by hand; it holds for spec.consumer.autoscaling.manualHoldSeconds. A new "
        "value of the annotation flowaggregator.io/hold-replicas has it hold anew.",
        "Paused": "spec.consumer.replicas is 0: nothing is applied until it is set to 1 or more.",
        "AutoscalerConflict": "A HorizontalPodAutoscaler scales the same consumers: delete it, or set "
        "spec.consumer.autoscaling.enabled to false.",
        "PartitionsExhausted": "As many consumers as there are partitions cannot apply what arrives. The message says "
        "how many partitions would do: docs/runbooks/FlowAggregatorPartitionsExhausted.md.",
        "MaximumReached": "spec.consumer.autoscaling.max consumers cannot apply what arrives: raise it.",
        "ScalingIneffective": "The last consumers that were added applied no more: look at Redis: "
        "docs/runbooks/FlowAggregatorScalingIneffective.md.",
        "StalledPartition": "Most partitions with lag make no progress: see Consuming.",
        "WriteFailed": "The API server refused the operator's number; the message says why.",
        "Unsettled": "The group has not been stable for two minutes: see Consuming, and the consumers' logs.",
    },
}
"""Condition -> its reasons, the good one first; each condition is Unknown / NotLookedYet before the first look."""
