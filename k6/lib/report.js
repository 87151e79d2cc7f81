// A page with the result of a run: verdict, thresholds and times.

const STYLE = `
  :root { color-scheme: light dark; --ink: #1d2430; --quiet: #667085; --paper: #fff; --card: #f6f7f9; --line: #d9dde5;
          --good: #177245; --bad: #b3261e; --bar: #3b6fb6; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e7eaf0; --quiet: #98a2b3; --paper: #14171c; --card: #1d2129; --line: #333a45; --good: #5fc08f; --bad: #ff8a80; --bar: #7fa9e0; }
  }
  * { box-sizing: border-box; }
  body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 64rem; background: var(--paper); color: var(--ink);
         font: 15px/1.5 system-ui, sans-serif; }
  h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 2.2rem 0 .6rem; font-size: 1.05rem; }
  .verdict { display: inline-block; margin-left: .6rem; padding: .1rem .6rem; border-radius: 1rem; color: var(--paper); font-size: 1rem; vertical-align: middle; }
  .good { background: var(--good); } .bad { background: var(--bad); }
  p.facts { color: var(--quiet); margin: .4rem 0 0; }
  .scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
  th, td { padding: .3rem .7rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
  th { color: var(--quiet); font-weight: 500; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
  code { font: 13px ui-monospace, monospace; } td.ok { color: var(--good); } td.no { color: var(--bad); font-weight: 600; }
  td.range { width: 30%; min-width: 10rem; } svg { display: block; width: 100%; height: 14px; }
`;

const escape = (text) => `${text}`.replace(/[&<>"]/g, (character) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[character]);
const row = (cells) => `<tr>${cells.join('')}</tr>`;
const cell = (text, kind = '') => `<td class="${kind}">${escape(text)}</td>`;
const name = (text) => `<td><code>${escape(text)}</code></td>`;
const number = (value) => cell(value === undefined ? '' : grouped(value), 'n');

/** Adds a comma after each three digits. k6 has no locales. */
function grouped(value) {
  const [whole, fraction] = `${value}`.split('.');
  const digits = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return fraction === undefined ? digits : `${digits}.${fraction}`;
}

function table(heads, rows) {
  const head = heads.map((text) => `<th class="${text.startsWith('#') ? 'n' : ''}">${escape(text.replace(/^#/, ''))}</th>`);
  return `<div class="scroll"><table><thead>${row(head)}</thead><tbody>${rows.join('')}</tbody></table></div>`;
}

/** Draws times on a logarithmic scale that all rows share: a line from minimum to maximum, a block from median to p95. */
function range({ min, med, 'p(95)': p95, 'p(99)': p99, max }, most) {
  const x = (value) => (Math.log10(1 + Math.max(0, value) * 10) / Math.log10(1 + most * 10)) * 100;
  const block = `<rect x="${x(med)}" y="3" width="${Math.max(0.6, x(p95) - x(med))}" height="8" fill="var(--bar)"/>`;
  const line = `<path d="M${x(min)} 7H${x(max)}M${x(p99)} 1V13" stroke="var(--bar)" stroke-width="1" vector-effect="non-scaling-stroke"/>`;
  return `<td class="range"><svg viewBox="0 0 100 14" preserveAspectRatio="none" role="img" aria-label="from ${min} to ${max} ms">${line}${block}</svg></td>`;
}

function times(metrics) {
  const most = Math.max(1, ...metrics.map(([, { values }]) => values.max));
  const rows = metrics.map(([key, { values }]) =>
    row([name(key), ...['count', 'min', 'med', 'p(95)', 'p(99)', 'max'].map((stat) => number(values[stat])), range(values, most)]),
  );
  return table(['metric', '#count', '#min', '#median', '#p95', '#p99', '#max', 'minimum to maximum, median to p95, p99 (log)'], rows);
}

/** Returns the page. `result`: the content of the JSON file. */
export function report(result) {
  const metrics = Object.entries(result.metrics);
  const trends = metrics.filter(([, { type, values }]) => type === 'trend' && values.count > 0);
  const isOurs = ([key]) => key.startsWith('carillon_');
  const counters = metrics.filter(([, { type, values }]) => type === 'counter' && values.count > 0);
  const verdict = `<span class="verdict ${result.passed ? 'good' : 'bad'}">${result.passed ? 'passed' : 'failed'}</span>`;
  const size = Object.entries(result.size).map(([key, value]) => `${key} ${value}`);
  const target = [...result.target.gateways, ...result.target.publishers].join(', ');
  const thresholds = result.thresholds.map(({ metric, expression, value, ok }) =>
    row([name(metric), name(expression), number(value), cell(ok ? 'passed' : 'crossed', ok ? 'ok' : 'no')]),
  );
  const checks = result.checks.map(({ name: text, passes, fails }) =>
    row([cell(text), number(passes), number(fails), cell(fails === 0 ? 'passed' : 'failed', fails === 0 ? 'ok' : 'no')]),
  );
  const title = `${escape(result.scenario)} · ${escape(result.profile)}`;
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}: ${result.passed ? 'passed' : 'failed'}</title><style>${STYLE}</style></head>
<body>
<h1>${title}${verdict}</h1>
<p class="facts">${escape(result.endedAt)} · ${result.seconds} s · app ${escape(result.target.app)} on ${escape(target)}<br>${escape(size.join(' · '))}</p>
<h2>Thresholds</h2>
${table(['metric', 'threshold', '#value', ''], thresholds)}
${checks.length === 0 ? '' : `<h2>Checks</h2>\n${table(['check', '#passed', '#failed', ''], checks)}`}
<h2>Times in milliseconds</h2>
${times(trends.filter(isOurs))}
<h2>Counts</h2>
${table(['metric', '#count', '#per second'], counters.filter(isOurs).map(([key, { values }]) => row([name(key), number(values.count), number(values.rate)])))}
<h2>Metrics of k6</h2>
${times(trends.filter((metric) => !isOurs(metric)))}
${table(['metric', '#count', '#per second'], counters.filter((metric) => !isOurs(metric)).map(([key, { values }]) => row([name(key), number(values.count), number(values.rate)])))}
</body>
</html>
`;
}
