{{/* Names and labels; one release a namespace, so that objects bear the plain words of the services. */}}

{{- define "vesta.labels" -}}
app.kubernetes.io/name: vesta
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: vesta
app.kubernetes.io/version: {{ include "vesta.tag" .root | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- include "vesta.mapOf" .root.Values.commonLabels }}
{{- end }}

{{/* The entries of a map, each on a line of its own after what is there; nothing where it is empty. */}}
{{- define "vesta.mapOf" -}}
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A map or list of a component, over what `defaults` say for all pods: (dict "root" $ "it" VALUES "key" NAME), as JSON. */}}
{{- define "vesta.ofPods" -}}
{{- get (mergeOverwrite (pick (deepCopy .root.Values.defaults) .key) (pick (deepCopy (.it | default dict)) .key)) .key | toJson }}
{{- end }}

{{/* Labels or annotations that the values add to pods: (dict "root" $ "it" VALUES "key" "podLabels"). */}}
{{- define "vesta.podMap" -}}
{{- include "vesta.mapOf" (include "vesta.ofPods" . | fromJson) }}
{{- end }}

{{/* Of pods that no new version of the chart is to restart: nothing in them changes with it. */}}
{{- define "vesta.engineLabels" -}}
app.kubernetes.io/name: vesta
{{ include "vesta.selector" . }}
app.kubernetes.io/part-of: vesta
{{- include "vesta.mapOf" .root.Values.commonLabels }}
{{- end }}

{{- define "vesta.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "vesta.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The image of ours with this name: (dict "root" $ "name" "datasets"). */}}
{{- define "vesta.image" -}}
{{ printf "%s/vesta-%s:%s" .root.Values.image.registry .name (include "vesta.tag" .root) }}
{{- end }}

{{/* The image of a bundled engine, which has a version of its own, so that upgrades do not restart it. */}}
{{- define "vesta.engineImage" -}}
{{ printf "%s/vesta-%s:%s" .root.Values.image.registry .name .root.Values.image.enginesTag }}
{{- end }}

{{/* What every service fixes, as a map: who calls whom, which engines it reaches. */}}
{{- define "vesta.services" -}}
{{ .Files.Get "files/services.yaml" }}
{{- end }}

{{- define "vesta.secretName" -}}
{{ .Values.existingSecret | default "vesta-secrets" }}
{{- end }}

{{/* The restricted pod security standard. */}}
{{- define "vesta.podSecurity" -}}
runAsNonRoot: true
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- include "vesta.mapOf" .root.Values.podSecurityContext }}
{{- end }}

{{- define "vesta.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What all pods share: (dict "root" $ "account" NAME "token" BOOL "it" VALUES), where VALUES are the component's. */}}
{{- define "vesta.pod" -}}
{{- $pod := . }}
serviceAccountName: {{ .account }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  {{- include "vesta.podSecurity" . | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "hostAliases" "priorityClassName" "runtimeClassName" }}
{{- with index (printf "{%q: %s}" $key (include "vesta.ofPods" (dict "root" $pod.root "it" $pod.it "key" $key)) | fromJson) $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The secrets of this release: those that are there, and new ones for what is missing. Made once a rendering, so that checksums agree. */}}
{{- define "vesta.secretData" -}}
{{- if not (hasKey .Values "_secretData") }}
{{- $there := (lookup "v1" "Secret" .Release.Namespace "vesta-secrets").data | default dict }}
{{- $data := dict }}
{{- $owner := printf "vesta_%s" (randAlphaNum 40) }}
{{- if hasKey $there "owner-key" }}{{ $owner = index $there "owner-key" | b64dec }}{{ end }}
{{- $made := dict
  "owner-key" $owner
  "source-keys" (randBytes 32 | replace "+" "-" | replace "/" "_")
  "postgres-password" (randAlphaNum 32)
  "s3-access-key" (randAlphaNum 20)
  "s3-secret-key" (randAlphaNum 40) }}
{{- range $key, $value := $made }}
{{- $_ := set $data $key (index $there $key | default ($value | b64enc)) }}
{{- end }}
{{- $_ := set $data "owner-key-sha256" ($owner | sha256sum | b64enc) }}
{{- $_ := set .Values "_secretData" $data }}
{{- end }}
{{- .Values._secretData | toYaml }}
{{- end }}
