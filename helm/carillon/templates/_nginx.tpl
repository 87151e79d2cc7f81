{{/*
nginx in front of both roles. The files come from deploy/nginx, except those with addresses.
*/}}

{{/* All files as JSON, by path under /etc/nginx. */}}
{{- define "carillon.nginx.files" -}}
{{- $nginx := .Values.nginx -}}
{{- $files := dict -}}
{{- range $path, $_ := .Files.Glob "files/nginx/**.conf" -}}
{{- $_ := set $files (trimPrefix "files/nginx/" $path) ($.Files.Get $path) -}}
{{- end -}}

{{- $main := get $files "nginx.conf" -}}
{{- /* By default nginx starts one worker per core of the machine, and each allocates memory for all of its connections. */ -}}
{{- $main = include "carillon.nginx.change" (list $main "worker_processes auto;" (printf "worker_processes %v;" $nginx.workers)) -}}
{{- $main = include "carillon.nginx.change" (list $main "worker_shutdown_timeout 10m;" (printf "worker_shutdown_timeout %vs;" (include "carillon.nginx.workerSeconds" .))) -}}
{{- $main = include "carillon.nginx.change" (list $main "worker_connections 65536;" (printf "worker_connections %d;" (int64 $nginx.workerConnections))) -}}
{{- $_ := set $files "nginx.conf" $main -}}

{{- $routes := get $files "carillon/routes.conf" -}}
{{- with .Values.config.server.path_prefix -}}
{{- $routes = include "carillon.nginx.change" (list $routes "location ^~ /" (printf "location ^~ %s/" .)) -}}
{{- end -}}
{{- if not (include "carillon.nginx.knowsClients" .) -}}
{{- range list "limit_conn carillon_sockets" "limit_req  zone=carillon_handshakes" "limit_req  zone=carillon_fallback" "limit_req zone=carillon_api" -}}
{{- $routes = include "carillon.nginx.change" (list $routes (printf "    %s " .) (printf "    # Disabled, because many clients may share one address: %s " .)) -}}
{{- end -}}
{{- if regexMatch "(?m)^ *limit_(conn|req) " $routes }}{{ fail "files/nginx: carillon/routes.conf has a limit by client address that this chart does not handle" }}{{ end -}}
{{- end -}}
{{- $_ := set $files "carillon/routes.conf" $routes -}}

{{- /* nginx reads a file at each handshake instead of at the start if its name contains a variable. A rotated certificate then needs
no reload, which would cut the WebSockets of the old workers. The cache reads a file again after a minute. */ -}}
{{- $tls := get $files "carillon/tls.conf" -}}
{{- $cached := "ssl_certificate_cache max=4 valid=60s;\nssl_certificate     $carillon_certificates/fullchain.pem;" -}}
{{- $tls = include "carillon.nginx.change" (list $tls "ssl_certificate     tls/fullchain.pem;" $cached) -}}
{{- $tls = include "carillon.nginx.change" (list $tls "ssl_certificate_key tls/privkey.pem;" "ssl_certificate_key $carillon_certificates/privkey.pem;") -}}
{{- $_ := set $files "carillon/tls.conf" $tls -}}
{{- if $nginx.tlsSecret -}}
{{- $_ := set $files "conf.d/certificates.conf" "map $ssl_server_name $carillon_certificates {\n    default tls;\n}\n" -}}
{{- end -}}

{{- $_ := set $files "carillon/upstreams.conf" (include "carillon.nginx.upstreams" .) -}}
{{- $_ := set $files "carillon/listen.conf" (include "carillon.nginx.listen" .) -}}
{{- $_ := set $files "carillon/listen-plain.conf" (include "carillon.nginx.listenPlain" .) -}}
{{- $_ := set $files "conf.d/probes.conf" (include "carillon.nginx.probes" .) -}}
{{- $_ := set $files "carillon/real-ip.conf" (include "carillon.nginx.realIp" .) -}}
{{- toJson $files -}}
{{- end -}}

