// What servers offer beside tools, as MCP tells it: resources and prompts. What is chosen becomes the beginning of a question, which the
// person sees before it is sent, and may change where it is a text. What of it a model is told, the server says.
import { plain } from './attached.js';
import * as composer from './composer.js';
import { $, button, node, status, visible } from './dom.js';
import { Problem, quoted } from './stream.js';

// What is being waited for: closing the dialog stops it, for the server, too.
let waiting = new AbortController();
$('beyond-dialog').addEventListener('close', () => waiting.abort());

async function rpc(method, params = {}) {
  const headers = { 'content-type': 'application/json', accept: 'application/json', 'mcp-protocol-version': '2025-11-25' };
  const response = await fetch('/mcp', { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok || answer.error) throw new Problem(response.status, answer.error?.message ?? answer.detail ?? `The server answered ${response.status}.`);
  return answer.result;
}

// Asks for what may take its time, and shows what the server tells meanwhile.
async function ask(path, body) {
  waiting.abort();
  waiting = new AbortController();
  const { signal } = waiting;
  $('beyond-note').textContent = 'Waiting for the server…';
  for await (const [event, data] of await quoted(path, body, signal)) {
    if (event === 'progress') $('beyond-note').textContent = visible(data.text);
    else if (event === 'done') return data.messages;
    else if (event === 'error') throw new Problem(data.status, data.detail);
  }
  throw new Problem(502, 'The connection ended before the answer came.');
}

async function everything(method, field) {
  const all = [];
  let cursor;
  do {
    const page = await rpc(method, cursor ? { cursor } : {});
    all.push(...page[field]);
    cursor = page.nextCursor;
  } while (cursor && all.length < 2000);
  return all;
}

// What can be changed before it is sent, is to be written; the rest is asked with.
function write(name, messages, text = plain(messages)) {
  $('beyond-dialog').close();
  if (text === null) composer.attach({ name, messages });
  else composer.set(text);
  composer.focus();
}

// Tells what went wrong where it was asked for.
const attempt = (act) => async () => {
  try {
    await act();
  } catch (error) {
    if (error.name !== 'AbortError') $('beyond-note').textContent = error.message;
  }
};

function resourceLine(resource) {
  const read = attempt(async () => {
    const messages = await ask('/v1/resource', { uri: resource.uri });
    const text = plain(messages);
    write(resource.name, messages, text === null ? null : `${text}\n\n`);
  });
  return node('li', {}, button(visible(resource.name), read), node('p', { className: 'detail', textContent: visible(resource.uri) }));
}

function promptLine(prompt) {
  const fields = (prompt.arguments ?? []).map((argument) => {
    const input = node('input', { name: argument.name, required: argument.required === true });
    return node('label', {}, `${visible(argument.name)} `, input);
  });
  const form = node('form', {}, ...fields, node('button', { type: 'submit', textContent: visible(prompt.name) }));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ''));
    attempt(async () => {
      write(prompt.name, await ask('/v1/prompt', { name: prompt.name, arguments: given }));
    })();
  });
  return node('li', {}, form, node('p', { className: 'detail', textContent: visible(prompt.description ?? ''), dir: 'auto' }));
}

// Shows what there is; `only` is 'resources' or 'prompts', or nothing for both.
export async function show(only = '') {
  const [resources, prompts] = await Promise.all([
    only === 'prompts' ? [] : everything('resources/list', 'resources'),
    only === 'resources' ? [] : everything('prompts/list', 'prompts'),
  ]).catch((error) => { status(error.message); return [[], []]; });
  $('beyond-note').textContent = resources.length + prompts.length ? '' : 'The servers offer none.';
  $('beyond-list').replaceChildren(...resources.map(resourceLine), ...prompts.map(promptLine));
  $('beyond-dialog').showModal();
}

// Whether a text is a command of these, and which.
export const command = (text) => ({ '/resources': 'resources', '/prompt': 'prompts', '/prompts': 'prompts' })[text.trim()];
