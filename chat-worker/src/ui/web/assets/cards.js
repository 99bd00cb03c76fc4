// A tool's card, and the question whether a tool may run.
import { button, copyButton, laidOut, node, visible } from './dom.js';

// A name is its server's word: what cannot be seen of it is written out.
export const nameOf = (call) => visible(call.tool ? `${call.server} · ${call.tool}` : call.name.replace('__', ' · '));

const seconds = (ms) => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

function part(label, text, className = '') {
  const pre = node('pre', { tabIndex: 0, textContent: text, className, dir: 'auto', aria: { role: 'group', label } });
  return node('div', { className: 'part' }, node('div', { className: 'part-head' }, node('span', { textContent: label }), copyButton(() => text, `Copy ${label.toLowerCase()}`)), pre);
}

// Results are often JSON: laid out, they can be read.
function readable(text) {
  if (!/^\s*[[{]/.test(text)) return visible(text);
  try {
    JSON.parse(text);
    return visible(laidOut(text));
  } catch {
    return visible(text);
  }
}

// Arguments as they are sent.
const argumentsOf = (call) => visible(laidOut(call.arguments ?? JSON.stringify(call.input ?? {})));

// What people have decided themselves is no failure of the tool.
function failure(text) {
  if (text.startsWith('the user did not allow this call')) return 'denied';
  return text.startsWith('stopped by the user before it had a result') ? 'not run' : 'failed';
}

export function toolCard(call) {
  const state = node('span', { className: 'state', textContent: call.needs_approval ? 'waits for you' : 'waiting' });
  const card = node('details', { className: 'tool' });
  const title = node('span', { className: 'tool-name' }, node('bdi', { textContent: nameOf(call) }));
  card.append(node('summary', {}, title, ' ', state), part('Arguments', argumentsOf(call)));
  // Whoever opens one wants to see what is in it.
  card.addEventListener('toggle', () => { if (card.open) card.scrollIntoView({ block: 'nearest' }); });
  let timer = null;
  let finished = false;
  let began = 0;
  let said = '';
  const tick = () => { state.textContent = ['running', `${Math.round((Date.now() - began) / 1000)} s`, said].filter(Boolean).join(' · '); };
  return {
    element: card,
    call,
    isOpen: () => !finished,
    start() {
      began = Date.now();
      card.classList.add('running');
      tick();
      timer = setInterval(tick, 1000);
    },
    // How far it is, in its server's words.
    progress(text) {
      said = visible(text);
      if (timer && !finished) tick();
    },
    end({ is_error: isError, text, duration_ms: duration }) {
      clearInterval(timer);
      finished = true;
      card.classList.remove('running');
      card.classList.add(isError ? 'failed' : 'ok');
      state.textContent = [isError ? failure(text) : 'done', duration === undefined ? '' : seconds(duration)].filter(Boolean).join(' · ');
      card.append(part(isError ? 'Error' : 'Result', readable(text)));
    },
    drop(text = 'not run') {
      clearInterval(timer);
      card.classList.remove('running');
      if (!finished) state.textContent = text;
    },
  };
}

const key = (call) => (call.hash ? `${call.name}@${call.hash}` : null);

// Asks about the calls that wait. `decide(approved, rule)` is told the ids that may run, and the tools that the answer holds
// for from now on: rule is { always: [...] } or { never: [...] }.
export function approval(calls, decide) {
  const asked = calls.filter((call) => call.needs_approval);
  const free = calls.filter((call) => !call.needs_approval).map((call) => call.id);
  const title = node('h3', { id: `approval-${asked[0].id}`, textContent: asked.length === 1 ? 'May this tool run?' : 'May these tools run?' });
  const box = node('section', { className: 'approval', tabIndex: -1, aria: { labelledby: title.id } }, title);
  box.append(node('p', { textContent: 'It may change or destroy data.' }));
  const boxes = asked.map((call) => {
    const tick = node('input', { type: 'checkbox', checked: true });
    const name = node('bdi', { textContent: nameOf(call) });
    const head = asked.length === 1 ? node('p', { className: 'tool-name' }, name) : node('label', { className: 'tool-name' }, tick, ' ', name);
    box.append(head, node('pre', { tabIndex: 0, textContent: argumentsOf(call), aria: { role: 'group', label: `Arguments of ${nameOf(call)}` } }));
    return tick;
  });
  const chosen = () => asked.filter((call, index) => boxes[index].checked);
  const rules = (list) => list.map(key).filter(Boolean);
  const end = (approved, rule = {}) => { box.remove(); decide([...free, ...approved.map((call) => call.id)], rule); };
  const once = button('Allow once', () => end(chosen()), 'primary');
  const row = node('div', { className: 'row' }, once);
  // A tool whose definition is not known any more is asked about each time.
  if (asked.every(key)) row.append(button('Always allow', () => end(chosen(), { always: rules(chosen()) })));
  row.append(button('Deny', () => end([])));
  if (asked.every(key)) row.append(button('Never allow', () => end([], { never: rules(chosen()) })));
  box.append(row, node('p', { className: 'detail', textContent: '“Always” and “never” hold for this tool, as it is defined now, in this conversation.' }));
  // Not a button: a key that was meant for the message box must not decide.
  return { element: box, focus: () => box.focus() };
}
