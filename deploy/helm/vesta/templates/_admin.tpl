{{/* One step of `vesta-admin` as a container: (dict "root" $ "name" NAME "args" LIST). */}}
{{- define "vesta.adminContainer" -}}
- name: {{ .name }}
  image: {{ include "vesta.image" (dict "root" .root "name" "admin") }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ toJson .args }}
  securityContext:
    {{- include "vesta.containerSecurity" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  env:
    {{- $settings := include "vesta.engineSettings" (dict "root" .root "prefix" "VESTA_ADMIN_" "engines" (list "postgres" "s3" "kafka")) | fromYaml }}
    {{- range $key, $value := $settings }}
    - {name: {{ $key }}, value: {{ $value | toString | quote }}}
    {{- end }}
    - {name: VESTA_ADMIN_LOG_FORMAT, value: {{ .root.Values.log.format }}}
  resources:
    {{- toYaml .root.Values.admin.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: secrets, mountPath: {{ include "vesta.secretsPath" . }}, readOnly: true}
{{- end }}

{{/* Its volumes. */}}
{{- define "vesta.adminVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- $volume := include "vesta.secretVolume" (dict "root" . "engines" (list "postgres" "s3" "kafka")) | trim }}
{{- if $volume }}
{{ $volume }}
{{- else }}
- name: secrets
  emptyDir: {sizeLimit: 1Mi}
{{- end }}
{{- end }}

{{/*
"yes" where every engine is there before the release is: external ones, and bundled ones that answer already. Then setup and migrations run
in a hook before the new version. Otherwise, as on the first installation, they are an ordinary Job beside the engines it waits for.
*/}}
{{- define "vesta.enginesAreThere" -}}
{{- $there := true }}
{{- $namespace := .Release.Namespace }}
{{- range $name, $bundled := dict "postgres" .Values.postgres.bundled "objects" .Values.s3.bundled "kafka" .Values.kafka.bundled }}
{{- if $bundled }}
{{- $set := lookup "apps/v1" "StatefulSet" $namespace $name }}
{{- if not (and $set (($set.status).readyReplicas)) }}{{ $there = false }}{{ end }}
{{- end }}
{{- end }}
{{- $there | ternary "yes" "" }}
{{- end }}
