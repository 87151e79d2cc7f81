{{/* Common parts of the pods for `helm test`. */}}

{{- define "carillon.testUrl" -}}
http://{{ include "carillon.fullname" .root }}-{{ .role }}.{{ .root.Release.Namespace }}.svc:{{ (index .root.Values .role).service.port }}{{ .root.Values.config.server.path_prefix | default "" }}
{{- end -}}

{{/*
Arguments of a test command. They select the test app: the apps of the values may have webhooks, which a test must not trigger. Takes
root, command and role.
*/}}
{{- define "carillon.testArguments" -}}
- {{ .command }}
- --config
- /etc/carillon/carillon.toml
- --app-id
- {{ include "carillon.testApp" .root }}
- --url
- {{ include "carillon.testUrl" (dict "root" .root "role" .role) }}
{{- end -}}

{{- define "carillon.testPod" -}}
restartPolicy: Never
# The time to pull the image plus the time of the test.
activeDeadlineSeconds: {{ add .Values.tests.timeoutSeconds 240 }}
serviceAccountName: {{ include "carillon.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "carillon.podSecurityContext" .Values.userId | nindent 2 }}
volumes:
  {{- include "carillon.configVolumes" . | nindent 2 }}
{{- end -}}

{{- define "carillon.testContainer" -}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "carillon.securityContext" . | nindent 2 }}
resources:
  requests: { cpu: 50m, memory: 64Mi }
  limits: { memory: 64Mi }
volumeMounts:
  {{- include "carillon.configMounts" . | nindent 2 }}
{{- end -}}