{{/*
"yes" if nginx sees the addresses of clients, else empty. A trusted proxy sends them, or the Service keeps them. Otherwise all
connections come from an Ingress, a balancer or a node, and a limit by address would apply to all clients together.
*/}}
{{- define "carillon.nginx.knowsClients" -}}
{{- $nginx := .Values.nginx -}}
{{- $kept := and (ne $nginx.service.type "ClusterIP") (eq $nginx.service.externalTrafficPolicy "Local") (not $nginx.proxyProtocol) -}}
{{- if or $nginx.trustedProxies $kept }}yes{{ end -}}
{{- end -}}

{{/* Replaces text that must occur, so that rendering fails if the files change. Takes text, old and new. */}}
{{- define "carillon.nginx.change" -}}
{{- if not (contains (index . 1) (index . 0)) -}}
{{- fail (printf "files/nginx: expected %q, which this chart replaces" (index . 1)) -}}
{{- end -}}
{{- index . 0 | replace (index . 1) (index . 2) -}}
{{- end -}}

{{/*
Upstreams of the nodes. The file lists two gateways and a publisher on one machine. Here, the name of a headless Service resolves to
all ready pods of a role, and nginx resolves it repeatedly. Comments about the machine are removed.
*/}}
{{- define "carillon.nginx.upstreams" -}}
{{- $domain := printf "%s.svc.%s" .Release.Namespace .Values.nginx.clusterDomain -}}
{{- $name := include "carillon.fullname" . -}}
{{- $text := regexReplaceAll "(?m)^ *#.*\n" (.Files.Get "files/nginx/carillon/upstreams.conf") "" -}}
{{- $text = regexReplaceAll "(?m)^ *server 127\\.0\\.0\\.1:8082 .*\n" $text "" -}}
{{- $text = include "carillon.nginx.change" (list $text "server 127.0.0.1:8080 " (printf "server %s-gateway-pods.%s:8080 resolve " $name $domain)) -}}
{{- $text = include "carillon.nginx.change" (list $text "server 127.0.0.1:8081 " (printf "server %s-publisher-pods.%s:8081 resolve " $name $domain)) -}}
{{- if contains "127.0.0.1" $text }}{{ fail "files/nginx: expected two gateways, on 8080 and 8082, and a publisher on 8081 in carillon/upstreams.conf" }}{{ end -}}
resolver {{ .Values.nginx.resolver }} valid=5s;
resolver_timeout 2s;
{{ $text }}
{{- end -}}

{{/* A listen address of the cluster's IP family. Takes root and port. */}}
{{- define "carillon.nginx.address" -}}
{{- if contains ":" .root.Values.listenAddress }}[::]:{{ .port }} ipv6only=off{{ else }}{{ .port }}{{ end -}}
{{- end -}}

{{/* With `reuseport` the kernel spreads connections evenly over the workers, which shut down one after the other. */}}
{{- define "carillon.nginx.listen" -}}
{{- $proxied := ternary " proxy_protocol" "" .Values.nginx.proxyProtocol -}}
{{- if .Values.nginx.tlsSecret -}}
listen {{ include "carillon.nginx.address" (dict "root" . "port" 8443) }} ssl{{ $proxied }} backlog=65535 reuseport;

include carillon/tls.conf;
{{ else -}}
listen {{ include "carillon.nginx.address" (dict "root" . "port" 8080) }}{{ $proxied }} backlog=65535 reuseport;
{{ end -}}
{{- end -}}

{{/* The plain HTTP listener that redirects to TLS. Without TLS it only listens inside the pod. */}}
{{- define "carillon.nginx.listenPlain" -}}
{{- if .Values.nginx.tlsSecret -}}
listen {{ include "carillon.nginx.address" (dict "root" . "port" 8080) }}{{ ternary " proxy_protocol" "" .Values.nginx.proxyProtocol }};
{{ else -}}
listen 127.0.0.1:8088;
{{ end -}}
{{- end -}}

{{- define "carillon.nginx.probes" -}}
# For probes of the kubelet, which come from outside the pod.
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
# The client's address. The listed networks may claim any client address.
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
