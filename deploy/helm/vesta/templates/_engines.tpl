{{/* How programs reach the engines: settings, mounted secrets and CA bundles. Values of Secrets are files, never variables. */}}

{{- define "vesta.secretsPath" -}}/etc/vesta/secrets{{- end }}

{{- define "vesta.postgresUrl" -}}
{{- if .Values.postgres.bundled -}}
postgresql://vesta@postgres:5432/vesta
{{- else -}}
{{- $url := required "postgres.external.url: postgresql://USER@HOST:PORT/DATABASE is needed where postgres.bundled is false" .Values.postgres.external.url -}}
{{- if .Values.postgres.external.caSecret -}}
{{- $url = printf "%s%ssslrootcert=%s/postgres-ca.crt" $url (contains "?" $url | ternary "&" "?") (include "vesta.secretsPath" .) -}}
{{- if not (contains "sslmode=" $url) }}{{ $url = printf "%s&sslmode=verify-full" $url }}{{ end -}}
{{- end -}}
{{ $url }}
{{- end -}}
{{- end }}

{{- define "vesta.s3Endpoint" -}}
{{- if .Values.s3.bundled -}}
http://objects:8333
{{- else -}}
{{ required "s3.external.endpoint: https://HOST:PORT is needed where s3.bundled is false" .Values.s3.external.endpoint }}
{{- end -}}
{{- end }}

{{- define "vesta.kafkaBootstrap" -}}
{{- if .Values.kafka.bundled -}}
kafka:9092
{{- else -}}
{{ required "kafka.external.bootstrap: HOST:PORT is needed where kafka.bundled is false" .Values.kafka.external.bootstrap }}
{{- end -}}
{{- end }}

{{/* Settings of the engines as a map: (dict "root" $ "prefix" "VESTA_DATASETS_" "engines" LIST). */}}
{{- define "vesta.engineSettings" -}}
{{- $p := .prefix }}
{{- $files := include "vesta.secretsPath" . }}
{{- $v := .root.Values }}
{{- if has "postgres" .engines }}
{{ $p }}POSTGRES_URL: {{ include "vesta.postgresUrl" .root | quote }}
{{- if or $v.postgres.bundled $v.postgres.external.existingSecret }}
{{ $p }}POSTGRES_PASSWORD_FILE: {{ $files }}/postgres-password
{{- end }}
{{- end }}
{{- if has "s3" .engines }}
{{ $p }}S3_ENDPOINT_URL: {{ include "vesta.s3Endpoint" .root | quote }}
{{ $p }}S3_REGION: {{ $v.s3.region | quote }}
{{ $p }}S3_BUCKET: {{ $v.s3.bucket | quote }}
{{- if or $v.s3.bundled $v.s3.external.existingSecret }}
{{ $p }}S3_ACCESS_KEY_FILE: {{ $files }}/s3-access-key
{{ $p }}S3_SECRET_KEY_FILE: {{ $files }}/s3-secret-key
{{- end }}
{{- if and (not $v.s3.bundled) $v.s3.external.caSecret }}
{{ $p }}S3_CA_FILE: {{ $files }}/s3-ca.crt
{{- end }}
{{- end }}
{{- if has "kafka" .engines }}
{{ $p }}KAFKA_BOOTSTRAP: {{ include "vesta.kafkaBootstrap" .root | quote }}
{{- if not $v.kafka.bundled }}
{{- with $v.kafka.external }}
{{ $p }}KAFKA_SECURITY_PROTOCOL: {{ .securityProtocol }}
{{- if hasPrefix "SASL" .securityProtocol }}
{{ $p }}KAFKA_SASL_MECHANISM: {{ .saslMechanism }}
{{ $p }}KAFKA_SASL_USERNAME_FILE: {{ $files }}/kafka-username
{{ $p }}KAFKA_SASL_PASSWORD_FILE: {{ $files }}/kafka-password
{{- end }}
{{- if .caSecret }}
{{ $p }}KAFKA_CA_FILE: {{ $files }}/kafka-ca.crt
{{- end }}
{{- if .clientCertificateSecret }}
{{ $p }}KAFKA_CERTIFICATE_FILE: {{ $files }}/kafka-client.crt
{{ $p }}KAFKA_KEY_FILE: {{ $files }}/kafka-client.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The files of those settings as sources of a projected volume: (dict "root" $ "engines" LIST "own" MAP of key to file of our Secret). */}}
{{- define "vesta.secretSources" -}}
{{- $v := .root.Values }}
{{- $own := deepCopy (.own | default dict) }}
{{- if and (has "postgres" .engines) $v.postgres.bundled }}{{ $_ := set $own "postgres-password" "postgres-password" }}{{ end }}
{{- if and (has "s3" .engines) $v.s3.bundled }}
{{- $_ := set $own "s3-access-key" "s3-access-key" }}{{ $_ := set $own "s3-secret-key" "s3-secret-key" }}
{{- end }}
{{- if $own }}
- secret:
    name: {{ include "vesta.secretName" .root }}
    items:
      {{- range $key, $file := $own }}
      - {key: {{ $key }}, path: {{ $file }}}
      {{- end }}
{{- end }}
{{- if and (has "postgres" .engines) (not $v.postgres.bundled) }}
{{- with $v.postgres.external }}
{{- if .existingSecret }}
- secret: {name: {{ .existingSecret }}, items: [{key: {{ .passwordKey }}, path: postgres-password}]}
{{- end }}
{{- if .caSecret }}
- secret: {name: {{ .caSecret }}, items: [{key: {{ .caKey }}, path: postgres-ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
{{- if and (has "s3" .engines) (not $v.s3.bundled) }}
{{- with $v.s3.external }}
{{- if .existingSecret }}
- secret: {name: {{ .existingSecret }}, items: [{key: {{ .accessKeyKey }}, path: s3-access-key}, {key: {{ .secretKeyKey }}, path: s3-secret-key}]}
{{- end }}
{{- if .caSecret }}
- secret: {name: {{ .caSecret }}, items: [{key: {{ .caKey }}, path: s3-ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
{{- if and (has "kafka" .engines) (not $v.kafka.bundled) }}
{{- with $v.kafka.external }}
{{- if hasPrefix "SASL" .securityProtocol }}
- secret:
    name: {{ required "kafka.external.existingSecret: a Secret with the user name and password is needed for SASL" .existingSecret }}
    items: [{key: {{ .usernameKey }}, path: kafka-username}, {key: {{ .passwordKey }}, path: kafka-password}]
{{- end }}
{{- if .caSecret }}
- secret: {name: {{ .caSecret }}, items: [{key: {{ .caKey }}, path: kafka-ca.crt}]}
{{- end }}
{{- if .clientCertificateSecret }}
- secret: {name: {{ .clientCertificateSecret }}, items: [{key: tls.crt, path: kafka-client.crt}, {key: tls.key, path: kafka-client.key}]}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod's volume of secrets; nothing where it needs none. */}}
{{- define "vesta.secretVolume" -}}
{{- $sources := include "vesta.secretSources" . | trim }}
{{- if $sources }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- $sources | nindent 6 }}
{{- end }}
{{- end }}
