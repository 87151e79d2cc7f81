{{/* Secrets that the chart creates. A generated value is kept: the chart reads it from the cluster first. */}}

{{/*
A generated value: the one in the cluster under this name and key, or else a new one. One rendering always returns the same value, so
that the checksum on the pods matches the Secret. Takes root, name and key.
*/}}
{{- define "carillon.generated" -}}
{{- if not (hasKey .root.Values "generated") -}}
{{- $_ := set .root.Values "generated" dict -}}
{{- end -}}
{{- $known := .root.Values.generated -}}
{{- $place := printf "%s/%s" .name .key -}}
{{- if not (hasKey $known $place) -}}
{{- $secret := lookup "v1" "Secret" .root.Release.Namespace .name | default dict -}}
{{- $data := $secret.data | default dict -}}
{{- $value := ternary (get $data .key | b64dec) (randAlphaNum 40) (hasKey $data .key) -}}
{{- $_ := set $known $place $value -}}
{{- end -}}
{{- get $known $place -}}
{{- end -}}

{{- define "carillon.appSecretsName" -}}
{{- include "carillon.fullname" . }}-apps
{{- end -}}

{{/* Secrets of the apps without `existingSecret`, as JSON by id. */}}
{{- define "carillon.appSecrets" -}}
{{- $name := include "carillon.appSecretsName" . -}}
{{- $data := dict -}}
{{- range .Values.apps -}}
{{- if not ((.existingSecret | default dict).name) -}}
{{- $secret := .secret | default (include "carillon.generated" (dict "root" $ "name" $name "key" .id)) -}}
{{- $_ := set $data .id $secret -}}
{{- end -}}
{{- end -}}
{{- toJson $data -}}
{{- end -}}

{{- define "carillon.redisName" -}}
{{- include "carillon.fullname" . }}-redis
{{- end -}}

{{/* The Secret of Redis that the chart creates, as JSON. Empty if the URL or the password is in another Secret. */}}
{{- define "carillon.redisSecret" -}}
{{- $name := include "carillon.redisName" . -}}
{{- $data := dict -}}
{{- if .Values.redis.bundled.enabled -}}
{{- $password := include "carillon.generated" (dict "root" . "name" $name "key" "password") -}}
{{- $_ := set $data "password" $password -}}
{{- $_ := set $data "auth.conf" (printf "requirepass %s\n" $password) -}}
{{- $_ := set $data "url" (printf "redis://:%s@%s:6379/0" $password $name) -}}
{{- else if and .Values.redis.url (not .Values.redis.passwordSecret.name) -}}
{{- $_ := set $data "url" .Values.redis.url -}}
{{- end -}}
{{- toJson $data -}}
{{- end -}}
