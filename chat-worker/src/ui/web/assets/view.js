// Shows turns: the question, what was said and called, how it ended. It changes no conversation.
import { shownWith } from './attached.js';
import { button, copyButton, node, time } from './dom.js';
import { blocks, draw } from './markdown.js';
import { toolCard } from './cards.js';
import { grown } from './scroll.js';
import { after } from './store.js';

// An answer that grows. Blocks that stay as they are keep their nodes: a selection in them survives.
function answerBox() {
  const element = node('div', { className: 'answer' });
  let text = '';
  let drawn = [];
  let due = false;
  const render = () => {
    due = false;
    const now = blocks(text);
    let same = 0;
    while (same < now.length && same < drawn.length && now[same][1] === drawn[same][1]) same += 1;
    while (element.childElementCount > same) element.lastElementChild.remove();
    element.append(...now.slice(same).map((block) => draw(block)));
    drawn = now;
    grown();
  };
  return {
    element,
    text: () => text,
    push(piece) {
      text += piece;
      if (!due) {
        due = true;
        requestAnimationFrame(render);
      }
    },
    set(whole) {
      text = whole;
      render();
    },
  };
}

// With a wait, it counts down first.
function retry(word, again, wait, className) {
  const made = button(word, again, className);
  const until = Date.now() + wait * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    made.disabled = left > 0;
    made.textContent = left > 0 ? `${word} in ${left} s` : word;
    if (left > 0) setTimeout(tick, 250);
  };
  tick();
  return made;
}

export class TurnView {
  // `acts` are what a person can do with it: edit, again.
  constructor(turn, number, acts) {
    this.turn = turn;
    this.cards = new Map();
    this.boxes = [];
    this.box = null;
    this.acts = acts;
    const heading = node('h2', { className: 'unseen', textContent: `Question ${number}` });
    const text = node('div', { className: 'question', textContent: turn.question, dir: 'auto', hidden: turn.question === '' });
    const given = turn.with ? [shownWith(turn.with)] : [];
    const row = node('div', { className: 'row' }, time(turn.at), copyButton(() => turn.question, 'Copy the question'), button('Edit', acts.edit, 'quiet', 'Edit the question'));
    this.parts = node('div', { className: 'parts' });
    this.end = node('div', { className: 'end' });
    this.element = node('article', { className: 'turn' }, heading, node('div', { className: 'asked' }, ...given, text, row), this.parts, this.end);
  }

  add(element) {
    this.parts.append(element);
    grown();
    return element;
  }

  say(text) {
    if (!this.box) {
      this.box = answerBox();
      this.boxes.push(this.box);
      this.add(this.box.element);
    }
    this.box.push(text);
  }

  restart() {
    if (!this.box) return;
    this.box.element.remove();
    this.boxes.pop();
    this.box = null;
  }

  think(text) {
    if (!this.thought) {
      this.thought = node('p', { className: 'thought', dir: 'auto' });
      this.add(node('details', { className: 'thinking' }, node('summary', { textContent: 'Thinking' }), this.thought));
    }
    this.thought.append(text);
  }

  call(call) {
    this.box = null;
    this.thought = null;
    const known = this.cards.get(call.id);
    if (known) return known;
    const card = toolCard(call);
    this.cards.set(call.id, card);
    this.add(card.element);
    return card;
  }

  notice(text) {
    this.add(node('p', { className: 'notice', textContent: text }));
  }

  // What is under the answer. Only the last turn can be asked again.
  finish({ note = '', error = '', again = null, word = 'Try again', wait = 0 } = {}) {
    this.box = null;
    this.thought = null;
    if (this.turn.state === 'waiting') {
      this.cards.forEach((card) => card.drop('waits for you'));
      this.end.replaceChildren();
      return;
    }
    this.cards.forEach((card) => card.drop());
    const said = this.boxes.map((box) => box.text().trim()).filter(Boolean).join('\n\n');
    const row = node('div', { className: 'row' });
    if (this.turn.done) row.append(time(this.turn.done));
    if (this.turn.model) row.append(node('span', { className: 'by', textContent: this.turn.model }));
    if (said) row.append(copyButton(() => said, 'Copy the answer'));
    if (again) row.append(retry(word, again, wait, error ? '' : 'quiet'));
    const lines = [];
    if (error) lines.push(node('p', { className: 'error', textContent: error, dir: 'auto' }));
    if (note) lines.push(node('p', { className: 'note', textContent: note }));
    this.end.replaceChildren(...lines, ...(row.childElementCount ? [row] : []));
    grown();
  }

  // The person went on without a decision: the calls are answered as not made.
  leaveOpen() {
    this.element.querySelector('.approval')?.remove();
    if (this.turn.state !== 'waiting') return;
    Object.assign(this.turn, { state: 'done', note: 'You went on without deciding: the tool did not run.' });
    this.cards.forEach((card) => card.drop('not decided'));
  }

  results(messages) {
    for (const block of messages.flatMap((message) => message.content)) {
      if (block.type === 'tool_result' && this.cards.get(block.tool_use_id)?.isOpen()) this.block('user', block);
    }
  }

  // A turn that is known already.
  replay() {
    for (const text of this.turn.notices ?? []) this.notice(text);
    for (const message of after(this.turn)) {
      for (const block of message.content) this.block(message.role, block);
    }
    this.box = null;
  }

  block(role, block) {
    if (block.type === 'text' && role === 'assistant') {
      const box = answerBox();
      this.boxes.push(box);
      this.add(box.element);
      box.set(block.text);
    } else if (block.type === 'tool_use') this.call({ input: {}, ...this.turn.calls[block.id], ...block, needs_approval: false });
    else if (block.type === 'tool_result') {
      const text = block.content.map((part) => part?.text ?? '').join('\n');
      this.cards.get(block.tool_use_id)?.end({ is_error: block.is_error === true, text, duration_ms: this.turn.calls[block.tool_use_id]?.duration_ms });
    }
  }
}
