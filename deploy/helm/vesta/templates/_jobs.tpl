{{/* Settings of the training service that trains in Jobs. */}}
{{- define "vesta.jobSettings" -}}
{{- $j := .Values.training.jobs }}
{{- $s3 := .Values.s3 }}
{{- $secret := include "vesta.secretName" . }}
{{- $trainer := dict "name" "trainer" "resources" $j.resources }}
{{- $spec := dict "nodeSelector" $j.nodeSelector "tolerations" $j.tolerations }}
{{- if not $s3.bundled }}
{{- $secret = $s3.external.existingSecret }}
{{- if or (ne $s3.external.accessKeyKey "s3-access-key") (ne $s3.external.secretKeyKey "s3-secret-key") }}
{{- fail "s3.external.accessKeyKey and s3.external.secretKeyKey: training Jobs read the keys s3-access-key and s3-secret-key; name them so in the Secret" }}
{{- end }}
{{- if $s3.external.caSecret }}
{{- $_ := set $spec "volumes" (list (dict "name" "s3-ca" "secret" (dict "secretName" $s3.external.caSecret))) }}
{{- $_ := set $trainer "volumeMounts" (list (dict "name" "s3-ca" "mountPath" "/etc/vesta/ca" "readOnly" true)) }}
{{- $_ := set $trainer "env" (list (dict "name" "VESTA_TRAINER_S3_CA_FILE" "value" (print "/etc/vesta/ca/" $s3.external.caKey))) }}
{{- end }}
{{- end }}
{{- $pullSecrets := list }}
{{- range .Values.image.pullSecrets }}{{ $pullSecrets = append $pullSecrets (dict "name" .) }}{{ end }}
{{- if $pullSecrets }}{{ $_ := set $spec "imagePullSecrets" $pullSecrets }}{{ end }}
{{- $_ := set $spec "containers" (list $trainer) }}
{{- $labels := dict "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/part-of" "vesta" "app.kubernetes.io/component" "trainer" }}
{{- $labels = merge $labels .Values.commonLabels }}
{{- $template := mergeOverwrite (dict "metadata" (dict "labels" $labels) "spec" $spec) $j.podTemplate }}
VESTA_TRAINING_EXECUTOR: kubernetes
VESTA_TRAINING_JOBS_IMAGE: {{ $j.image | default (include "vesta.image" (dict "root" . "name" "trainer")) | quote }}
VESTA_TRAINING_JOBS_NAMESPACE: {{ .Release.Namespace | quote }}
VESTA_TRAINING_JOBS_OWNER: {{ .Release.Name | quote }}
VESTA_TRAINING_JOBS_SECRET: {{ $secret | quote }}
VESTA_TRAINING_JOBS_SERVICE: trainers
VESTA_TRAINING_JOBS_QUEUE: {{ $j.queue | quote }}
VESTA_TRAINING_JOBS_GPU_RESOURCE: {{ $j.gpuResource | quote }}
VESTA_TRAINING_JOBS_GPUS: {{ $j.gpus | toString | quote }}
VESTA_TRAINING_JOBS_NODES: {{ $j.nodes | toString | quote }}
VESTA_TRAINING_JOBS_SHM_MIB: {{ $j.sharedMemoryMib | toString | quote }}
VESTA_TRAINING_JOBS_TTL_SECONDS: {{ $j.ttlSeconds | int | toString | quote }}
VESTA_TRAINING_JOBS_FOLLOWED_MAX: {{ $j.followedMax | toString | quote }}
VESTA_TRAINING_DEADLINE_SECONDS: {{ $j.deadlineSeconds | int | toString | quote }}
VESTA_TRAINING_JOBS_POD_TEMPLATE: {{ $template | toJson | quote }}
{{- end }}
