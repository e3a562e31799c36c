// Open-loop load: requests leave at a constant rate whatever the answers do.
// Bodies are prepared ahead and the answers' few numbers are cut out of the text, so that the
// client stays cheap beside the server it measures. Reading an element of a SharedArray parses it
// anew, which took half of the client's time, so each virtual user keeps a few bodies of its own,
// read before the load begins: users that read them in their first requests held up all the others.
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import { SharedArray } from 'k6/data';

const config = JSON.parse(open(__ENV.DYNENS_LOAD));
const bodies = new SharedArray('bodies', () => JSON.parse(open(config.bodies)));
const statuses = [0, 200, 400, 401, 404, 413, 499, 500, 502, 503, 504];
const byStatus = {};
for (const status of statuses) byStatus[status] = new Counter(`status_${status}`);
const otherStatus = new Counter('status_other');
const duration = new Trend('duration', true);
const hardWanted = new Counter('hard_wanted');
const hardGranted = new Counter('hard_granted');
const degraded = new Counter('degraded');
const late = new Counter('late');

export const options = {
  scenarios: {
    load: {
      executor: 'constant-arrival-rate',
      rate: config.rate,
      timeUnit: config.time_unit,
      duration: `${config.warm_up_s + config.duration_s}s`,
      preAllocatedVUs: config.connections,
      maxVUs: config.connections,
    },
  },
  summaryTrendStats: ['avg', 'min', 'med', 'p(95)', 'p(99)', 'p(99.9)', 'max', 'count'],
  systemTags: ['status'],
  noUsageReport: true,
};

const ownBodies = [];
for (let own = 0; own < Math.min(config.bodies_per_user, bodies.length); own++) {
  ownBodies.push(bodies[(__VU * config.bodies_per_user + own) % bodies.length]);
}

const parameters = { headers: JSON.parse(__ENV.DYNENS_LOAD_HEADERS), timeout: '10s' };

function number(text, key) {
  const at = text.lastIndexOf(key);
  return at < 0 ? 0 : parseFloat(text.substring(at + key.length, at + key.length + 9));
}

export default function () {
  const answer = http.post(config.url, ownBodies[__ITER % ownBodies.length], parameters);
  // Connections are opened and the client's own code is compiled in the first moments.
  if (Date.now() - exec.scenario.startTime < 1000 * config.warm_up_s) return;
  duration.add(answer.timings.duration);
  (byStatus[answer.status] || otherStatus).add(1);
  if (answer.status !== 200 || !config.read_answers) return;
  const text = answer.body;
  const wanted = number(text, '"hard_wanted":');
  if (wanted > 0) {
    hardWanted.add(wanted);
    hardGranted.add(number(text, '"hard_granted":'));
  }
  if (text.lastIndexOf('"degraded":"') >= 0) degraded.add(1);
  if (answer.timings.duration > number(text, '"budget_ms":')) late.add(1);
}

export function handleSummary(data) {
  return { [config.summary]: JSON.stringify(data.metrics) };
}
