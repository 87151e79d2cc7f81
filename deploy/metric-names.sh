#!/bin/sh
# Prints the names of all metrics of Carillon and of its process that rules and the dashboard use, one per line. A running node
# must expose all of them.
# Texts are searched too, so that no description mentions a metric that does not exist. The suffixes _bucket, _sum and _count of
# histograms are removed. Names with a colon are recording rules and are skipped.
set -eu
cd "$(dirname "$0")"

cat prometheus/rules/*.yml grafana/dashboards/*.json |
    grep -oE '[a-zA-Z_:][a-zA-Z0-9_:]*' |
    grep -E '^(carillon|process)_' |
    grep -v ':' |
    sed -E 's/_(bucket|sum|count)$//' |
    sort -u
