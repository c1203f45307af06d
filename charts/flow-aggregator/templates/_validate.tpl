{{/* What values.schema.json cannot say, or not in words that help. */}}
{{- define "flow-aggregator.validate" -}}
{{- $name := include "flow-aggregator.fullname" . -}}
{{- range (lookup "apps/v1" "Deployment" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "flow-aggregator") (eq (get $labels "app.kubernetes.io/component") "operator") (ne (get $labels "app.kubernetes.io/instance") $.Release.Name) -}}
{{- fail (printf "The namespace %s has a release of this chart already: %s. Its operator would act on this one's FlowAggregator, too: install into another namespace." $.Release.Namespace (get $labels "app.kubernetes.io/instance")) -}}
{{- end -}}
{{- end -}}
{{- with .Values.kafka -}}
{{- if and (not .enabled) (not .external.bootstrapServers) -}}
{{- fail "kafka.enabled is false: kafka.external.bootstrapServers must name your own Kafka." -}}
{{- end -}}
{{- if and .enabled (or .external.bootstrapServers .external.configSecretRef.name) -}}
{{- fail "kafka.external is set, but kafka.enabled is true: set it to false to use your own Kafka." -}}
{{- end -}}
{{- if .enabled -}}
{{- $was := 0 -}}
{{- range $node := until 3 -}}
{{- if lookup "v1" "PersistentVolumeClaim" $.Release.Namespace (printf "data-%s-kafka-%d" $name $node) -}}
{{- $was = add1 $node -}}
{{- end -}}
{{- end -}}
{{- if and $was (ne (int $was) (int .replicas)) -}}
{{- fail (printf "kafka.replicas cannot change from %d to %d: the brokers' quorum (controller.quorum.voters) is fixed when the cluster is made, and a majority of new, empty brokers would make a new log without what the old one holds. Use a second release, or a Kafka of your own (kafka.external); or delete the volumes to begin anew: kubectl --namespace %s delete pvc -l app.kubernetes.io/component=kafka,app.kubernetes.io/instance=%s" (int $was) (int .replicas) $.Release.Namespace $.Release.Name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.kafka.enabled -}}
{{- include "flow-aggregator.fits" (list "kafka.heapMiB" .Values.kafka.heapMiB "kafka.resources.limits.memory" .Values.kafka.resources) -}}
{{- end -}}
{{- if .Values.redis.enabled -}}
{{- include "flow-aggregator.fits" (list "redis.maxMemoryMiB" .Values.redis.maxMemoryMiB "redis.resources.limits.memory" .Values.redis.resources) -}}
{{- end -}}
{{- with .Values.redis -}}
{{- if and (not .enabled) (eq (empty .external.sentinels) (empty .external.url)) -}}
{{- fail "redis.enabled is false: give exactly one of redis.external.sentinels and redis.external.url." -}}
{{- end -}}
{{- if and .enabled (or .external.sentinels .external.url) -}}
{{- fail "redis.external is set, but redis.enabled is true: set it to false to use your own Redis." -}}
{{- end -}}
{{- end -}}
{{- with .Values.flowAggregator -}}
{{- $views := list -}}
{{- range .views -}}
{{- $views = append $views .name -}}
{{- end -}}
{{- if not (has .reader.view $views) -}}
{{- fail "flowAggregator.reader.view must be the name of one of flowAggregator.views." -}}
{{- end -}}
{{- if and $.Values.backup.enabled $.Values.backup.view (not (has $.Values.backup.view $views)) -}}
{{- fail "backup.view must be the name of one of flowAggregator.views." -}}
{{- end -}}
{{- if gt (int .topic.keyedPartitions) (int .topic.partitions) -}}
{{- fail "flowAggregator.topic.keyedPartitions must be at most flowAggregator.topic.partitions." -}}
{{- end -}}
{{- with .consumer.autoscaling -}}
{{- if and .max (lt (int .max) (int .min)) -}}
{{- fail (printf "flowAggregator.consumer.autoscaling.max is %d, but min is %d: max must be at least min." (int .max) (int .min)) -}}
{{- end -}}
{{- end -}}
{{- if and $.Values.kafka.enabled (gt (int .topic.replicationFactor) (int $.Values.kafka.replicas)) -}}
{{- fail (printf "flowAggregator.topic.replicationFactor is %d, but there are only %d brokers (kafka.replicas)." (int .topic.replicationFactor) (int $.Values.kafka.replicas)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.backup -}}
{{- if and .enabled (eq (empty .destination.existingClaim) (empty .destination.url)) -}}
{{- fail "backup.enabled is true: give exactly one of backup.destination.existingClaim and backup.destination.url." -}}
{{- end -}}
{{- if and .enabled .destination.endpoint (not (hasPrefix "s3://" .destination.url)) -}}
{{- fail "backup.destination.endpoint is for an s3:// URL in backup.destination.url alone." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled is true: httpRoute.parentRefs must name at least one Gateway." -}}
{{- end -}}
{{- if and .Values.tests.tokenSecretRef.name (not .Values.tokens.existingSecret) -}}
{{- fail "tests.tokenSecretRef is set, but tokens.existingSecret is not: without tokens the test needs none." -}}
{{- end -}}
{{- end -}}

{{/* Refuses memory for data that leaves less than a fifth of a limit in Mi or Gi. Takes (list name MiB limit's name resources). */}}
{{- define "flow-aggregator.fits" -}}
{{- $limit := dig "limits" "memory" "" (index . 3) | toString -}}
{{- $mib := 0 -}}
{{- if hasSuffix "Mi" $limit -}}
{{- $mib = trimSuffix "Mi" $limit | float64 -}}
{{- else if hasSuffix "Gi" $limit -}}
{{- $mib = mulf (trimSuffix "Gi" $limit | float64) 1024 -}}
{{- end -}}
{{- if and $mib (gt (float64 (index . 1)) (mulf $mib 0.8)) -}}
{{- fail (printf "%s is %d, but %s is %s: leave at least a fifth of it for all else, or the container is ended for its memory." (index . 0) (int64 (index . 1)) (index . 2) $limit) -}}
{{- end -}}
{{- end -}}
