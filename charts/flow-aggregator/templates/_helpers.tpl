{{/* N: the name of everything here, and of the FlowAggregator. */}}
{{- define "flow-aggregator.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-flow-aggregator" .Release.Name) (contains "flow-aggregator" .Release.Name) -}}
{{- end -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "The name %q has more than 40 characters, which those of Services and pods would not leave room for: set fullnameOverride." $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* P: the name of the operator's objects. */}}
{{- define "flow-aggregator.operatorName" -}}
{{ include "flow-aggregator.fullname" . }}-operator
{{- end -}}

{{/* Labels of the chart's own objects. */}}
{{- define "flow-aggregator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: flow-aggregator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels that select the pods of a part of the chart. Takes (list $ "kafka"). */}}
{{- define "flow-aggregator.selector" -}}
app.kubernetes.io/name: flow-aggregator
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels that select the pods that the operator makes. Takes (list $ "writer"). */}}
{{- define "flow-aggregator.managedSelector" -}}
app.kubernetes.io/name: flow-aggregator
app.kubernetes.io/instance: {{ include "flow-aggregator.fullname" (index . 0) | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Image of one of the project's own services. Takes (list $ "writer" override). */}}
{{- define "flow-aggregator.image" -}}
{{- $ := index . 0 -}}
{{- with index . 2 -}}
{{ . }}
{{- else -}}
{{- with $.Values.image.registry }}{{ . }}/{{ end }}{{ $.Values.image.repository }}/{{ index . 1 }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What every container may: nothing. */}}
{{- define "flow-aggregator.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end -}}

{{/* The fields that every pod of the chart shares. Takes (list $ values component uid). */}}
{{- define "flow-aggregator.podFields" -}}
{{- $ := index . 0 -}}
{{- $values := index . 1 -}}
enableServiceLinks: false
{{- with $.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 3 }}
  runAsGroup: {{ index . 3 }}
  fsGroup: {{ index . 3 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with $values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "flow-aggregator.selector" (list $ (index . 2)) | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Addresses of the bundled brokers, for clients. */}}
{{- define "flow-aggregator.kafkaBootstrap" -}}
{{- $kafka := printf "%s-kafka" (include "flow-aggregator.fullname" .) -}}
{{- $namespace := .Release.Namespace -}}
{{- $found := list -}}
{{- range $node := until (int .Values.kafka.replicas) -}}
{{- $found = append $found (printf "%s-%d.%s.%s.svc:9092" $kafka $node $kafka $namespace) -}}
{{- end -}}
{{- join "," $found -}}
{{- end -}}

{{/* Name of the Secret with the bundled Redis's password. */}}
{{- define "flow-aggregator.redisAuth" -}}
{{- .Values.redis.auth.existingSecret | default (printf "%s-redis-auth" (include "flow-aggregator.fullname" .)) -}}
{{- end -}}

{{/* Names of the Secrets that the FlowAggregator speaks of, as a JSON list: the operator may read these alone. */}}
{{- define "flow-aggregator.secrets" -}}
{{- $found := list .Values.tokens.existingSecret -}}
{{- if not .Values.kafka.enabled -}}
{{- $found = append $found .Values.kafka.external.configSecretRef.name -}}
{{- end -}}
{{- if .Values.redis.enabled -}}
{{- $found = append $found (include "flow-aggregator.redisAuth" .) -}}
{{- else -}}
{{- with .Values.redis.external -}}
{{- $found = concat $found (list .authSecretRef.name .sentinelAuthSecretRef.name .tls.caSecretRef.name .tls.clientSecretRef.name) -}}
{{- end -}}
{{- end -}}
{{- without $found "" | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Largest body of a POST, in bytes: the writer's own limit unless the gateway has another. */}}
{{- define "flow-aggregator.maxBodyBytes" -}}
{{- with .Values.gateway.maxBodyBytes -}}
{{- int64 . -}}
{{- else -}}
{{- include "flow-aggregator.setting" (list .Values.flowAggregator.writer "FLOWAGG_MAX_BODY_BYTES" 8388608) | int64 -}}
{{- end -}}
{{- end -}}

{{/* Time that an upstream may be silent, in seconds: above the services' own time-outs. */}}
{{- define "flow-aggregator.readSeconds" -}}
{{- with .Values.gateway.timeouts.readSeconds -}}
{{- . -}}
{{- else -}}
{{- $post := include "flow-aggregator.setting" (list .Values.flowAggregator.writer "FLOWAGG_POST_TIMEOUT_SECONDS" 15) | float64 | ceil | int -}}
{{- $get := include "flow-aggregator.setting" (list .Values.flowAggregator.reader "FLOWAGG_GET_TIMEOUT_SECONDS" 15) | float64 | ceil | int -}}
{{- add 10 (max $post $get) -}}
{{- end -}}
{{- end -}}

{{/* A setting of a service: what its env says, else the default. Takes (list component name default). */}}
{{- define "flow-aggregator.setting" -}}
{{- $found := index . 2 -}}
{{- $name := index . 1 -}}
{{- range (index . 0).env -}}
{{- if eq .name $name -}}
{{- $found = .value -}}
{{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}
