// What servers offer beside tools, as MCP tells it: resources and prompts. What is chosen becomes the beginning of a question, which the
// person sees, and may change, before it is sent.
import * as composer from './composer.js';
import { $, button, node, status, visible } from './dom.js';
import { Problem, events } from './stream.js';

const LONGEST = 48 * 1024;

// What is being waited for: closing the dialog stops it, for the server, too.
let waiting = new AbortController();
$('beyond-dialog').addEventListener('close', () => waiting.abort());

async function rpc(method, params = {}, signal = undefined) {
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2025-11-25' };
  const response = await fetch('/mcp', { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }), signal });
  const answer = await answered(response);
  if (!response.ok || answer.error) throw new Problem(response.status, answer.error?.message ?? answer.detail ?? `The server answered ${response.status}.`);
  return answer.result;
}

// The answer, with what the server tells before it.
async function answered(response) {
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return response.json().catch(() => ({}));
  let answer = {};
  for await (const [, message] of events(response)) {
    if (message.method) told(message.params ?? {});
    else answer = message;
  }
  return answer;
}

function told({ message, data, progress, total }) {
  const far = total === undefined ? `${progress ?? ''}` : `${progress} of ${total}`;
  $('beyond-note').textContent = visible(message ?? (typeof data === 'string' ? data : far)).slice(0, 200);
}

// Asks for what may take its time.
function ask(method, params) {
  waiting.abort();
  waiting = new AbortController();
  $('beyond-note').textContent = 'Waiting for the server…';
  return rpc(method, { ...params, _meta: { progressToken: method } }, waiting.signal);
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

const words = (contents) => contents.text ?? `[${contents.mimeType ?? 'binary data'} of ${contents.uri}]`;

// What a message of a prompt holds, as the terminal tells it.
function content(block) {
  switch (block.type) {
    case 'text': return block.text;
    case 'resource': return words(block.resource);
    case 'resource_link': return `[resource ${block.uri} (${block.name})${block.description ? `: ${block.description}` : ''}]`;
    case 'image': return `[an image, ${block.mimeType}]`;
    case 'audio': return `[a sound, ${block.mimeType}, which you cannot hear]`;
    default: return '[content of an unknown kind]';
  }
}

// Who is to have said what is told where it is not all the user's.
function talk(messages) {
  const isTalk = messages.some(({ role }) => role !== 'user');
  const name = (role) => (role === 'assistant' ? 'Assistant: ' : 'User: ');
  return messages.map((message) => (isTalk ? name(message.role) : '') + content(message.content)).join('\n\n');
}

function write(text) {
  $('beyond-dialog').close();
  composer.set(text.length > LONGEST ? `${text.slice(0, LONGEST)}\n[cut off here]` : text);
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
    const { contents } = await ask('resources/read', { uri: resource.uri });
    write(`This is the resource ${resource.uri}:\n\n${contents.map(words).join('\n')}\n\n`);
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
      const { messages } = await ask('prompts/get', { name: prompt.name, arguments: given });
      write(talk(messages));
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
