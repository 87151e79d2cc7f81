{{/* Carillon's configuration. It contains no secrets: secrets of apps are files, the URL of Redis is a variable. */}}

{{/* A value as TOML. JSON numbers, booleans and strings are valid TOML; JSON objects are not. */}}
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

{{/* The pairs of a table, one per line. */}}
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

# The app for `helm test`. It has no webhooks, so tests send no requests to applications. It has the secret of the first app.
[[apps]]
id = {{ include "carillon.testApp" . | toJson }}
key = {{ include "carillon.testApp" . | toJson }}
secret_file = {{ printf "/run/carillon/apps/%s" (index .Values.apps 0).id | toJson }}
client_events = false
limits = { connections = 10 }
{{- end }}
{{ end -}}

{{/* Id and key of the app for `helm test`. */}}
{{- define "carillon.testApp" -}}carillon-helm-test{{- end -}}

{{/* The default prefix of Redis keys. It keeps releases that share a Redis separate. */}}
{{- define "carillon.redisPrefix" -}}
{{- printf "%s-%s" .Release.Namespace (include "carillon.fullname" .) -}}
{{- end -}}

{{/* An app's settings as JSON, with file paths instead of Secrets. */}}
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

{{/* Path of a webhook header's value, next to the secrets of apps. Ids of apps cannot start with `_`. Takes id, index and header. */}}
{{- define "carillon.headerFile" -}}
{{- printf "_webhooks/%s/%d/%s" .id (int .index) .header -}}
{{- end -}}

{{/* "yes" if the configuration must be a Secret, else empty. Headers and URLs of webhooks may contain credentials. */}}
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

{{/* Port of an external Redis. */}}
{{- define "carillon.redisPort" -}}
{{- if .Values.redis.url -}}
{{- $place := regexReplaceAll "^rediss?://(.*@)?" .Values.redis.url "" -}}
{{- regexFind ":[0-9]+$" (regexReplaceAll "[/?].*$" $place "") | trimPrefix ":" | default "6379" -}}
{{- else -}}
{{- .Values.networkPolicy.redis.port -}}
{{- end -}}
{{- end -}}

{{/* Routes by path for Ingress and HTTPRoute. */}}
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
