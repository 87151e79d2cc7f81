#!/bin/sh
# Prints every metric of Carillon's and of its process that rules and dashboards use, one name per line: what a running node
# must have.
# Texts count too, so that no description names a metric which is gone. A histogram's _bucket, _sum and _count are its parts.
# Names with a colon are recording rules, made from others.
set -eu
cd "$(dirname "$0")"

cat prometheus/rules/*.yml grafana/dashboards/*.json |
    grep -oE '[a-zA-Z_:][a-zA-Z0-9_:]*' |
    grep -E '^(carillon|process)_' |
    grep -v ':' |
    sed -E 's/_(bucket|sum|count)$//' |
    sort -u
