// The page: which conversation is in view, and what each button does. The conversations live in this browser; each question
// carries its conversation along, so any replica can answer.
import * as beyond from './beyond.js';
import { approval } from './cards.js';
import * as composer from './composer.js';
import { $, ask, button, status } from './dom.js';
import { asJson, asMarkdown, download, fileName } from './export.js';
import { follow } from './live.js';
import * as scroll from './scroll.js';
import * as sidebar from './sidebar.js';
import * as store from './store.js';
import { again, goesOn, question, run, running, runningById, stop, takePartial, waiting } from './turn.js';
import { TurnView } from './view.js';
import { suggest } from './welcome.js';

const log = $('log');

const page = {
  conversation: null,
  views: [],

  // A conversation comes into view.
  show(conversation) {
    page.conversation = conversation;
    composer.cancelEdit();
    log.replaceChildren();
    page.views = conversation.turns.map((turn, index) => page.viewOf(conversation, turn, index));
    page.views.forEach((view) => log.append(view.element));
    page.offerEnds();
    page.changed(conversation);
    page.remember();
    status('');
    scroll.toEnd();
    const last = page.views.at(-1);
    if (last?.turn.state === 'waiting') page.decide(conversation, last);
  },

  viewOf(conversation, turn, index) {
    const active = running(conversation);
    if (active?.view.turn === turn) return active.view;
    if (turn.state === 'running') page.interrupted(turn);
    const view = new TurnView(turn, index + 1, { edit: () => page.edit(conversation, turn) });
    view.replay();
    return view;
  },

  // A turn that nobody here runs any more: a reload ended it, or another tab is at it.
  interrupted(turn) {
    takePartial(turn);
    const here = turn.tab === store.TAB;
    Object.assign(turn, { state: 'cut', note: here ? 'The answer was interrupted.' : 'The answer was interrupted, or is under way in another tab.' });
  },

  // What stands under each turn.
  offerEnds(wait = 0) {
    const { conversation, views } = page;
    views.forEach((view, index) => {
      const { turn } = view;
      if (running(conversation)?.view === view) return;
      const last = index === views.length - 1;
      const failed = ['failed', 'cut'].includes(turn.state);
      view.finish({
        [failed ? 'error' : 'note']: turn.note,
        again: last && turn.state !== 'waiting' ? () => page.again(conversation, view) : null,
        word: goesOn(turn) ? 'Go on' : 'Try again',
        wait: last ? wait : 0,
      });
    });
  },

  edit(conversation, turn) {
    if (!running(conversation)) composer.edit(conversation.turns.indexOf(turn), turn);
  },

  again(conversation, view) {
    if (running(conversation)) return;
    const extra = again(view.turn);
    const index = conversation.turns.indexOf(view.turn);
    const fresh = page.viewOf(conversation, view.turn, index);
    view.element.replaceWith(fresh.element);
    page.views[index] = fresh;
    page.start(conversation, fresh, extra);
  },

  send(text, instead, attached = null) {
    const asked = beyond.command(text);
    if (asked) {
      beyond.show(asked);
      return;
    }
    let { conversation } = page;
    if (instead !== null) {
      conversation.turns.length = instead;
      page.views.splice(instead).forEach((view) => view.element.remove());
    }
    page.views.at(-1)?.leaveOpen();
    const turn = { question: text, at: Date.now(), delta: [], calls: {}, state: 'running', note: '', ...(attached && { with: attached }) };
    if (!conversation.title) conversation.title = store.titleOf(text || attached.name);
    conversation.turns.push(turn);
    const view = new TurnView(turn, conversation.turns.length, { edit: () => page.edit(conversation, turn) });
    page.views.push(view);
    log.append(view.element);
    page.start(conversation, view, question(turn));
    page.offerEnds();
  },

  start(conversation, view, extra) {
    scroll.toEnd();
    const decided = view.element.contains(document.activeElement);
    run(page, conversation, view, extra);
    if (decided || document.activeElement === document.body) $(matchMedia('(pointer: coarse)').matches ? 'stop' : 'message').focus();
  },

  ended(conversation, view, wait) {
    page.changed(conversation);
    if (page.conversation !== conversation) return;
    if (document.activeElement === document.body) composer.focus();
    page.offerEnds(wait);
    if (view.turn.state === 'waiting') page.decide(conversation, view);
  },

  // Asks the person about the calls that wait, but for those that "never" answers.
  decide(conversation, view) {
    const calls = waiting(conversation);
    const never = (call) => call.needs_approval && conversation.never.includes(`${call.name}@${call.hash}`);
    const open = calls.filter((call) => !never(call));
    if (!open.some((call) => call.needs_approval)) {
      if (calls.length) page.start(conversation, view, { approve: open.map((call) => call.id) });
      return;
    }
    const box = approval(open, (approve, rule) => {
      conversation.always = [...new Set([...conversation.always, ...(rule.always ?? [])])];
      conversation.never = [...new Set([...conversation.never, ...(rule.never ?? [])])];
      page.start(conversation, view, { approve });
    });
    view.add(box.element);
    status('Waiting for your decision.');
    if (!composer.isWriting()) box.focus();
  },

  // Whether it is running, and what it has cost.
  changed(conversation) {
    if (page.conversation !== conversation) return;
    const busy = running(conversation) !== undefined;
    const focused = document.activeElement;
    $('send').hidden = busy;
    $('stop').hidden = !busy;
    if (focused === $('send') && busy) $('stop').focus();
    if (focused === $('stop') && !busy) $('message').focus();
    log.setAttribute('aria-busy', String(busy));
    $('welcome').hidden = conversation.turns.length > 0;
    // It scrolls by keyboard; without anything in it, it is no place to stop at.
    log.tabIndex = conversation.turns.length ? 0 : -1;
    $('title').textContent = conversation.title || 'New conversation';
    document.title = conversation.title ? `${conversation.title} · mcpfleet chat` : 'mcpfleet chat';
    const { tokens, unpriced } = conversation;
    const cost = unpriced ? 'cost unknown' : `$${conversation.cost.toFixed(4)}`;
    $('usage').textContent = tokens ? [conversation.model, `${tokens.toLocaleString()} tokens`, cost].filter(Boolean).join(' · ') : '';
  },

  saved(conversation) {
    page.changed(conversation);
    if (page.conversation === conversation) page.remember();
    sidebar.show(page.conversation.id);
  },

  // In the address, so that a reload, a bookmark and the way back lead here.
  remember() {
    const hash = `#${page.conversation.id}`;
    if (location.hash !== hash) history[page.conversation.turns.length && location.hash ? 'pushState' : 'replaceState'](null, '', hash);
  },

  warn(text) {
    $('warning').replaceChildren(text, ' ', button('Close', () => { $('warning').hidden = true; }, 'quiet small', 'Close this warning'));
    $('warning').hidden = false;
  },

  open(id) {
    const conversation = runningById(id) ?? store.load(id);
    if (conversation) page.show(conversation);
    else {
      page.show(store.create());
      if (store.list().some((entry) => entry.id === id)) page.warn('This conversation cannot be read. It may come from another version of this page; it can be deleted.');
    }
    sidebar.show(page.conversation.id);
  },

  begin() {
    page.show(store.create());
    sidebar.show(page.conversation.id);
    suggest(page.choose);
    $('message').focus();
  },

  choose(idea) {
    if (!running(page.conversation)) page.send(idea, null);
  },
};

