// Runs a turn: sends what is asked, shows what comes, keeps what came. It owns how a turn ends, and how it goes on.
// Turns of several conversations can run at the same time; only that of the one in view speaks.
import { asked } from './attached.js';
import { status, visible } from './dom.js';
import { Record } from './record.js';
import * as store from './store.js';
import { Problem, chat, pause } from './stream.js';

const OUTCOMES = {
  truncated: 'The answer was cut off at its longest length.', refused: 'The model declined to answer.', cancelled: 'Stopped.',
  paused: 'The model paused again and again.', too_long: 'This conversation is too long for the model. Begin a new one.',
};
// While a replica is being stopped, another one takes over within seconds.
const RETRIES = 8;

const runs = new Map();
// A page that is left breaks its own connections: that is no news to write down, and the next page tells it better.
let leaving = false;
addEventListener('pagehide', () => { leaving = true; });
addEventListener('pageshow', () => { leaving = false; });

export const running = (conversation) => runs.get(conversation);
export const runningById = (id) => [...runs.keys()].find((conversation) => conversation.id === id);
export const stop = (conversation) => runs.get(conversation)?.controller.abort();

// The calls that wait for a decision, as they were described when they were made.
export function waiting(conversation) {
  const calls = conversation.turns.at(-1)?.calls ?? {};
  return store.openCalls(store.transcript(conversation))
    .map((block) => ({ needs_approval: true, ...calls[block.id], id: block.id, name: block.name, input: block.input }));
}

const sentence = (text) => text.replace(/^./, (letter) => letter.toUpperCase()).replace(/[.]?$/, '.');
const carriesResults = (message) => message?.role === 'user' && message.content.some((block) => block.type === 'tool_result');

// Whether what tools have done stands, and only the answer is missing.
export const goesOn = (turn) => turn.state !== 'done' && turn.state !== 'waiting' && store.shown(turn).slice(-2).some(carriesResults);

// What is sent of a turn's question.
export const question = (turn) => ({ ...(turn.question && { message: turn.question }), ...(turn.with && { with: turn.with.messages }) });

// How an unfinished turn goes on: from where its tools ended, so that none runs twice, or else from its question.
export function again(turn) {
  const parts = [turn.delta, turn.shown, turn.base].filter(Boolean);
  if (goesOn(turn)) {
    // What had been said of the answer is said anew.
    for (const messages of parts) if (messages.at(-1)?.role === 'assistant') messages.pop();
    return {};
  }
  if (turn.state === 'failed' && store.shown(turn).at(-1)?.role === 'user') return {};
  Object.assign(turn, { delta: [] });
  delete turn.shown;
  delete turn.base;
  delete turn.notices;
  return question(turn);
}

// Takes over what was seen of a turn whose end was never heard.
export function takePartial(turn) {
  if (turn.partial?.length) {
    if (turn.shown) turn.shown.push(...turn.partial);
    turn.delta.push(...turn.partial);
  }
  delete turn.partial;
}

export async function run(page, conversation, view, extra) {
  const sent = store.transcript(conversation);
  const controller = new AbortController();
  const one = new Run(page, conversation, view, sent, new Record(asked(extra), store.openCalls(sent)));
  Object.assign(view.turn, { state: 'running', tab: store.TAB, note: '' });
  runs.set(conversation, { controller, view });
  view.end.replaceChildren();
  one.keep();
  page.changed(conversation);
  one.tell('Waiting for the answer', true);
  const body = store.written({ messages: sent, always: conversation.always, ...extra }, conversation);
  try {
    for await (const [, event] of await one.open(body, controller.signal)) one.on(event);
    if (view.turn.state === 'running') one.cutOff('The connection ended before the answer did.');
  } catch (error) {
    one.failed(error, controller.signal.aborted);
  } finally {
    runs.delete(conversation);
  }
  page.ended(conversation, view, one.wait);
}

class Run {
  constructor(page, conversation, view, sent, record) {
    Object.assign(this, { page, conversation, view, sent, record, turn: view.turn, draining: false, wait: 0 });
  }

  tell(text, working = false) {
    if (this.page.conversation === this.conversation) status(text, working);
  }

