{{/*
The certificates by which services know each other: from cert-manager where `identity.certManager` is set, else from `vesta-admin
certificates`, which runs before each installation and upgrade, and every week.
*/}}

{{- define "vesta.identityPath" -}}/etc/vesta/identity{{- end }}

{{/* Settings that name them: (dict "root" $ "prefix" "VESTA_DATASETS_"). */}}
{{- define "vesta.identitySettings" -}}
{{ .prefix }}IDENTITY_CERTIFICATE_FILE: {{ include "vesta.identityPath" . }}/tls.crt
{{ .prefix }}IDENTITY_KEY_FILE: {{ include "vesta.identityPath" . }}/tls.key
{{ .prefix }}IDENTITY_CA_FILE: {{ include "vesta.identityPath" . }}/ca.crt
{{ .prefix }}PEER_TLS: {{ .root.Values.identity.tls | quote }}
{{- end }}

{{/* The account of `vesta-admin certificates`: (dict "root" $ "name" NAME "annotations" MAP). */}}
{{- define "vesta.certificatesAccess" }}
{{- $component := dict "root" .root "component" "admin" }}
{{- $secrets := list "identity-authority" }}
{{- range $name, $_ := include "vesta.services" .root | fromYaml }}{{ $secrets = append $secrets (print "identity-" $name) }}{{ end }}
{{- $it := . }}
{{- range $kind := list "ServiceAccount" "Role" "RoleBinding" }}
---
apiVersion: {{ eq $kind "ServiceAccount" | ternary "v1" "rbac.authorization.k8s.io/v1" }}
kind: {{ $kind }}
metadata:
  name: {{ $it.name }}
  labels:
    {{- include "vesta.labels" $component | nindent 4 }}
  {{- with $it.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if eq $kind "ServiceAccount" }}
automountServiceAccountToken: false
{{- else if eq $kind "Role" }}
rules:
  - {apiGroups: [""], resources: [secrets], verbs: [get, update], resourceNames: {{ toJson $secrets }}}
  - {apiGroups: [""], resources: [secrets], verbs: [create]}  # which cannot be limited to names
{{- else }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $it.name }}}
subjects:
  - {kind: ServiceAccount, name: {{ $it.name }}, namespace: {{ $it.root.Release.Namespace }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Its pod: (dict "root" $ "name" NAME). */}}
{{- define "vesta.certificatesPod" -}}
{{- $labels := include "vesta.selector" (dict "root" .root "component" "identity") | fromYaml }}
metadata:
  labels:
    {{- include "vesta.labels" (dict "root" .root "component" "admin") | nindent 4 }}
    {{- include "vesta.podMap" (dict "root" .root "it" .root.Values.admin "key" "podLabels") | indent 4 }}
  {{- with include "vesta.podMap" (dict "root" .root "it" .root.Values.admin "key" "podAnnotations") }}
  annotations:
    {{- . | indent 4 }}
  {{- end }}
spec:
  {{- include "vesta.pod" (dict "root" .root "account" .name "token" true "it" .root.Values.admin) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: certificates
      image: {{ include "vesta.image" (dict "root" .root "name" "admin") }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args:
        - certificates
        - --namespace={{ .root.Release.Namespace }}
        {{- range $key, $value := $labels }}
        - --label={{ $key }}={{ $value }}
        {{- end }}
      securityContext:
        {{- include "vesta.containerSecurity" .root | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        {{- toYaml .root.Values.admin.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
{{- end }}