sidebar.start({
  open: page.open,
  refresh: () => sidebar.show(page.conversation.id),
  rename(id, title) {
    const conversation = id === page.conversation.id ? page.conversation : runningById(id);
    if (conversation) {
      Object.assign(conversation, { title, named: true });
      store.save(conversation);
      page.changed(conversation);
    } else store.rename(id, title);
  },
  remove(id) {
    const conversation = id === page.conversation.id ? page.conversation : runningById(id);
    if (conversation) stop(conversation);
    // A turn that is being stopped writes once more; after that it is gone.
    Promise.resolve().then(() => store.remove(id)).then(() => {
      if (id === page.conversation.id) page.begin();
      sidebar.show(page.conversation.id);
    });
  },
});

composer.start(page.send, () => !running(page.conversation));
scroll.start();

// Another tab has changed something.
store.watch((id) => {
  if (id === page.conversation.id && !running(page.conversation)) {
    const theirs = store.load(id);
    if (theirs && theirs.rev !== page.conversation.rev) page.show(theirs);
    else if (!theirs) page.begin();
  }
  sidebar.show(page.conversation.id);
});
addEventListener('popstate', () => page.open(location.hash.slice(1)));

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.defaultPrevented) return;
  // A dialog or a menu takes it first, then the list of conversations.
  if (document.querySelector('dialog[open], [popover]:popover-open')) return;
  if (sidebar.isOverlay()) sidebar.close();
  else if (running(page.conversation)) stop(page.conversation);
  else if (composer.cancelEdit()) $('message').focus();
});
$('stop').addEventListener('click', () => stop(page.conversation));
$('new').addEventListener('click', () => { sidebar.close(); page.begin(); });
$('new-top').addEventListener('click', page.begin);
$('beyond').addEventListener('click', () => { $('menu').hidePopover(); beyond.show(); });
const exported = (ending, type, write) => () => {
  $('menu').hidePopover();
  download(fileName(page.conversation, ending), type, write(page.conversation));
};
$('export-markdown').addEventListener('click', exported('md', 'text/markdown', asMarkdown));
$('export-json').addEventListener('click', exported('json', 'application/json', asJson));
$('theme').addEventListener('change', () => { setTheme($('theme').value); });
$('sign-out').addEventListener('click', async () => {
  $('menu').hidePopover();
  const answer = await ask($('sign-out-dialog'));
  if (!answer) return;
  if (answer === 'forget') store.clear();
  sessionStorage.clear();
  $('sign-out-form').submit();
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem('mcpfleet.theme', theme);
  $('theme').value = theme;
}

setTheme(['light', 'dark'].includes(localStorage.getItem('mcpfleet.theme')) ? localStorage.getItem('mcpfleet.theme') : 'system');
const wanted = location.hash.slice(1) || store.list()[0]?.id;
if (wanted) page.open(wanted);
else page.begin();
if (page.conversation.turns.length === 0) suggest(page.choose);
follow();
if (!document.querySelector('.approval')) composer.focus();
