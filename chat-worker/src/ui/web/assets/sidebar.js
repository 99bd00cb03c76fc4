// The list of conversations: open, rename, delete. On a narrow screen it lies over the page, and Esc closes it.
import { $, ask, button, node } from './dom.js';
import * as store from './store.js';

const side = $('side');
const toggle = $('side-button');
const wide = matchMedia('(min-width: 56rem)');

export function show(current) {
  const focused = side.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const entries = store.list();
  $('conversations').replaceChildren(...entries.map((entry) => row(entry, entry.id === current)));
  $('no-conversations').hidden = entries.length > 0;
  if (focused) side.querySelector(`[data-id="${focused}"]`)?.focus();
}

let acts;

function row(entry, isCurrent) {
  const title = entry.title || 'Untitled';
  const open = button('', () => { acts.open(entry.id); close(); }, 'open');
  open.append(node('bdi', { textContent: title }));
  open.dataset.id = entry.id;
  if (isCurrent) open.setAttribute('aria-current', 'true');
  const made = node('li', {}, open);
  made.append(
    button('Rename', () => rename(made, entry), 'quiet small', `Rename: ${title}`),
    button('Delete', () => remove(entry, title), 'quiet small', `Delete: ${title}`),
  );
  return made;
}

function rename(item, entry) {
  const field = node('input', { value: entry.title, maxLength: 100, required: true, aria: { label: 'Name of the conversation' } });
  const form = node('form', { className: 'rename' }, field);
  let ended = false;
  const end = (title) => {
    // Taking the field away takes the focus away, which would end it a second time.
    if (ended) return;
    ended = true;
    form.remove();
    if (title) acts.rename(entry.id, title);
    acts.refresh();
    side.querySelector(`[data-id="${entry.id}"]`)?.focus();
  };
  form.addEventListener('submit', (event) => { event.preventDefault(); end(field.value.trim()); });
  field.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') { event.stopPropagation(); end(''); }
  });
  field.addEventListener('blur', () => end(field.value.trim()));
  item.replaceChildren(form);
  field.select();
}

async function remove(entry, title) {
  $('delete-title').textContent = title;
  if (await ask($('delete-dialog')) !== 'yes') return;
  acts.remove(entry.id);
  acts.refresh();
  (side.querySelector('#conversations button') ?? $('new')).focus();
}

export function isOverlay() {
  return !wide.matches && !side.classList.contains('closed');
}

function setOpen(isOpen) {
  side.classList.toggle('closed', !isOpen);
  toggle.setAttribute('aria-expanded', String(isOpen));
  const over = isOpen && !wide.matches;
  document.body.classList.toggle('covered', over);
  for (const part of [$('main'), $('ask'), $('top-rest')]) part.inert = over;
}

export function close() {
  if (!isOverlay()) return;
  setOpen(false);
  toggle.focus();
}

export function start(given) {
  acts = given;
  toggle.addEventListener('click', () => {
    const isOpen = side.classList.contains('closed');
    setOpen(isOpen);
    if (isOpen && !wide.matches) (side.querySelector('[aria-current]') ?? $('new')).focus();
  });
  $('veil').addEventListener('click', close);
  wide.addEventListener('change', () => setOpen(wide.matches));
  setOpen(wide.matches);
}
