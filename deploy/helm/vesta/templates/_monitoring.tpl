{{/* What every service is told of traces, as a map: (dict "root" $ "prefix" "VESTA_DATASETS_"). */}}
{{- define "vesta.traceSettings" -}}
{{- with .root.Values.traces.endpoint }}
{{ $.prefix }}OTLP_ENDPOINT: {{ . | quote }}
{{ $.prefix }}OTLP_SAMPLE_RATIO: {{ $.root.Values.traces.sampleRatio | quote }}
{{- end }}
{{- end }}
