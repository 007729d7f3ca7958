{{/* Pods of the release as NetworkPolicy peers: (dict "root" $ "components" LIST). */}}
{{- define "vesta.podPeers" -}}
- podSelector:
    matchLabels: {app.kubernetes.io/instance: {{ .root.Release.Name }}}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ .components | uniq | sortAlpha | toJson }}}
{{- end }}

{{/* The ports of an external engine, from its address: (dict "root" $ "engine" NAME). */}}
{{- define "vesta.externalPorts" -}}
{{- $ports := list }}
{{- if eq .engine "postgres" }}
{{- $ports = list (regexFind ":[0-9]+$" (urlParse .root.Values.postgres.external.url).host | default ":5432") }}
{{- else if eq .engine "s3" }}
{{- $url := urlParse .root.Values.s3.external.endpoint }}
{{- $ports = list (regexFind ":[0-9]+$" $url.host | default (eq $url.scheme "http" | ternary ":80" ":443")) }}
{{- else }}
{{- range splitList "," .root.Values.kafka.external.bootstrap }}{{ $ports = append $ports (regexFind ":[0-9]+$" .) }}{{ end }}
{{- end }}
{{- range $ports | uniq }}
- {{ trimPrefix ":" . }}
{{- end }}
{{- end }}
