// Validates manifests of kinds that are not part of Kubernetes. Reads a JSON list of manifests from standard input and prints one
// line per invalid manifest. Fails if a manifest is invalid or its kind is unknown.

import * as gateway from '@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1'
import * as monitoring from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1'

const models = {
  'gateway.networking.k8s.io/v1 HTTPRoute': gateway.HTTPRoute,
  'monitoring.coreos.com/v1 PrometheusRule': monitoring.PrometheusRule,
  'monitoring.coreos.com/v1 ServiceMonitor': monitoring.ServiceMonitor,
}

let text = ''
for await (const chunk of process.stdin) text += chunk

for (const manifest of JSON.parse(text)) {
  const kind = `${manifest.apiVersion} ${manifest.kind}`
  try {
    if (!models[kind]) throw new Error('no schema')
    new models[kind](manifest).validate()
  } catch (error) {
    console.log(`${kind} ${manifest.metadata.name}: ${error.message}`)
    process.exitCode = 1
  }
}
