// The results of a run: a text for the terminal, and JSON and HTML files named after scenario and profile. They are written to the
// folder `RESULTS`, which must exist, or to the current folder. The HTML page is self-contained.

import { report } from './report.js';
import { current } from './plan.js';
import { APP, GATEWAYS, PUBLISHERS } from './target.js';

const round = (value) => Math.round(value * 100) / 100;

export function handleSummary(data) {
  const result = digest(data);
  const file = `${__ENV.RESULTS || '.'}/${result.scenario}-${result.profile}`;
  return {
    stdout: text(result),
    [`${file}.json`]: `${JSON.stringify(result, null, 2)}\n`,
    [`${file}.html`]: report(result),
  };
}

/** Converts k6's numbers to the form of the JSON file. */
function digest(data) {
  const metrics = {};
  const thresholds = [];
  for (const [name, metric] of Object.entries(data.metrics).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const values = Object.fromEntries(Object.entries(metric.values).map(([key, value]) => [key, round(value)]));
    metrics[name] = { type: metric.type, contains: metric.contains, values };
    for (const [expression, { ok }] of Object.entries(metric.thresholds || {})) {
      const key = Object.keys(values).find((candidate) => expression.startsWith(candidate));
      thresholds.push({ metric: name, expression, value: values[key], ok });
    }
  }
  // Crossed thresholds are listed first.
  thresholds.sort((a, b) => a.ok - b.ok);
  return {
    ...current,
    passed: thresholds.every(({ ok }) => ok),
    endedAt: new Date().toISOString(),
    seconds: round(data.state.testRunDurationMs / 1000),
    target: { gateways: GATEWAYS, publishers: PUBLISHERS, app: APP.id },
    checks: checks(data.root_group),
    thresholds,
    metrics,
  };
}

function checks(group) {
  const own = group.checks.map(({ name, passes, fails }) => ({ name, passes, fails }));
  return group.groups.reduce((all, inner) => all.concat(checks(inner)), own);
}

function text(result) {
  const lines = [`\n${result.scenario} (${result.profile}): ${result.passed ? 'passed' : 'FAILED'} in ${result.seconds} s`];
  for (const { metric, expression, value, ok } of result.thresholds) {
    lines.push(`  ${ok ? 'ok    ' : 'FAILED'}  ${metric.padEnd(30)} ${expression.padEnd(12)} ${value}`);
  }
  for (const { name, passes, fails } of result.checks) {
    lines.push(`  ${fails === 0 ? 'ok    ' : 'FAILED'}  ${name}: ${passes} of ${passes + fails}`);
  }
  for (const [name, { type, values }] of Object.entries(result.metrics)) {
    if (type !== 'trend' || !name.startsWith('carillon_') || values.count === 0) continue;
    const [median, p95, p99, max] = ['med', 'p(95)', 'p(99)', 'max'].map((key) => `${values[key]}`.padStart(8));
    lines.push(`  ${name.padEnd(28)} ${`${values.count}`.padStart(8)} times; ms: median ${median}  p95 ${p95}  p99 ${p99}  max ${max}`);
  }
  return `${lines.join('\n')}\n\n`;
}
