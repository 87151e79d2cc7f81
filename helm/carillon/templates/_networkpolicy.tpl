{{/* Parts of the network policies. */}}

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
"yes" if external clients connect to a role directly, else empty. They always do without nginx. With nginx they do if the values
expose the role in another way. Takes root and role.
*/}}
{{- define "carillon.networkPolicy.around" -}}
{{- $values := .root.Values -}}
{{- $service := (get $values .role).service -}}
{{- if or (not $values.nginx.enabled) $values.ingress.enabled $values.httpRoute.enabled (ne $service.type "ClusterIP") }}yes{{ end -}}
{{- end -}}

{{- /* A rule without peers allows all. The ports are those of the DNS pods: OpenShift's listen on 5353. */ -}}
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
