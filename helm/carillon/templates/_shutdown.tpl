{{/* How long pods take to shut down, and what follows from it for updates and scaling. */}}

{{/*
Milliseconds over which a full gateway closes its connections: config.drain.window, or as long as config.drain.rate takes for
config.server.connections_max if that is longer. Without a number for connections_max the window counts. Takes root.
*/}}
{{- define "carillon.windowMilliseconds" -}}
{{- $config := .root.Values.config -}}
{{- $window := include "carillon.milliseconds" $config.drain.window | int64 -}}
{{- $rate := int64 $config.drain.rate -}}
{{- $connections := int64 ($config.server.connections_max | default 0) -}}
{{- if gt $rate 0 -}}
{{- max $window (div (add (mul $connections 1000) (sub $rate 1)) $rate) -}}
{{- else -}}
{{- $window -}}
{{- end -}}
{{- end -}}

{{/*
Seconds of the drain of a role, rounded up: config.drain.accept, and for gateways the window. Takes root and role.
*/}}
{{- define "carillon.drainSeconds" -}}
{{- $drain := .root.Values.config.drain -}}
{{- $milliseconds := include "carillon.milliseconds" $drain.accept | int64 -}}
{{- if eq .role "gateway" -}}
{{- $milliseconds = add $milliseconds (include "carillon.windowMilliseconds" . | int64) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{/* The grace of a role's pods: what is given, or the drain, 10 s for what is under way, and 10 s to spare. Takes root and role. */}}
{{- define "carillon.graceSeconds" -}}
{{- $given := (index .root.Values .role).terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add (include "carillon.drainSeconds" . | int64) 20 -}}
{{- else -}}
{{- $given -}}
{{- end -}}
{{- end -}}

{{/* How long a new pod of a role must be ready before the next old one shuts down. Takes root and role. */}}
{{- define "carillon.minReadySeconds" -}}
{{- $given := (index .root.Values .role).minReadySeconds -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $given -}}
{{- else if eq .role "gateway" -}}
{{- include "carillon.drainSeconds" . -}}
{{- else -}}
5
{{- end -}}
{{- end -}}

{{/* How long a worker of nginx finishes requests, a publish 15 s at the most, before it cuts its WebSockets. */}}
{{- define "carillon.nginx.workerSeconds" -}}20{{- end -}}

{{/* Between the ends of two workers of nginx. */}}
{{- define "carillon.nginx.stepSeconds" -}}
{{- div .Values.nginx.shutdownTimeoutSeconds .Values.nginx.workers -}}
{{- end -}}

{{/* Until the last worker has ended, and what connected to a new worker meanwhile. */}}
{{- define "carillon.nginx.shutdownSeconds" -}}
{{- $worker := include "carillon.nginx.workerSeconds" . | int64 -}}
{{- add .Values.nginx.acceptSeconds .Values.nginx.shutdownTimeoutSeconds $worker $worker -}}
{{- end -}}

{{- define "carillon.nginx.graceSeconds" -}}
{{- $given := .Values.nginx.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add (include "carillon.nginx.shutdownSeconds" . | int64) 10 -}}
{{- else -}}
{{- $given -}}
{{- end -}}
{{- end -}}

{{/*
How many pods a workload has. With a scaler it is the number that the cluster has: a Deployment without `replicas` gets one pod,
and another number undoes the scaler's work at every upgrade. A rendering without a cluster has the least that the scaler allows.
Takes root, role and values.
*/}}
{{- define "carillon.replicas" -}}
{{- if .values.autoscaling.enabled -}}
{{- $name := printf "%s-%s" (include "carillon.fullname" .root) .role -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace $name | default dict -}}
{{- dig "spec" "replicas" .values.autoscaling.minReplicas $live -}}
{{- else -}}
{{- .values.replicas -}}
{{- end -}}
{{- end -}}

{{/*
The pace of a scaler, as JSON: what the values say, or the chart's own. Every pod that goes sends its clients to the others, so
gateways and nginx lose one pod at a time, each after the one before it has ended. Takes root, role and values.
*/}}
{{- define "carillon.scalingBehavior" -}}
{{- $pods := int64 60 -}}
{{- $quiet := 600 -}}
{{- if eq .role "gateway" -}}
{{- $pods = max 120 (include "carillon.graceSeconds" . | int64) -}}
{{- else if eq .role "nginx" -}}
{{- $pods = max 120 (include "carillon.nginx.graceSeconds" .root | int64) -}}
{{- else -}}
{{- $quiet = 300 -}}
{{- end -}}
{{- /* The API takes no more than half an hour. */ -}}
{{- $down := dict "stabilizationWindowSeconds" $quiet "policies" (list (dict "type" "Pods" "value" 1 "periodSeconds" (min 1800 $pods))) -}}
{{- $own := dict "scaleDown" $down -}}
{{- if eq .role "gateway" -}}
{{- $twice := dict "type" "Percent" "value" 100 "periodSeconds" 60 -}}
{{- $two := dict "type" "Pods" "value" 2 "periodSeconds" 60 -}}
{{- $_ := set $own "scaleUp" (dict "stabilizationWindowSeconds" 0 "policies" (list $twice $two) "selectPolicy" "Max") -}}
{{- end -}}
{{- .values.autoscaling.behavior | default $own | toJson -}}
{{- end -}}
