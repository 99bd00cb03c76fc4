// The conversations, kept in this browser and nowhere else. Each is a list of turns. What the model is sent is put together
// from the turns: `delta` is what a turn added to it; where the server shortened what came before, the turn has the whole as
// `base`, and `shown` for people. What is read back is checked: the storage is not ours alone.

const INDEX = 'mcpfleet.conversations';
const PREFIX = 'mcpfleet.conversation.';
export const TAB = sessionStorage.mcpfleetTab ??= id();
// What stands for a text in the JSON that it is put into. Nobody else knows it.
const MARK = `mcpfleet:${id()}:`;

function id() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

const isText = (value) => typeof value === 'string';
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

function soundBlock(block) {
  if (!isObject(block) || !isText(block.type)) return false;
  if (block.type === 'text') return isText(block.text);
  if (block.type === 'tool_use') return isText(block.id) && isText(block.name);
  if (block.type === 'image') return isObject(block.source) && isText(block.source.data) && isText(block.source.media_type);
  return block.type !== 'tool_result' || (isText(block.tool_use_id) && Array.isArray(block.content));
}

const soundMessages = (list) => Array.isArray(list)
  && list.every((message) => isObject(message) && isText(message.role) && Array.isArray(message.content) && message.content.every(soundBlock));

const soundWith = (given) => isObject(given) && isText(given.name) && soundMessages(given.messages);

const soundTurn = (turn) => isObject(turn) && isText(turn.question) && (turn.with === undefined || soundWith(turn.with)) && Number.isFinite(turn.at) && isObject(turn.calls)
  && soundMessages(turn.delta) && (turn.base === undefined || soundMessages(turn.base))
  && (turn.shown === undefined || soundMessages(turn.shown)) && (turn.notices === undefined || soundList(turn.notices)) && Object.values(turn.calls).every(isObject);

const soundList = (list) => Array.isArray(list) && list.every(isText);

function sound(value) {
  return isObject(value) && isText(value.id) && isText(value.title) && soundList(value.always) && soundList(value.never)
    && Number.isFinite(value.tokens) && Number.isFinite(value.cost) && Array.isArray(value.turns) && value.turns.every(soundTurn);
}

export function list() {
  const index = read(INDEX);
  const known = isObject(index) ? Object.entries(index) : [];
  return known.filter(([, entry]) => isObject(entry) && isText(entry.title) && Number.isFinite(entry.updated))
    .map(([key, entry]) => ({ id: key, ...entry })).sort((a, b) => b.updated - a.updated);
}

function note(conversation) {
  const index = read(INDEX);
  const { id: key, title, updated, rev } = conversation;
  localStorage.setItem(INDEX, JSON.stringify({ ...(isObject(index) ? index : {}), [key]: { title, updated, rev } }));
}

const revision = (key) => list().find((entry) => entry.id === key)?.rev;

export function create() {
  return { id: id(), title: '', named: false, updated: Date.now(), rev: 0, turns: [], always: [], never: [], tokens: 0, cost: 0, unpriced: false, model: '' };
}

export function load(key) {
  const value = read(PREFIX + key);
  return sound(value) && value.id === key ? value : null;
}

// 'saved'; 'copied' when another tab went on with the same conversation meanwhile, so that neither loses anything; or 'full'.
export function save(conversation, updated = Date.now()) {
  const theirs = revision(conversation.id);
  const copied = theirs !== undefined && theirs !== conversation.rev;
  if (copied) Object.assign(conversation, { id: id(), title: `${conversation.title} (copy)`, rev: 0 });
  conversation.rev += 1;
  conversation.updated = updated;
  try {
    localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    note(conversation);
  } catch {
    conversation.rev -= 1;
    return 'full';
  }
  return copied ? 'copied' : 'saved';
}

export function rename(key, title) {
  const conversation = load(key);
  if (!conversation) return;
  Object.assign(conversation, { title, named: true });
  save(conversation, conversation.updated);
}

export function remove(key) {
  const index = read(INDEX);
  if (isObject(index)) {
    delete index[key];
    localStorage.setItem(INDEX, JSON.stringify(index));
  }
  localStorage.removeItem(PREFIX + key);
}

export function clear() {
  for (const { id: key } of list()) remove(key);
  localStorage.removeItem(INDEX);
}

// Tells when another tab has changed a conversation, or the list.
export function watch(changed) {
  addEventListener('storage', (event) => {
    if (event.key === null || event.key === INDEX) changed(null);
    else if (event.key.startsWith(PREFIX)) changed(event.key.slice(PREFIX.length));
  });
}

export function titleOf(question) {
  const line = question.trim().split('\n')[0].replace(/\s+/g, ' ');
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

// The conversation as the model is sent it; before a turn, if one is given. The roles must alternate: a question after a
// turn that ended with a tool's result, or with no answer at all, goes into the same message.
export function transcript(conversation, before = conversation.turns.length) {
  const turns = conversation.turns.slice(0, before);
  return turns.reduce((messages, turn) => turn.delta.reduce(append, turn.base ?? messages), []);
}

function append(messages, message) {
  const last = messages.at(-1);
  if (last?.role !== message.role) return [...messages, message];
  return [...messages.slice(0, -1), { role: last.role, content: [...last.content, ...message.content] }];
}

export const shown = (turn) => turn.shown ?? turn.delta;

// What followed the question, and the messages that it was asked with.
export const after = (turn) => shown(turn).slice(turn.with?.messages.length ?? 0);

// The conversation as people have it: whole, also where the model goes on from a summary.
export const whole = (conversation) => conversation.turns.flatMap(shown).reduce(append, []);

// Takes the messages that the server ended with, for a turn that was begun with `sent`; `recorded` is what people saw of it.
export function take(turn, sent, messages, recorded) {
  const grown = messages.length >= sent.length && sent.every((message, index) => same(message, messages[index]));
  if (grown && !turn.shown) turn.delta = [...turn.delta, ...messages.slice(sent.length)];
  else Object.assign(turn, { shown: [...shown(turn), ...recorded], base: messages, delta: [] });
}

// JSON of something that holds messages of a conversation. The arguments of its calls are in it as they were written: in JavaScript their
// numbers may be rounded.
export function written(value, conversation, indent) {
  const calls = Object.assign({}, ...conversation.turns.map((turn) => turn.calls));
  const texts = [];
  const marked = JSON.stringify(value, (key, part) => {
    const call = part?.type === 'tool_use' ? calls[part.id] : undefined;
    if (!isText(call?.arguments)) return part;
    const input = `${MARK}${texts.push(call.arguments) - 1}`;
    // A call by another one has them within its own.
    return { ...part, input: part.name === call.name ? input : { ...part.input, arguments: input } };
  }, indent);
  return marked.replace(new RegExp(`"${MARK}(\\d+)"`, 'g'), (_, at) => texts[at]);
}

function same(a, b) {
  if (!isObject(a) && !Array.isArray(a)) return a === b;
  const keys = Object.keys(a);
  return isObject(a) === isObject(b) && b !== null && typeof b === 'object' && keys.length === Object.keys(b).length
    && keys.every((key) => same(a[key], b[key]));
}

// The calls of a conversation that have no result yet.
export function openCalls(messages) {
  const last = messages.at(-1);
  return last?.role === 'assistant' ? last.content.filter((block) => block.type === 'tool_use') : [];
}
