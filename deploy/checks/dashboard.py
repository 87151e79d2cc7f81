"""Checks the dashboard file for mistakes that Grafana would only show as an empty panel.

Writes every expression, with variables filled in, as a file of recording rules. promtool then parses that file.

    dashboard.py DASHBOARD.json RULES.json
"""

import json
import re
import sys

# Values of the same kind for the variables that Grafana fills in.
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": ".*", "$job": ".*", "$instance": ".*"}
# The matchers that separate two clusters under one Prometheus. Every metric selector has them.
CLUSTER = ('namespace=~"$namespace', 'job=~"$job')
# Labels that the Prometheus operator sets on a target. No metric of Carillon may have them.
OF_THE_OPERATOR = r"\b(container|endpoint|pod|service)\b"
ROWS = ["Overview", "Gateway", "Delivery latency", "Redis", "Presence", "Publisher", "Webhooks", "Processes"]


def main(source, rules_file):
    with open(source) as file:
        dashboard = json.load(file)
    panels = dashboard["panels"]
    mistakes = []

    def expect(holds, complaint):
        if not holds:
            mistakes.append(complaint)

    expect(dashboard.get("uid"), "the dashboard has no uid")
    expect(dashboard.get("id") is None, "the dashboard has an id; Grafana assigns it")
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    expect("datasource" in declared, "no variable chooses the data source")
    ids = [panel["id"] for panel in panels]
    expect(len(ids) == len(set(ids)), "ids are not unique")
    titles = [panel["title"] for panel in panels if panel["type"] == "row"]
    expect(titles == ROWS, f"rows are {titles}")
    taken = {}
    rules = []
    for panel in panels:
        name = f"{panel['id']} {panel['title']!r}"
        position = panel["gridPos"]
        expect(position["x"] + position["w"] <= 24, f"{name} is wider than the page")
        for x in range(position["x"], position["x"] + position["w"]):
            for y in range(position["y"], position["y"] + position["h"]):
                expect((x, y) not in taken, f"{name} overlaps {taken.get((x, y))}")
                taken[x, y] = name
        if panel["type"] == "row":
            continue
        expect(panel.get("description"), f"{name} has no description")
        expect(panel["fieldConfig"]["defaults"].get("unit"), f"{name} has no unit")
        expect(panel["targets"], f"{name} has no target")
        marks = [target["refId"] for target in panel["targets"]]
        expect(len(marks) == len(set(marks)), f"{name} has two targets with the same refId")
        for target in panel["targets"]:
            for owner in (panel, target):
                expect(owner["datasource"]["uid"] == "${datasource}", f"{name} does not use the data source variable")
            rules.append((f"{panel['id']}_{target['refId']}", target["expr"]))
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            rules.append((f"annotation_{annotation['name'].lower()}", annotation["expr"]))

    out = []
    for name, expression in rules:
        expect(expression.strip(), f"{name} has an empty expression")
        # metric-names.sh reads whole words and would not find one after an escaped line break.
        expect("\n" not in expression, f"{name} is more than one line")
        selectors = re.findall(r"\b(?:carillon|process|ALERTS)[a-z_]*(\{[^}]*\})?", expression)
        expect(selectors, f"{name} selects no metric")
        for selector in selectors:
            expect(all(part in selector for part in CLUSTER), f"{name} mixes clusters: {selector or expression}")
        expect(not re.search(OF_THE_OPERATOR, expression), f"{name} uses a label of the target: {expression}")
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        expect("$" not in expression, f"{name} uses an unknown variable: {expression}")
        out.append({"record": f"dashboard:{name}", "expr": expression})
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps([panel for panel in panels])))
    expect(used <= declared, f"not declared: {used - declared}")
    with open(rules_file, "w") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": out}]}, file)
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    print(f"{len(panels)} panels, {len(out)} expressions")
    return 1 if mistakes else 0


sys.exit(main(*sys.argv[1:]))
