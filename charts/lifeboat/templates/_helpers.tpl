{{- define "lifeboat.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 54 characters: the longest suffix that is added to it is -failover. */}}
{{- define "lifeboat.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- else if contains (include "lifeboat.name" .) .Release.Name }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "lifeboat.name" .) | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "lifeboat.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lifeboat.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lifeboat.labels" -}}
{{ include "lifeboat.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lifeboat.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "lifeboat.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "lifeboat.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "lifeboat.claim" -}}
{{- default (printf "%s-zones" (include "lifeboat.fullname" .)) .Values.evaluation.volume.existingClaim }}
{{- end }}

{{/* What the schema cannot say well: values that are right by themselves and wrong together. */}}
{{- define "lifeboat.validate" -}}
{{- range $name, $_ := include "lifeboat.selectorLabels" . | fromYaml }}
{{- if or (hasKey $.Values.commonLabels $name) (hasKey $.Values.podLabels $name) }}
{{- fail (printf "commonLabels and podLabels must not set %s: the pods are found by it; use nameOverride" $name) }}
{{- end }}
{{- end }}
{{- if and .Values.evaluation.enabled (gt (int .Values.replicas) 1) }}
{{- fail "replicas: 2 with evaluation.enabled: both zones' machines run in one pod; set replicas to 1" }}
{{- end }}
{{- if and .Values.evaluation.zones (not .Values.evaluation.enabled) }}
{{- fail "evaluation.zones has no effect without evaluation.enabled: true" }}
{{- end }}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create: false needs serviceAccount.name: the rights would go to every pod that names no ServiceAccount" }}
{{- end }}
{{- if and .Values.scripts.secrets.names (not .Values.scripts.secrets.enabled) }}
{{- fail "scripts.secrets.names has no effect without scripts.secrets.enabled: true" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled: true: Prometheus finds the pods by the Service" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.metricsFrom) }}
{{- fail "serviceMonitor.enabled with networkPolicy.enabled needs networkPolicy.metricsFrom: say where Prometheus runs, or nothing is scraped" }}
{{- end }}
{{- end }}
