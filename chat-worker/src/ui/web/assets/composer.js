// The message box: what is being written, what it is asked with, Enter and Shift+Enter, and the question that is being changed. What is
// written is kept for this tab, through a reload and signing in again.
import { shownWith } from './attached.js';
import { $, button, hasKeyboard } from './dom.js';

const field = $('message');
const DRAFT = 'mcpfleetDraft';
let edited = null;
let attached = null;
let typed = 0;
field.addEventListener('keydown', (event) => { if (event.key !== 'Enter') typed = Date.now(); });

function grow() {
  const lines = field.value.split('\n').reduce((sum, line) => sum + 1 + Math.floor(line.length / 90), 0);
  field.rows = Math.min(12, Math.max(2, lines));
}

export function set(text) {
  field.value = text;
  typed = 0;
  sessionStorage.setItem(DRAFT, text);
  grow();
}

// The question will be asked with these messages, {name, messages}; or with none.
export function attach(given) {
  attached = given;
  $('attached').hidden = given === null;
  $('attached').replaceChildren(...(given ? [shownWith(given), button('Take it out', () => { attach(null); field.focus(); }, 'quiet small')] : []));
}

// Whoever is in the middle of a word must not be led away from it.
export const isWriting = () => document.activeElement === field && (field.value !== '' || Date.now() - typed < 2000);

export function focus() {
  if (hasKeyboard()) field.focus();
}

// Sending will replace the question `number`, and what came after it.
export function edit(number, { question, with: given = null }) {
  edited = number;
  $('editing').hidden = false;
  set(question);
  attach(given);
  field.focus();
}

export function cancelEdit() {
  if (edited === null) return false;
  edited = null;
  $('editing').hidden = true;
  set('');
  attach(null);
  return true;
}

// What is asked, and in place of which question; null when there is nothing to send.
function taken() {
  const text = field.value.trim();
  if (text === '' && !attached) return null;
  const given = { text, instead: edited, attached };
  cancelEdit();
  set('');
  attach(null);
  return given;
}

export function start(send, mayAsk) {
  const submit = () => {
    if (!mayAsk()) return;
    const given = taken();
    if (given) send(given.text, given.instead, given.attached);
  };
  $('ask').addEventListener('submit', (event) => { event.preventDefault(); submit(); });
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    // On a phone, Enter is the only way to a new line; the button sends.
    if (!hasKeyboard() && matchMedia('(pointer: coarse)').matches) return;
    event.preventDefault();
    submit();
  });
  field.addEventListener('input', () => { sessionStorage.setItem(DRAFT, field.value); grow(); });
  $('cancel-edit').addEventListener('click', () => { cancelEdit(); field.focus(); });
  // What was typed before this script ran counts.
  set(field.value || (sessionStorage.getItem(DRAFT) ?? ''));
  $('send').disabled = false;
}
