{{/*
nginx in front of both roles. The files are those of deploy/nginx, but for the ones that say where things are.
*/}}

{{/* All files, as JSON by path under /etc/nginx. */}}
{{- define "carillon.nginx.files" -}}
{{- $nginx := .Values.nginx -}}
{{- $files := dict -}}
{{- range $path, $_ := .Files.Glob "files/nginx/**.conf" -}}
{{- $_ := set $files (trimPrefix "files/nginx/" $path) ($.Files.Get $path) -}}
{{- end -}}

{{- $main := get $files "nginx.conf" -}}
{{- /* Without a number there is one for each core of the machine, each with memory for all of its connections. */ -}}
{{- $main = include "carillon.nginx.change" (list $main "worker_processes auto;" (printf "worker_processes %v;" $nginx.workers)) -}}
{{- $main = include "carillon.nginx.change" (list $main "worker_shutdown_timeout 10m;" (printf "worker_shutdown_timeout %vs;" $nginx.shutdownTimeoutSeconds)) -}}
{{- $_ := set $files "nginx.conf" $main -}}

{{- with .Values.config.server.path_prefix -}}
{{- $routes := get $files "carillon/routes.conf" -}}
{{- $_ := set $files "carillon/routes.conf" (include "carillon.nginx.change" (list $routes "location ^~ /" (printf "location ^~ %s/" .))) -}}
{{- end -}}

{{- $_ := set $files "carillon/upstreams.conf" (include "carillon.nginx.upstreams" .) -}}
{{- $_ := set $files "carillon/listen.conf" (include "carillon.nginx.listen" .) -}}
{{- $_ := set $files "carillon/listen-plain.conf" (include "carillon.nginx.listenPlain" .) -}}
{{- $_ := set $files "conf.d/probes.conf" (include "carillon.nginx.probes" .) -}}
{{- $_ := set $files "carillon/real-ip.conf" (include "carillon.nginx.realIp" .) -}}
{{- toJson $files -}}
{{- end -}}

{{/* Replaces what must be there, so that a change of the files cannot go unnoticed. Takes text, old and new. */}}
{{- define "carillon.nginx.change" -}}
{{- if not (contains (index . 1) (index . 0)) -}}
{{- fail (printf "files/nginx: expected to find %q, which this chart replaces" (index . 1)) -}}
{{- end -}}
{{- index . 0 | replace (index . 1) (index . 2) -}}
{{- end -}}

{{/* The names are of headless Services, which stand for the pods that are ready, and are looked up again and again. */}}
{{- define "carillon.nginx.upstreams" -}}
{{- $domain := printf "%s.svc.%s" .Release.Namespace .Values.nginx.clusterDomain -}}
{{- $gateways := printf "%s-gateway-pods.%s:8080" (include "carillon.fullname" .) $domain -}}
{{- $publishers := printf "%s-publisher-pods.%s:8081" (include "carillon.fullname" .) $domain -}}
resolver {{ .Values.nginx.resolver }} valid=5s;
resolver_timeout 2s;

# WebSockets last: after a restart turn-taking would leave the gateway that came back empty for hours.
upstream carillon_gateways {
    zone carillon_gateways 256k;
    least_conn;
    server {{ $gateways }} resolve max_fails=3 fail_timeout=5s;
}

# The same pods for the fallback transports, where the session decides.
upstream carillon_gateways_by_session {
    zone carillon_gateways_by_session 256k;
    hash $carillon_session consistent;
    server {{ $gateways }} resolve max_fails=3 fail_timeout=5s;
    keepalive 64;
    keepalive_timeout 60s;
}

upstream carillon_publishers {
    zone carillon_publishers 256k;
    server {{ $publishers }} resolve max_fails=3 fail_timeout=5s;
    keepalive 256;
    keepalive_requests 100000;
    keepalive_timeout 60s;
}
{{ end -}}

{{/* An address to listen on, of the family that the cluster speaks. Takes root and port. */}}
{{- define "carillon.nginx.address" -}}
{{- if contains ":" .root.Values.listenAddress }}[::]:{{ .port }} ipv6only=off{{ else }}{{ .port }}{{ end -}}
{{- end -}}

{{- define "carillon.nginx.listen" -}}
{{- $proxied := ternary " proxy_protocol" "" .Values.nginx.proxyProtocol -}}
{{- if .Values.nginx.tlsSecret -}}
listen {{ include "carillon.nginx.address" (dict "root" . "port" 8443) }} ssl{{ $proxied }} backlog=65535;

include carillon/tls.conf;
{{ else -}}
listen {{ include "carillon.nginx.address" (dict "root" . "port" 8080) }}{{ $proxied }} backlog=65535;
{{ end -}}
{{- end -}}

{{/* What leads from plain HTTP to TLS: without TLS there is nothing to lead to, and nobody reaches it. */}}
{{- define "carillon.nginx.listenPlain" -}}
{{- if .Values.nginx.tlsSecret -}}
listen {{ include "carillon.nginx.address" (dict "root" . "port" 8080) }}{{ ternary " proxy_protocol" "" .Values.nginx.proxyProtocol }};
{{ else -}}
listen 127.0.0.1:8088;
{{ end -}}
{{- end -}}

{{- define "carillon.nginx.probes" -}}
# For the kubelet, which asks from outside the pod.
server {
    listen {{ include "carillon.nginx.address" (dict "root" . "port" 8090) }};
    access_log off;

    location = /healthz {
        return 204;
    }

    location / {
        return 404;
    }
}
{{ end -}}

{{- define "carillon.nginx.realIp" -}}
# Whose request it is. Whoever is named here may claim to be anyone.
{{- range .Values.nginx.trustedProxies }}
set_real_ip_from {{ . }};
{{- end }}
{{- if .Values.nginx.trustedProxies }}
real_ip_header {{ ternary "proxy_protocol" "X-Forwarded-For" .Values.nginx.proxyProtocol }};
{{- if not .Values.nginx.proxyProtocol }}
real_ip_recursive on;
{{- end }}
{{- end }}
{{ end -}}
