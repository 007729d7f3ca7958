{{/*
An autoscaler on the processor and, where KEDA is installed and `lag` is set, on the events that wait in Kafka. KEDA calls Kafka from its own
namespace, where the bundled one has no name and no policy that lets it in. (dict "root" $ "component" NAME "it" VALUES "groups" MAP of consumer group to topics).
*/}}
{{- define "vesta.autoscaler" }}
{{- $keda := and (.root.Capabilities.APIVersions.Has "keda.sh/v1alpha1") .it.autoscaling.lag .groups (not .root.Values.kafka.bundled) }}
{{- if $keda }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .component }}
  labels:
    {{- include "vesta.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {name: {{ .component }}}
  minReplicaCount: {{ .it.autoscaling.minReplicas }}
  maxReplicaCount: {{ .it.autoscaling.maxReplicas }}
  triggers:
    - type: cpu
      metricType: Utilization
      metadata: {value: {{ .it.autoscaling.cpuPercent | toString | quote }}}
    {{- $root := .root }}
    {{- $lag := .it.autoscaling.lag }}
    {{- range $group, $topics := .groups }}
    {{- range $topics }}
    - type: kafka
      metadata:
        bootstrapServers: {{ include "vesta.kafkaBootstrap" $root | quote }}
        consumerGroup: {{ $group }}
        topic: {{ . }}
        lagThreshold: {{ $lag | toString | quote }}
        offsetResetPolicy: earliest  # as services read a topic; with `latest`, a group that has read nothing has no lag
      authenticationRef: {name: kafka}
    {{- end }}
    {{- end }}
{{- else }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .component }}
  labels:
    {{- include "vesta.labels" . | nindent 4 }}
  annotations:
    validations.keda.sh/hpa-ownership: "false"  # helm creates a ScaledObject before it deletes this, which KEDA would reject
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .component }}}
  minReplicas: {{ .it.autoscaling.minReplicas }}
  maxReplicas: {{ .it.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .it.autoscaling.cpuPercent }}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 300}
{{- end }}
{{- end }}
