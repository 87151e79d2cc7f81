"""Rewrites the tests of the alerts with the labels that the Prometheus operator adds.

The operator sets more labels on every series of a target than a plain scrape. If a metric has a label of the same name,
Prometheus renames it to `exported_…`. The rewritten tests contain both changes. They check which alerts fire, and with which
labels.

    operator.py TESTS.yml WRITTEN.yml
"""

import os
import re
import sys

import yaml

# Labels that a ServiceMonitor sets. The tests already have `namespace`, `job` and `instance`.
OF_THE_OPERATOR = {"container": "carillon", "endpoint": "admin", "pod": "", "service": "carillon-metrics"}
NAMESPACE = "broadcast"
SERIES = re.compile(r"^(?P<name>[a-z_:]+)\{(?P<labels>.*)\}$")
LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


def scraped(series):
    """Returns a series of the tests with the labels of the operator."""
    found = SERIES.match(series)
    labels = dict(LABEL.findall(found["labels"]))
    if "carillon" not in labels["job"]:
        return series
    target = OF_THE_OPERATOR | {"pod": labels["instance"].split(":")[0]}
    labels = {f"exported_{name}" if name in target else name: value for name, value in labels.items()}
    labels = {"namespace": NAMESPACE} | labels | target
    return found["name"] + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def firing(moment):
    """Returns the expectation of `moment` as a test of the `ALERTS` series."""
    alerts = moment["exp_alerts"]
    names = sorted({name for alert in alerts for name in alert["exp_labels"]} - {"severity"})
    selected = f'ALERTS{{alertstate="firing",alertname="{moment["alertname"]}"}}'
    samples = []
    for alert in alerts:
        labels = ",".join(f'{name}="{alert["exp_labels"][name]}"' for name in names if name in alert["exp_labels"])
        samples.append({"labels": "{" + labels + "}", "value": 1})
    return {
        "expr": f"count by ({', '.join(names)}) ({selected})",
        "eval_time": moment["eval_time"],
        "exp_samples": samples,
    }


def main(source, written):
    with open(source) as file:
        tests = yaml.safe_load(file)
    folder = os.path.dirname(os.path.abspath(source))
    tests["rule_files"] = [os.path.normpath(os.path.join(folder, path)) for path in tests["rule_files"]]
    count = 0
    for test in tests["tests"]:
        for series in test["input_series"]:
            series["series"] = scraped(series["series"])
        test["promql_expr_test"] = [firing(moment) for moment in test.pop("alert_rule_test")]
        count += len(test["promql_expr_test"])
    with open(written, "w") as file:
        yaml.safe_dump(tests, file, sort_keys=False)
    print(f"{count} moments, {sum(bool(one['exp_samples']) for test in tests['tests'] for one in test['promql_expr_test'])} firing")


main(*sys.argv[1:])
