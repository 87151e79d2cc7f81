"""Checks of the alerts that promtool does not make: texts, a section in the operator's page, and tests of both outcomes.

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
    fires = {moment["alertname"] for moment in moments if moment["exp_alerts"]}
    does_not_fire = {moment["alertname"] for moment in moments if not moment["exp_alerts"]}
    headings = None
    if os.path.exists(page):
        with open(page) as file:
            # Anchors follow GitHub: lower case, hyphens for spaces, only letters, digits, hyphens and underscores.
            titles = re.findall(r"^#+ +(.*)$", file.read(), re.MULTILINE)
            headings = {re.sub(r"[^\w-]", "", title.strip().lower().replace(" ", "-")) for title in titles}
    mistakes = []
    names = [rule["alert"] for rule in rules]
    if len(names) != len(set(names)):
        mistakes.append("two alerts have the same name")
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
            mistakes.append(f"{name} has none of the severities {sorted(SEVERITIES)}")
        if name not in fires:
            mistakes.append(f"no test expects {name} to fire")
        if name not in does_not_fire:
            mistakes.append(f"no test expects {name} not to fire")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    print(f"{len(rules)} alerts, {len(moments)} moments tested")
    if mistakes:
        return 1
    return 0 if headings is not None else 3


sys.exit(main(*sys.argv[1:]))
