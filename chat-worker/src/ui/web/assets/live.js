// The badges and what was used today, as they change, and whether the server is there. Quiet while nobody looks: a browser
// has six connections to a server for all of its tabs.
import { $, node, status } from './dom.js';
import { Problem, live, pause } from './stream.js';
import { detail, inWords, kind } from './words.js';

let known = new Map();
let here = true;

function badge(server) {
  const text = server.state === 'up' ? '' : `: ${inWords(server)}`;
  const name = node('bdi', { textContent: server.name });
  const hidden = server.state === 'up' ? node('span', { className: 'unseen', textContent: ': up' }) : '';
  return node('li', { className: kind(server), title: detail(server) }, name, text, hidden);
}

function line(server) {
  const head = node('p', { className: kind(server) }, node('bdi', { textContent: server.name }), `: ${inWords(server)}`);
  const lines = [server.description, detail(server)].filter(Boolean).map((text) => node('p', { className: 'detail', textContent: text, dir: 'auto' }));
  return node('li', {}, head, ...lines);
}

function showServers({ servers, model }) {
  const up = servers.filter((server) => server.state === 'up').length;
  const bad = servers.filter((server) => server.degraded);
  const order = [...bad, ...servers.filter((server) => !server.degraded)];
  $('servers').replaceChildren(...order.map(badge));
  $('server-list').replaceChildren(...order.map(line));
  $('server-count').textContent = `${up}/${servers.length}`;
  $('servers-button').classList.toggle('down', bad.length > 0);
  $('model').textContent = model;
  // Only what changes is said aloud.
  const changed = servers.filter((server) => known.has(server.name) && known.get(server.name) !== kind(server));
  if (changed.length) $('announce').textContent = changed.map((server) => `${server.name}: ${inWords(server)}`).join(', ');
  known = new Map(servers.map((server) => [server.name, kind(server)]));
}

function showUsage({ today }) {
  const { usage } = today;
  const tokens = Object.values(usage).reduce((sum, count) => sum + count, 0);
  const parts = [`${tokens.toLocaleString()} tokens`];
  if (today.cost > 0) parts.push(`$${today.cost.toFixed(4)}`);
  if (today.unpriced) parts.push(`${today.unpriced} answers of unknown price`);
  if (today.budget_percent !== null) parts.push(`${today.budget_percent} % of the day's budget`);
  $('today').textContent = `Today on this server: ${parts.join(' · ')}`;
}

export const isHere = () => here;

function connection(text) {
  here = text === '';
  $('connection').textContent = text;
  $('connection').hidden = here;
  document.body.classList.toggle('away', !here);
}

// Follows until the token is no longer good.
export async function follow() {
  let wait = 0;
  for (;;) {
    if (document.hidden) await new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
    if (document.hidden) continue;
    const looking = new AbortController();
    const leave = () => { if (document.hidden) looking.abort(); };
    document.addEventListener('visibilitychange', leave);
    try {
      for await (const [name, data] of await live(looking.signal)) {
        if (!here) { connection(''); status('Connected again.'); }
        wait = 0;
        if (name === 'servers') showServers(data);
        else if (name === 'usage') showUsage(data);
        else if (name === 'signed_out') return location.reload();
        else if (name === 'draining') connection('This server is being restarted. Connecting again…');
      }
      wait ||= 0.5;
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return location.reload();
      if (!looking.signal.aborted) {
        const restarting = error instanceof Problem && error.status === 503;
        connection(restarting ? 'This server is being restarted. Connecting again…' : 'The server cannot be reached. Trying again…');
        wait = Math.min(10, Math.max(1, (error.wait ?? 0), wait * 1.5));
      }
    } finally {
      document.removeEventListener('visibilitychange', leave);
    }
    if (!looking.signal.aborted) await pause(wait);
  }
}
