"""What promtool does not ask of alerts: texts, a place in the operator's page, and tests of both outcomes.

    alerts.py ALERTS.yml TESTS.yml OPERATIONS.md
"""

import os
import re
import sys

import yaml

PAGE = "docs/OPERATIONS.md"
SEVERITIES = {"critical", "warning"}


def main(alerts, tests, page):
    with open(alerts) as file:
        rules = [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
    with open(tests) as file:
        moments = [moment for test in yaml.safe_load(file)["tests"] for moment in test["alert_rule_test"]]
    speaks = {moment["alertname"] for moment in moments if moment["exp_alerts"]}
    silent = {moment["alertname"] for moment in moments if not moment["exp_alerts"]}
    headings = None
    if os.path.exists(page):
        with open(page) as file:
            # As a forge makes anchors: lower case, spaces as hyphens, nothing but letters, digits, hyphens and underscores.
            titles = re.findall(r"^#+ +(.*)$", file.read(), re.MULTILINE)
            headings = {re.sub(r"[^\w-]", "", title.strip().lower().replace(" ", "-")) for title in titles}
    mistakes = []
    names = [rule["alert"] for rule in rules]
    if len(names) != len(set(names)):
        mistakes.append("two alerts have one name")
    for rule in rules:
        name, annotations = rule["alert"], rule.get("annotations", {})
        for text in ("summary", "description"):
            if not annotations.get(text):
                mistakes.append(f"{name} has no {text}")
        anchor = name.lower()
        if annotations.get("runbook") != f"{PAGE}#{anchor}":
            mistakes.append(f"{name}: the annotation runbook must be {PAGE}#{anchor}")
        if not annotations.get("runbook_url", "https://").startswith("https://"):
            mistakes.append(f"{name}: runbook_url is not a URL")
        if headings is not None and anchor not in headings:
            mistakes.append(f"{PAGE} has no section on {name}")
        if rule.get("labels", {}).get("severity") not in SEVERITIES:
            mistakes.append(f"{name} has no severity of {sorted(SEVERITIES)}")
        if name not in speaks:
            mistakes.append(f"no test expects {name} to speak")
        if name not in silent:
            mistakes.append(f"no test expects {name} to be silent")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    print(f"{len(rules)} alerts, {len(moments)} moments tested")
    if mistakes:
        return 1
    return 0 if headings is not None else 3


sys.exit(main(*sys.argv[1:]))
