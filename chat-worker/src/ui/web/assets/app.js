// The page. The conversation lives here, in the browser: each question carries it along, so any replica can answer.
import { markdown } from './markdown.js';

const $ = (id) => document.getElementById(id);
const log = $('log');
const message = $('message');
const KEY = 'mcpfleet-chat';

const empty = () => ({ messages: [], always: [], model: '', tokens: 0, cost: 0, unpriced: false });
let state = restore();
let running = null;

function restore() {
  try {
    return { ...empty(), ...JSON.parse(localStorage.getItem(KEY) || '{}') };
  } catch {
    return empty();
  }
}

function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    status('The conversation is too long to be kept in this browser.');
  }
}

function node(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function status(text, working = false) {
  $('status').textContent = text;
  $('status').classList.toggle('working', working);
}

function button(text, act, name = '') {
  const made = node('button', { type: 'button', textContent: text, className: name });
  made.addEventListener('click', act);
  return made;
}

// New content keeps the reader at the end only if that is where they are.
function add(element) {
  const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(element);
  if (follow) log.scrollTop = log.scrollHeight;
  return element;
}

function showUser(text, index) {
  const box = node('div', { className: 'user' });
  box.append(text);
  const row = node('div', { className: 'row' });
  row.append(button('Edit', () => edit(index)));
  add(box);
  add(row);
}

function answerBox() {
  const box = add(node('div', { className: 'answer' }));
  let text = '';
  let due = false;
  const draw = () => {
    due = false;
    const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    box.replaceChildren(markdown(text));
    if (follow) log.scrollTop = log.scrollHeight;
  };
  return {
    push(piece) {
      text += piece;
      if (!due) {
        due = true;
        requestAnimationFrame(draw);
      }
    },
    set(whole) {
      text = whole;
      draw();
    },
    done() {
      if (text.trim() === '') return box.remove();
      draw();
      const row = node('div', { className: 'row' });
      const copy = button('Copy', async () => {
        // Browsers offer the clipboard to secure origins only: over plain HTTP there is none.
        const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
        copy.textContent = copied ? 'Copied' : 'Not allowed here';
        setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
      });
      row.append(copy);
      box.append(row);
    },
  };
}

function toolCard(call) {
  const state = node('span', { className: 'state', textContent: call.needs_approval ? 'waits for you' : 'waiting' });
  const title = call.tool ? `${call.server} · ${call.tool}` : call.name.replace('__', ' · ');
  const card = node('details', { className: 'tool' });
  card.append(node('summary', {}, title, ' ', state), node('pre', { tabIndex: 0, textContent: JSON.stringify(call.input, null, 2) }));
  add(card);
  let timer = null;
  return {
    call,
    start() {
      const began = Date.now();
      const tick = () => { state.textContent = `running, ${Math.round((Date.now() - began) / 1000)} s`; };
      tick();
      timer = setInterval(tick, 1000);
    },
    end(result) {
      clearInterval(timer);
      card.classList.add(result.is_error ? 'failed' : 'ok');
      const time = result.duration_ms === undefined ? '' : `, ${result.duration_ms} ms`;
      state.textContent = (result.is_error ? 'failed' : 'done') + time;
      card.append(node('pre', { tabIndex: 0, textContent: result.text }));
    },
    drop() {
      clearInterval(timer);
      if (!card.classList.contains('ok') && !card.classList.contains('failed')) state.textContent = 'not run';
    },
  };
}

// Shows a conversation that is already known.
function showAll() {
  log.replaceChildren();
  const cards = new Map();
  state.messages.forEach((entry, index) => {
    for (const block of entry.content) {
      if (block.type === 'text' && entry.role === 'user') showUser(block.text, index);
      else if (block.type === 'text') {
        const box = answerBox();
        box.set(block.text);
        box.done();
      } else if (block.type === 'tool_use') cards.set(block.id, toolCard({ ...block, needs_approval: false }));
      else if (block.type === 'tool_result') {
        cards.get(block.tool_use_id)?.end({ is_error: block.is_error, text: (block.content || []).map((part) => part.text).join('\n') });
      }
    }
  });
  cards.forEach((card) => card.drop());
  showUsage();
}

function showUsage() {
  const cost = state.unpriced ? 'cost unknown' : `$${state.cost.toFixed(4)}`;
  $('usage').textContent = state.tokens ? [state.model, `${state.tokens.toLocaleString()} tokens`, cost].filter(Boolean).join(' · ') : '';
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value.replaceAll('\r\n', '\n');
    let end;
    while ((end = buffer.indexOf('\n\n')) >= 0) {
      const data = buffer.slice(0, end).split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim());
      buffer = buffer.slice(end + 2);
      if (data.length) yield JSON.parse(data.join('\n'));
    }
  }
}

function busy(now) {
  $('send').hidden = now;
  $('stop').hidden = !now;
  log.setAttribute('aria-busy', String(now));
}

function failed(text, again) {
  const box = node('div', { className: 'error' });
  box.append(text, ' ', button('Retry', () => { box.remove(); again(); }));
  add(box);
  status('The answer failed.');
}

