{{/* Pieces of the policies. */}}

{{- define "carillon.peersOf" -}}
{{- range .components }}
- podSelector:
    matchLabels:
      {{- include "carillon.selector" (dict "root" $.root "component" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "carillon.networkPolicy.head" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" (dict "root" .root "component" .component) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "carillon.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}

{{/*
Whether strangers come to a role itself: always without nginx, and with it where values open a way around it. Empty means no.
Takes root and role.
*/}}
{{- define "carillon.networkPolicy.around" -}}
{{- $values := .root.Values -}}
{{- $service := (get $values .role).service -}}
{{- if or (not $values.nginx.enabled) $values.ingress.enabled $values.httpRoute.enabled (ne $service.type "ClusterIP") }}yes{{ end -}}
{{- end -}}

{{- /* A rule without peers is for everyone. Ports are those of the pods that answer: OpenShift's listen on 5353. */ -}}
{{- define "carillon.networkPolicy.dns" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
    - { protocol: UDP, port: 5353 }
    - { protocol: TCP, port: 5353 }
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "carillon.networkPolicy.redis" -}}
{{- if .Values.redis.bundled.enabled }}
- ports:
    - { protocol: TCP, port: 6379 }
  to:
    {{- include "carillon.peersOf" (dict "root" . "components" (list "redis")) | trim | nindent 4 }}
{{- else }}
- ports:
    - { protocol: TCP, port: {{ include "carillon.redisPort" . }} }
  {{- with .Values.networkPolicy.redis.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}
