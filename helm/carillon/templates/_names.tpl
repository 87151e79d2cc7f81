{{/* Names and labels. All names that templates refer to are defined here. */}}

{{- define "carillon.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The common prefix of all names: the release's name, and the chart's name unless the release's contains it. Leaves room for suffixes. */}}
{{- define "carillon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "carillon.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "carillon.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "carillon.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "carillon.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The selector of the pods of one component. Takes root and component. */}}
{{- define "carillon.selector" -}}
app.kubernetes.io/name: {{ include "carillon.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Takes root and component. */}}
{{- define "carillon.labels" -}}
{{ include "carillon.selector" . }}
app.kubernetes.io/part-of: carillon
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod. They contain no version, so that a new chart version alone restarts no pod. Takes root, component and labels. */}}
{{- define "carillon.podLabels" -}}
{{ include "carillon.selector" . }}
{{- with merge (dict) (.labels | default dict) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference to an image. Takes repository, tag, digest and pullPolicy. */}}
{{- define "carillon.image" -}}
image: {{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
imagePullPolicy: {{ .pullPolicy }}
{{- end -}}

{{- define "carillon.ownImage" -}}
{{- include "carillon.image" (merge (dict "tag" (.Values.image.tag | default .Chart.AppVersion)) .Values.image) -}}
{{- end -}}