// One turn: `extra` is what is asked, or what was decided.
async function turn(extra) {
  const conversation = state;
  running = new AbortController();
  busy(true);
  status('Waiting for the answer', true);
  const cards = new Map();
  let box = null;
  let said = '';
  let ended = false;
  try {
    const response = await fetch('/v1/chat', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ messages: state.messages, always: state.always, ...extra }),
      signal: running.signal,
    });
    if (response.status === 401) return location.reload();
    if (!response.ok) {
      const problem = await response.json().catch(() => ({ detail: `HTTP ${response.status}` }));
      return failed(problem.detail, () => turn(extra));
    }
    for await (const event of events(response)) {
      if (event.type === 'text') {
        (box ??= answerBox()).push(event.text);
        said += event.text;
      } else if (event.type === 'restart') {
        box?.set('');
        said = '';
        status(`${event.reason}. Beginning the answer again`, true);
      } else if (event.type === 'tool_call') {
        box?.done();
        box = null;
        cards.set(event.id, toolCard(event));
        status(`Calling ${event.tool || event.name}`, true);
      } else if (event.type === 'tool_start') cards.get(event.id)?.start();
      else if (event.type === 'tool_result') cards.get(event.id)?.end(event);
      else if (event.type === 'notice') add(node('div', { className: 'notice', textContent: event.text }));
      else if (event.type === 'done' || event.type === 'error') {
        ended = true;
        box?.done();
        finish(event, cards);
      }
    }
    if (!ended) failed('The connection ended before the answer did.', () => turn(extra));
  } catch (error) {
    box?.done();
    if (running?.signal.aborted) {
      // A new one may have been begun meanwhile: nothing of this one belongs there.
      if (state === conversation) stopped(extra, cards.size ? '' : said);
    } else failed(`The server cannot be reached (${error.message}).`, () => turn(extra));
  } finally {
    cards.forEach((card) => card.drop());
    running = null;
    busy(false);
    // A decision that waits has the focus.
    if (!document.querySelector('.approval')) message.focus();
  }
}

const OUTCOMES = {
  complete: '', truncated: 'The answer was cut off at its longest length.', refused: 'The model declined to answer.',
  cancelled: 'Stopped.', paused: 'The model paused again and again.', approval_required: 'Waiting for your decision.',
  too_long: 'This conversation is too long for the model. Begin a new one.',
};

// A stopped answer is kept with its question. One that had begun to call tools is not: what they did is known to the server alone,
// and the question goes back to where it can be asked again.
function stopped(extra, said) {
  status('Stopped.');
  const block = (text) => [{ type: 'text', text }];
  if (extra.message && said.trim()) {
    state.messages.push({ role: 'user', content: block(extra.message) }, { role: 'assistant', content: block(said) });
    save();
  } else if (extra.message) {
    message.value ||= extra.message;
    showAll();
  }
}

function finish(event, cards) {
  state.messages = event.messages;
  if (event.model) state.model = event.model;
  const usage = event.usage;
  state.tokens += Object.values(usage).reduce((sum, count) => sum + count, 0);
  if (event.cost === null) state.unpriced = true;
  else state.cost += event.cost ?? 0;
  save();
  showUsage();
  if (event.type === 'error') return failed(event.message, () => turn({}));
  status(OUTCOMES[event.outcome] ?? event.outcome);
  if (event.outcome === 'approval_required') askApproval([...cards.values()].map((card) => card.call));
}

function askApproval(calls) {
  const waiting = calls.filter((call) => call.needs_approval);
  const others = calls.filter((call) => !call.needs_approval).map((call) => call.id);
  const names = waiting.map((call) => call.tool || call.name).join(', ');
  const box = node('section', { className: 'approval' });
  box.setAttribute('aria-label', 'Approval');
  box.append(node('p', { textContent: `${names} may change or destroy data. Allow it?` }));
  for (const call of waiting) box.append(node('pre', { tabIndex: 0, textContent: JSON.stringify(call.input, null, 2) }));
  const decide = (ids) => () => { box.remove(); turn({ approve: [...others, ...ids] }); };
  const all = waiting.map((call) => call.id);
  const once = button('Allow once', decide(all), 'primary');
  const always = button('Always allow', () => {
    state.always.push(...waiting.map((call) => `${call.name}@${call.hash}`));
    save();
    decide(all)();
  });
  const row = node('div', { className: 'row' });
  row.append(once, always, button('Deny', decide([])));
  box.append(row);
  add(box);
  once.focus();
}

function edit(index) {
  if (running) return;
  message.value = state.messages[index].content.filter((block) => block.type === 'text').map((block) => block.text).join('\n');
  state.messages = state.messages.slice(0, index);
  save();
  showAll();
  message.focus();
}

function send() {
  const text = message.value.trim();
  if (!text || running) return;
  message.value = '';
  showUser(text, state.messages.length);
  log.scrollTop = log.scrollHeight;
  turn({ message: text });
}

function watchServers() {
  const source = new EventSource('/v1/servers');
  source.addEventListener('servers', (event) => {
    const { servers } = JSON.parse(event.data);
    $('servers').replaceChildren(...servers.map((server) => {
      const kind = server.state === 'up' ? 'up' : server.degraded ? 'down' : 'off';
      const detail = server.reason || (server.state === 'up' ? `${server.tools} tools, MCP ${server.protocol}` : '');
      return node('li', { className: kind, title: detail, textContent: `${server.name}: ${server.state.replace('_', ' ')}` });
    }));
  });
  // The browser tries again by itself; until then the badges are of the past.
  source.addEventListener('error', () => {
    for (const badge of $('servers').children) badge.className = 'off';
    if (!running) status('The server cannot be reached; trying again.');
  });
  source.addEventListener('open', () => { if (!running) status(''); });
}

$('ask').addEventListener('submit', (event) => { event.preventDefault(); send(); });
message.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') running?.abort(); });
$('stop').addEventListener('click', () => running?.abort());
$('clear').addEventListener('click', () => { running?.abort(); state = empty(); save(); showAll(); status(''); message.focus(); });
$('export').addEventListener('click', () => {
  const file = new Blob([JSON.stringify(state.messages, null, 2)], { type: 'application/json' });
  const anchor = node('a', { href: URL.createObjectURL(file), download: 'conversation.json' });
  anchor.click();
  URL.revokeObjectURL(anchor.href);
});
showAll();
watchServers();
message.focus();
