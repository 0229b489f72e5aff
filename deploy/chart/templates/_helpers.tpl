{{- define "hostler.labels" -}}
app.kubernetes.io/name: hostler
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "hostler.selector" -}}
app.kubernetes.io/name: hostler
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- /* The port of config.metrics.address, which the probes and annotations need. */ -}}
{{- define "hostler.metricsPort" -}}
{{- regexReplaceAll ".*:" (dig "metrics" "address" ":9484" .Values.config) "" -}}
{{- end }}
{{- /* The kubelet probes the node's address unless the agent listens at another only. */ -}}
{{- define "hostler.probe" -}}
{{- $host := regexReplaceAll ":[0-9]+$" (dig "metrics" "address" ":9484" .Values.config) "" | trimPrefix "[" | trimSuffix "]" -}}
port: {{ include "hostler.metricsPort" . }}
{{- if not (has $host (list "" "0.0.0.0" "::")) }}
host: {{ $host | quote }}
{{- end }}
{{- end }}
