// Elements and announcements. Text becomes text nodes, never HTML: that is why nothing here has to be sanitised.

export const $ = (id) => document.getElementById(id);

export function node(name, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, data);
  for (const [key, value] of Object.entries(aria)) made.setAttribute(key === 'role' ? key : `aria-${key}`, value);
  made.append(...children);
  return made;
}

export function button(text, act, className = '', label = '') {
  const made = node('button', { type: 'button', textContent: text, className });
  if (label) made.setAttribute('aria-label', label);
  made.addEventListener('click', act);
  return made;
}

// What the page is doing, in the line above the message box; screen readers say it.
export function status(text, working = false) {
  $('status').textContent = text;
  $('status').classList.toggle('working', working);
  // Who sees the answer need not be told.
  $('status').classList.toggle('quietly', text === 'Answered.');
}

// The button says how it went, and then again what it does. Over plain HTTP browsers offer no clipboard: the old way works there.
export async function copy(text, from) {
  const copied = navigator.clipboard ? await navigator.clipboard.writeText(text).then(() => true, () => false) : copyBySelection(text);
  // A second press before the word is back must not make it the button's own.
  const { label = from.textContent, name = from.getAttribute('aria-label') } = from.copying ?? {};
  clearTimeout(from.copying?.timer);
  from.textContent = copied ? 'Copied' : 'Not allowed';
  from.removeAttribute('aria-label');
  status(copied ? 'Copied.' : 'The browser does not allow to copy.');
  const back = () => {
    from.textContent = label;
    if (name) from.setAttribute('aria-label', name);
    delete from.copying;
  };
  from.copying = { label, name, timer: setTimeout(back, 1500) };
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const field = node('textarea', { value: text, className: 'unseen', aria: { hidden: 'true' } });
  document.body.append(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  focused?.focus();
  return copied;
}

export function copyButton(text, label) {
  const made = button('Copy', () => copy(text(), made), 'quiet', label);
  return made;
}

// Letters that cannot be seen, or that turn the order of others around, are written out: what is approved must be what is read.
const UNSEEN = /(?![\n\t ])[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/gu;
const unit = (letter, at) => `\\u${letter.charCodeAt(at).toString(16).padStart(4, '0')}`;
// As JSON writes them.
export const visible = (text) => text.replace(UNSEEN, (letter) => Array.from({ length: letter.length }, (_, at) => unit(letter, at)).join(''));

// JSON that is longer stays as it is.
const LONG = 200_000;
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|\s+|[[{]\s*[\]}]|[[\]{},:]/g;

// JSON laid out, and else letter by letter as it is written: once read, its numbers may be rounded, and its fields in another order.
export function laidOut(json) {
  if (json.length > LONG) return json;
  let depth = 0;
  const line = (by) => `\n${'  '.repeat(depth += by)}`;
  return json.replace(TOKEN, (token) => {
    if (token.startsWith('"')) return token;
    if (/^[[{].*[\]}]$/s.test(token)) return token[0] + token.at(-1);
    if (/[[{]/.test(token)) return token + line(1);
    if (/[\]}]/.test(token)) return line(-1) + token;
    return token === ',' ? token + line(0) : token === ':' ? ': ' : '';
  });
}

export function time(at) {
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  const text = date.toLocaleString([], today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' });
  return node('time', { dateTime: date.toISOString(), textContent: text });
}

// A question in a dialog of the browser's own: it keeps the focus, Esc ends it, and the focus goes back.
export function ask(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = '';
    dialog.addEventListener('close', () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}

// For touch, putting the focus into a field opens a keyboard over half of the screen.
export const hasKeyboard = () => matchMedia('(hover: hover) and (pointer: fine)').matches;
