{{/* Parts that several pods share. */}}

{{/* The restricted pod security standard, for a pod. Takes the user id, which may be null. */}}
{{- define "carillon.podSecurityContext" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .) }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The restricted pod security standard, for a container. */}}
{{- define "carillon.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Scheduling constraints. Takes the values of a component. */}}
{{- define "carillon.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Spreads pods over zones and nodes. Takes root, role and values. */}}
{{- define "carillon.topologySpread" -}}
{{- with .values.topologySpread -}}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    maxSkew: {{ .maxSkew }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "carillon.selector" (dict "root" $.root "component" $.role) | nindent 8 }}
    # Counts each version separately. Otherwise an update spreads the new pods unevenly.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Environment variables with the URL of Redis. */}}
{{- define "carillon.redisEnv" -}}
{{- $redis := .Values.redis -}}
{{- if $redis.passwordSecret.name }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $redis.passwordSecret.name }}
      key: {{ $redis.passwordSecret.key }}
- name: CARILLON_REDIS__URL
  value: {{ $redis.url | quote }}
{{- else }}
- name: CARILLON_REDIS__URL
  valueFrom:
    secretKeyRef:
      name: {{ $redis.existingSecret.name | default (include "carillon.redisName" .) }}
      key: {{ ternary $redis.existingSecret.key "url" (ne $redis.existingSecret.name "") }}
{{- end }}
{{- end -}}

{{/* Mounts of the configuration files. */}}
{{- define "carillon.configMounts" -}}
- name: config
  mountPath: /etc/carillon
  readOnly: true
- name: apps
  mountPath: /run/carillon/apps
  readOnly: true
{{- if .Values.webhooks.caSecret.name }}
- name: webhooks-ca
  mountPath: /run/carillon/webhooks
  readOnly: true
{{- end }}
{{- end -}}

{{- define "carillon.configVolumes" -}}
- name: config
  {{- if include "carillon.configIsSecret" . }}
  secret:
    secretName: {{ include "carillon.fullname" . }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ include "carillon.fullname" . }}
  {{- end }}
{{- with .Values.webhooks.caSecret }}
{{- if .name }}
- name: webhooks-ca
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - { key: {{ .key | quote }}, path: ca.crt }
{{- end }}
{{- end }}
- name: apps
  projected:
    defaultMode: 0440
    sources:
      {{- range .Values.apps }}
      {{- $existing := .existingSecret | default dict }}
      - secret:
          name: {{ $existing.name | default (include "carillon.appSecretsName" $) }}
          items:
            - { key: {{ ternary ($existing.key | default .id) .id (not (empty $existing.name)) | quote }}, path: {{ .id | quote }} }
      {{- $id := .id }}
      {{- range $index, $webhook := (.settings | default dict).webhooks | default list }}
      {{- range $header, $secret := $webhook.header_files | default dict }}
      - secret:
          name: {{ $secret.name }}
          items:
            - { key: {{ quote $secret.key }}, path: {{ include "carillon.headerFile" (dict "id" $id "index" $index "header" $header) | quote }} }
      {{- end }}
      {{- end }}
      {{- end }}
{{- end -}}

{{/* The Deployment of a role. Takes root and role. */}}
{{- define "carillon.deployment" -}}
{{- $root := .root -}}
{{- $values := index .root.Values .role -}}
{{- $port := ternary 8080 8081 (eq .role "gateway") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "carillon.fullname" $root }}-{{ .role }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" (dict "root" $root "component" .role) | nindent 4 }}
spec:
  replicas: {{ include "carillon.replicas" (dict "root" $root "role" .role "values" $values) }}
  revisionHistoryLimit: 5
  minReadySeconds: {{ include "carillon.minReadySeconds" . }}
  # Kubernetes requires that this is longer than minReadySeconds.
  progressDeadlineSeconds: {{ add (include "carillon.minReadySeconds" . | int64) 600 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: {{ $values.maxSurge }}
  selector:
    matchLabels:
      {{- include "carillon.selector" (dict "root" $root "component" .role) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "carillon.podLabels" (dict "root" $root "component" .role "labels" $values.podLabels) | nindent 8 }}
        carillon/metrics: "true"
      annotations:
        checksum/config: {{ include "carillon.toml" $root | sha256sum }}
        checksum/secrets: {{ print (include "carillon.appSecrets" $root) (include "carillon.redisSecret" $root) | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "carillon.serviceAccountName" $root }}
      automountServiceAccountToken: false
      # Otherwise Kubernetes adds variables for each Service of the namespace to the container. Their names may start like
      # those of Carillon.
      enableServiceLinks: false
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "carillon.podSecurityContext" $root.Values.userId | nindent 8 }}
      # Exceeds the drain, see checks.yaml. There is no preStop hook: after SIGTERM the process itself still accepts connections
      # for config.drain.accept.
      terminationGracePeriodSeconds: {{ include "carillon.graceSeconds" . }}
      {{- include "carillon.topologySpread" (dict "root" $root "role" .role "values" $values) | nindent 6 }}
      {{- include "carillon.placement" $values | nindent 6 }}
      {{- if $root.Values.doctor.enabled }}
      initContainers:
        - name: doctor
          {{- include "carillon.ownImage" $root | nindent 10 }}
          command: [carillon]
          args: [doctor, --role, {{ .role }}, --config, /etc/carillon/carillon.toml]
          {{- include "carillon.containerRest" (dict "root" $root "values" $values) | nindent 10 }}
      {{- end }}
      containers:
        - name: {{ .role }}
          {{- include "carillon.ownImage" $root | nindent 10 }}
          command: [carillon]
          args: [{{ .role }}, --config, /etc/carillon/carillon.toml, --port, {{ $port | quote }}]
          ports:
            - { name: http, containerPort: {{ $port }} }
            - { name: admin, containerPort: 9090 }
            {{- if eq .role "gateway" }}
            - { name: peers, containerPort: 8082 }
            {{- end }}
          {{- include "carillon.containerRest" (dict "root" $root "values" $values) | nindent 10 }}
          startupProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 2
            failureThreshold: 30
          # Checks the event loops only, never Redis.
          livenessProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: { path: /readyz, port: admin }
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 2
      volumes:
        {{- include "carillon.configVolumes" $root | nindent 8 }}
        {{- with $root.Values.redis.caSecret }}
        {{- if .name }}
        - name: redis-ca
          secret:
            secretName: {{ .name }}
            defaultMode: 0440
            items:
              - { key: {{ .key | quote }}, path: ca.crt }
        {{- end }}
        {{- end }}
        {{- with $root.Values.redis.certSecret }}
        {{- if .name }}
        - name: redis-client
          secret:
            secretName: {{ .name }}
            defaultMode: 0440
            items:
              - { key: {{ .certKey | quote }}, path: tls.crt }
              - { key: {{ .keyKey | quote }}, path: tls.key }
        {{- end }}
        {{- end }}
        {{- with $root.Values.tls.existingSecret }}
        - name: tls
          secret:
            secretName: {{ . }}
            defaultMode: 0440
        {{- end }}
{{ end -}}

{{/* Common part of the containers of a role's pod. Takes root and values. */}}
{{- define "carillon.containerRest" -}}
env:
  # The image sets this variable too, and it takes precedence over the configuration file.
  - name: CARILLON_ADMIN__HOST
    value: {{ .root.Values.listenAddress | quote }}
  {{- include "carillon.redisEnv" .root | nindent 2 }}
  {{- with .values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
# If the configuration is invalid, the process writes the reason to standard error.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "carillon.securityContext" . | nindent 2 }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
volumeMounts:
  {{- include "carillon.configMounts" .root | nindent 2 }}
  {{- if .root.Values.redis.caSecret.name }}
  - name: redis-ca
    mountPath: /run/carillon/redis
    readOnly: true
  {{- end }}
  {{- if .root.Values.redis.certSecret.name }}
  - name: redis-client
    mountPath: /run/carillon/redis-client
    readOnly: true
  {{- end }}
  {{- if .root.Values.tls.existingSecret }}
  - name: tls
    mountPath: /run/carillon/tls
    readOnly: true
  {{- end }}
{{- end -}}

{{/*
Application protocol of a role's port: from the values, or the protocol of the pods. nginx has no such value, and controllers then use
the name of the port. Takes root and values (of the service).
*/}}
{{- define "carillon.appProtocol" -}}
{{- if hasKey .values "appProtocol" -}}
{{- .values.appProtocol | default (ternary "https" "http" (not (empty .root.Values.tls.existingSecret))) -}}
{{- end -}}
{{- end -}}

{{/* The Service of a role or of nginx. Takes root, role, values (of the service) and port; portName and more ports if they differ. */}}
{{- define "carillon.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .role }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" (dict "root" .root "component" .role) | nindent 4 }}
  {{- with .values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .values.type }}
  {{- with .values.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with .values.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  selector:
    {{- include "carillon.selector" (dict "root" .root "component" .role) | nindent 4 }}
  ports:
    - name: {{ .portName | default "http" }}
      port: {{ .port }}
      targetPort: {{ .portName | default "http" }}
      {{- with include "carillon.appProtocol" . }}
      appProtocol: {{ . }}
      {{- end }}
      {{- with .values.nodePort }}
      nodePort: {{ . }}
      {{- end }}
    {{- with .more }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{ end -}}

{{/* The PodDisruptionBudget of a component. Takes root, role and values. */}}
{{- define "carillon.podDisruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .role }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" (dict "root" .root "component" .role) | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: {{ .values.podDisruptionBudget.unhealthyPodEvictionPolicy | default "AlwaysAllow" }}
  selector:
    matchLabels:
      {{- include "carillon.selector" (dict "root" .root "component" .role) | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* The HorizontalPodAutoscaler of a role or of nginx. Takes root and role. */}}
{{- define "carillon.horizontalPodAutoscaler" -}}
{{- $values := index .root.Values .role -}}
{{- $scaling := $values.autoscaling -}}
{{- if $scaling.enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "carillon.fullname" .root }}-{{ .role }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "carillon.labels" (dict "root" .root "component" .role) | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "carillon.fullname" .root }}-{{ .role }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    {{- with $scaling.connections }}
    - type: Pods
      pods:
        metric:
          name: carillon_connections
        target:
          type: AverageValue
          averageValue: {{ . | toJson | quote }}
    {{- end }}
    {{- with $scaling.cpu }}
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ . }}
    {{- end }}
  behavior:
    {{- include "carillon.scalingBehavior" (dict "root" .root "role" .role "values" $values) | fromJson | toYaml | nindent 4 }}
{{- end -}}
{{- end -}}
