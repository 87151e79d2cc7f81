{{/* Shutdown times of pods, and the settings for updates and scaling that depend on them. */}}

{{/*
Milliseconds over which a full gateway closes its connections: config.drain.window, or the time that config.drain.rate needs for
config.server.connections_max if that is longer. Without connections_max only the window counts. Takes root.
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

{{/* Grace period of a role's pods: the given value, or the drain, 10 s for work in progress, and 10 s of reserve. Takes root and role. */}}
{{- define "carillon.graceSeconds" -}}
{{- $given := (index .root.Values .role).terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add (include "carillon.drainSeconds" . | int64) 20 -}}
{{- else -}}
{{- $given -}}
{{- end -}}
{{- end -}}

{{/* Seconds that a new pod of a role must be ready before the next old one shuts down. Takes root and role. */}}
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

{{/* Seconds for which a worker of nginx finishes requests before it cuts its WebSockets. A publish takes at most 15 s. */}}
{{- define "carillon.nginx.workerSeconds" -}}20{{- end -}}

{{/* Seconds between the stops of two workers of nginx. */}}
{{- define "carillon.nginx.stepSeconds" -}}
{{- div .Values.nginx.shutdownTimeoutSeconds .Values.nginx.workers -}}
{{- end -}}

{{/* Seconds until the last worker has stopped, including connections to new workers in the meantime. */}}
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
Number of pods of a workload. With an autoscaler it is the number in the cluster. A Deployment without `replicas` would get one pod, and
any other number would undo the autoscaler's work at every upgrade. Without a cluster it is the autoscaler's minimum. Takes root, role
and values.
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
Scaling policy, as JSON: from the values, or the chart's own. Removing a pod reconnects its clients. The chart therefore removes
gateways and nginx one pod at a time, each after the previous one has ended. Takes root, role and values.
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
{{- /* The API allows at most half an hour. */ -}}
{{- $down := dict "stabilizationWindowSeconds" $quiet "policies" (list (dict "type" "Pods" "value" 1 "periodSeconds" (min 1800 $pods))) -}}
{{- $own := dict "scaleDown" $down -}}
{{- if eq .role "gateway" -}}
{{- $twice := dict "type" "Percent" "value" 100 "periodSeconds" 60 -}}
{{- $two := dict "type" "Pods" "value" 2 "periodSeconds" 60 -}}
{{- $_ := set $own "scaleUp" (dict "stabilizationWindowSeconds" 0 "policies" (list $twice $two) "selectPolicy" "Max") -}}
{{- end -}}
{{- .values.autoscaling.behavior | default $own | toJson -}}
{{- end -}}
