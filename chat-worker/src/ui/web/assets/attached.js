// What a question is asked with: the messages of a prompt or of a resource, as the server made them. They are shown as they are sent.
import { node, visible } from './dom.js';

const PEOPLE = { user: 'You', assistant: 'Assistant' };

// Drawn, and not loaded: the page takes pictures from this server only.
function picture({ media_type: kind, data }) {
  const canvas = node('canvas', { className: 'picture', aria: { role: 'img', label: `A picture, ${kind}` } });
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  createImageBitmap(new Blob([bytes], { type: kind })).then((bitmap) => {
    Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    canvas.getContext('2d').drawImage(bitmap, 0, 0);
  }).catch(() => canvas.replaceWith(node('p', { className: 'detail', textContent: `[a picture, ${kind}, which this browser cannot show]` })));
  return canvas;
}

const part = (block) => (block.type === 'image' ? picture(block.source) : node('p', { className: 'quoted', textContent: visible(block.text ?? ''), dir: 'auto' }));

// All of it, folded.
export function shownWith({ name, messages }) {
  const said = messages.map(({ role, content }) => node('li', {}, node('span', { className: 'detail', textContent: PEOPLE[role] ?? role }), ...content.map(part)));
  return node('details', { className: 'with' }, node('summary', { textContent: `With ${visible(name)}` }), node('ol', { tabIndex: 0 }, ...said));
}

// Its one text, where it is nothing else: a person may change that before it is sent.
export function plain(messages) {
  const [first, ...others] = messages;
  return others.length === 0 && first?.content.length === 1 && first.content[0].type === 'text' ? first.content[0].text : null;
}

// The messages of a question: what it is asked with, and then what the person says.
export function asked({ message, with: given = [] }) {
  const said = message === undefined ? [] : [{ type: 'text', text: message }];
  const last = given.at(-1);
  if (!last) return said.length ? [{ role: 'user', content: said }] : [];
  return [...given.slice(0, -1), { role: last.role, content: [...last.content, ...said] }];
}