  keep() {
    const how = store.save(this.conversation);
    if (how === 'full') this.page.warn('This browser has no more room: the conversation is not kept. Delete old ones.');
    if (how === 'copied') this.page.warn('The conversation went on in another tab. What you see here is now a copy of its own.');
    this.page.saved(this.conversation);
  }

  settle(state, note = '') {
    Object.assign(this.turn, { state, note, done: Date.now() });
    this.keep();
    this.tell(state === 'failed' ? 'The answer failed.' : state === 'waiting' ? 'Waiting for your decision.' : note || 'Answered.');
  }

  async open(body, signal) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await chat(body, signal);
      } catch (error) {
        // It was told to come back, and nothing has been done: it is safe to ask again.
        if (!(error instanceof Problem) || error.status !== 503 || !error.wait || attempt > RETRIES || signal.aborted) throw error;
        this.tell('The server is being restarted. Asking again…', true);
        await pause(error.wait, signal);
      }
    }
  }

  on(event) {
    const { turn, view } = this;
    this.record.on(event);
    switch (event.type) {
      case 'start': turn.request = event.request_id; break;
      case 'text': view.say(event.text); break;
      case 'thinking': view.think(event.text); break;
      case 'restart':
        view.restart();
        this.tell(`${event.reason}. Beginning the answer again`, true);
        break;
      case 'tool_call': this.called(event); break;
      case 'tool_start': view.cards.get(event.id)?.start(); break;
      case 'tool_progress': view.cards.get(event.id)?.progress(event.text); break;
      case 'tool_result':
        turn.calls[event.id] = { ...turn.calls[event.id], duration_ms: event.duration_ms };
        view.cards.get(event.id)?.end(event);
        // A reload from here on must not forget what the tool has done.
        turn.partial = this.record.ended();
        this.keep();
        break;
      case 'notice':
        (turn.notices ??= []).push(event.text);
        view.notice(event.text);
        break;
      case 'draining':
        this.draining = true;
        this.tell(`The server is being restarted: this answer has ${event.seconds} s to end`, true);
        break;
      case 'done':
      case 'error': this.ended(event); break;
      default:
    }
  }

  called(event) {
    const { id, name, server, tool, hash, needs_approval: needsApproval } = event;
    // Where JavaScript writes the same, the input says it all.
    const exact = event.arguments === JSON.stringify(event.input) ? {} : { name, arguments: event.arguments };
    this.turn.calls[id] = { ...this.turn.calls[id], server, tool, hash, needs_approval: needsApproval, ...exact };
    this.view.call(event);
    this.tell(`Calling ${visible(event.tool || event.name)}`, true);
  }

  ended(event) {
    const { conversation, turn } = this;
    const before = store.shown(turn).length;
    delete turn.partial;
    store.take(turn, this.sent, event.messages, this.record.waiting());
    // Calls that were denied have results, too, that no event told of.
    this.view.results(store.shown(turn).slice(before));
    if (event.model) conversation.model = turn.model = event.model;
    conversation.tokens += Object.values(event.usage).reduce((sum, count) => sum + count, 0);
    if (event.cost === null) conversation.unpriced = true;
    else conversation.cost += event.cost ?? 0;
    if (event.type === 'error') {
      const wait = event.retry_after ? ` Try again in ${event.retry_after} s.` : '';
      this.wait = event.retry_after ?? 0;
      this.settle('failed', `${sentence(event.message)}${wait}`);
    } else if (event.outcome === 'approval_required') this.settle('waiting');
    else if (event.outcome === 'cancelled' && this.draining) this.settle('cut', 'The server was restarted before the answer was whole.');
    else this.settle(event.outcome === 'cancelled' ? 'stopped' : 'done', OUTCOMES[event.outcome] ?? '');
  }

  cutOff(why, missing) {
    this.turn.partial = this.record.ended(missing);
    takePartial(this.turn);
    this.settle(why === 'Stopped.' ? 'stopped' : 'cut', why);
  }

  failed(error, aborted) {
    if (leaving) return;
    if (aborted) this.cutOff('Stopped.', 'stopped by the user before it had a result');
    else if (error instanceof Problem && error.status === 401) {
      this.settle('cut', 'You were signed out before the answer began.');
      location.reload();
    } else if (error instanceof Problem) {
      this.wait = error.wait;
      this.settle('failed', sentence(error.message));
    } else this.cutOff('The server cannot be reached.');
  }
}
