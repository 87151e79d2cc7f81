{{/* Carillon's configuration. Secrets are not in it: apps' are files, the URL of Redis is a variable. */}}

{{/* A value as TOML. JSON's numbers, booleans and strings are TOML's; its objects are not. */}}
{{- define "carillon.toml.value" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s = %s" (toJson $key) (include "carillon.toml.value" $value)) -}}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "carillon.toml.value" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* The pairs of a table, one a line. */}}
{{- define "carillon.toml.pairs" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ include "carillon.toml.value" $value }}
{{- end -}}
{{- end -}}

{{- define "carillon.toml" -}}
{{- $config := .Values.config -}}
[server]
host = {{ toJson .Values.listenAddress }}
{{- include "carillon.toml.pairs" $config.server }}

[admin]
host = {{ toJson .Values.listenAddress }}
port = 9090
{{- include "carillon.toml.pairs" ($config.admin | default dict) }}

[peers]
host = {{ toJson .Values.listenAddress }}
port = 8082
{{- include "carillon.toml.pairs" ($config.peers | default dict) }}
{{- if .Values.tls.existingSecret }}

[tls]
cert = "/run/carillon/tls/tls.crt"
key = "/run/carillon/tls/tls.key"
{{- end }}

[redis]
{{- include "carillon.toml.pairs" (merge (dict "prefix" ($config.redis.prefix | default (include "carillon.redisPrefix" .))) $config.redis) }}
{{- if .Values.redis.caSecret.name }}
ca_file = "/run/carillon/redis/ca.crt"
{{- end }}
{{- if .Values.redis.certSecret.name }}
cert_file = "/run/carillon/redis-client/tls.crt"
key_file = "/run/carillon/redis-client/tls.key"
{{- end }}

[drain]
{{- include "carillon.toml.pairs" $config.drain }}

[log]
{{- include "carillon.toml.pairs" $config.log }}
{{- $webhooks := $config.webhooks | default dict }}
{{- if .Values.webhooks.caSecret.name }}{{ $webhooks = merge (dict "ca_file" "/run/carillon/webhooks/ca.crt") $webhooks }}{{ end }}
{{- with $webhooks }}

[webhooks]
{{- include "carillon.toml.pairs" . }}
{{- end }}
{{- range .Values.apps }}

[[apps]]
id = {{ toJson .id }}
key = {{ toJson .key }}
secret_file = {{ printf "/run/carillon/apps/%s" .id | toJson }}
{{- include "carillon.toml.pairs" (include "carillon.appSettings" . | fromJson) }}
{{- end }}
{{- if .Values.tests.enabled }}

# For `helm test`: an app without webhooks, so that a test sends nothing to an application. Its secret is that of the first app.
[[apps]]
id = {{ include "carillon.testApp" . | toJson }}
key = {{ include "carillon.testApp" . | toJson }}
secret_file = {{ printf "/run/carillon/apps/%s" (index .Values.apps 0).id | toJson }}
client_events = false
limits = { connections = 10 }
{{- end }}
{{ end -}}

{{/* Id and key of the app that `helm test` uses. */}}
{{- define "carillon.testApp" -}}carillon-helm-test{{- end -}}

{{/* Two releases that share a Redis must not become one cluster by chance. */}}
{{- define "carillon.redisPrefix" -}}
{{- printf "%s-%s" .Release.Namespace (include "carillon.fullname" .) -}}
{{- end -}}

{{/* An app's settings with paths in the place of Secrets, as JSON. */}}
{{- define "carillon.appSettings" -}}
{{- $id := .id -}}
{{- $settings := deepCopy (.settings | default dict) -}}
{{- range $index, $webhook := $settings.webhooks | default list -}}
{{- range $header, $_ := $webhook.header_files | default dict -}}
{{- $path := include "carillon.headerFile" (dict "id" $id "index" $index "header" $header) -}}
{{- $_ := set $webhook.header_files $header (printf "/run/carillon/apps/%s" $path) -}}
{{- end -}}
{{- end -}}
{{- toJson $settings -}}
{{- end -}}

{{/* Where the value of a webhook's header is, beside the secrets of apps, whose ids begin otherwise. Takes id, index and header. */}}
{{- define "carillon.headerFile" -}}
{{- printf "_webhooks/%s/%d/%s" .id (int .index) .header -}}
{{- end -}}

{{/* Headers, and URLs too, of webhooks carry credentials: a configuration with webhooks is itself a Secret. Empty means no. */}}
{{- define "carillon.configIsSecret" -}}
{{- range .Values.apps -}}
{{- if (.settings | default dict).webhooks }}yes{{ end -}}
{{- end -}}
{{- end -}}

{{/* A duration with one unit, in milliseconds. */}}
{{- define "carillon.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .) | int64) -}}
{{- end -}}

{{/* Port of the Redis that is not bundled. */}}
{{- define "carillon.redisPort" -}}
{{- if .Values.redis.url -}}
{{- $place := regexReplaceAll "^rediss?://(.*@)?" .Values.redis.url "" -}}
{{- regexFind ":[0-9]+$" (regexReplaceAll "[/?].*$" $place "") | trimPrefix ":" | default "6379" -}}
{{- else -}}
{{- .Values.networkPolicy.redis.port -}}
{{- end -}}
{{- end -}}

{{/* Which paths go to which role, for Ingress and HTTPRoute. */}}
{{- define "carillon.routes" -}}
{{- $prefix := .Values.config.server.path_prefix | default "" -}}
{{- list
  (dict "path" (print $prefix "/app") "role" "gateway")
  (dict "path" (print $prefix "/pusher/app") "role" "gateway")
  (dict "path" (print $prefix "/apps") "role" "publisher")
  (dict "path" (print $prefix "/users") "role" "publisher")
  (dict "path" "/up" "role" "publisher")
  | toJson -}}
{{- end -}}
