// Markdown to DOM nodes. It never makes HTML from text: every character of a model's answer becomes a text node, so there
// is nothing to sanitise. Links go to http, https and mailto only; images become links, since nothing is loaded from elsewhere.
import { copyButton, node, visible } from './dom.js';

const SAFE = /^(https?:|mailto:)/i;

function link(text, target) {
  if (!SAFE.test(target)) return document.createTextNode(text);
  // Where it leads is shown, whatever it says.
  return node('a', { href: target, rel: 'noopener noreferrer nofollow', target: '_blank', title: visible(target) }, ...inline(text, true));
}

const INLINE = /\\([!-/:-@[-`{-~])|(`+)([\s\S]*?[^`])\2(?!`)|!?\[([^[\]]*)\]\(\s*<?([^\s)<>]{1,4000})>?(?:\s+"[^"]*")?\s*\)|\*\*(?=\S)([\s\S]*?\S)\*\*|\*(?=\S)([^*]*[^*\s])\*|(?<!\w)_(?=\S)([^_]*[^_\s])_(?!\w)|~~(?=\S)([\s\S]*?\S)~~|(https?:\/\/[^\s<>"`|]+)|( {2,}|\\)\n/g;

// Marks inside of marks are read so deep, and paragraphs so long: beyond it, text is text.
const DEEPEST = 16;
const LONGEST = 20_000;

function inline(text, within = false, depth = 0) {
  if (depth > DEEPEST || text.length > LONGEST) return [text];
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, escaped, , code, label, target, strong, star, underscore, struck, bare, hard] = match;
    if (match.index > end) nodes.push(text.slice(end, match.index));
    end = match.index + whole.length;
    if (escaped !== undefined) nodes.push(escaped);
    else if (code !== undefined) nodes.push(node('code', {}, code.length > 2 ? code.replace(/^ (.*) $/s, '$1') : code));
    else if (target !== undefined) nodes.push(within ? label : link(label || target, target));
    else if (strong !== undefined) nodes.push(node('strong', {}, ...inline(strong, within, depth + 1)));
    else if (star ?? underscore) nodes.push(node('em', {}, ...inline(star ?? underscore, within, depth + 1)));
    else if (struck !== undefined) nodes.push(node('s', {}, ...inline(struck, within, depth + 1)));
    else if (hard !== undefined) nodes.push(node('br'));
    else if (within) nodes.push(bare);
    else {
      const url = bare.replace(/[.,;:!?)'*]+$/, '');
      nodes.push(node('a', { href: url, rel: 'noopener noreferrer nofollow', target: '_blank' }, url), bare.slice(url.length));
    }
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

const FENCE = /^( *)(```+|~~~+) *([^\s`]*)/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +(.*)|)$/;
const HEADING = /^ {0,3}(#{1,6}) +(.*?)(?: +#+)?$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const COLUMNS = /^ *\|? *:?-+:? *(\| *:?-+:? *)*\|? *$/;
const isTable = (lines, at) => lines[at].includes('|') && at + 1 < lines.length && lines[at + 1].includes('-') && COLUMNS.test(lines[at + 1]);

function cells(line) {
  const inner = line.trim().replace(/^\|/, '').replace(/(?<!\\)\|$/, '');
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
}

function table(lines) {
  const sides = cells(lines[1]).map((cell) => (cell.endsWith(':') ? (cell.startsWith(':') ? 'center' : 'right') : 'left'));
  const row = (line, name) => node('tr', {}, ...sides.map((side, column) => node(name, { className: side }, ...inline(cells(line)[column] ?? ''))));
  const body = node('tbody', {}, ...lines.slice(2).map((line) => row(line, 'td')));
  const made = node('table', {}, node('thead', {}, row(lines[0], 'th')), body);
  // Wider than the screen, it scrolls by itself; the keyboard must get there, too.
  return node('div', { className: 'wide', tabIndex: 0, aria: { role: 'group', label: 'Table' } }, made);
}

export function codeBlock(text, language = '') {
  const name = language ? `Code, ${language}` : 'Code';
  const head = node('div', { className: 'code-head' }, node('span', { textContent: language || 'code' }), copyButton(() => text, 'Copy the code'));
  const pre = node('pre', { tabIndex: 0, aria: { role: 'group', label: name } }, node('code', {}, text));
  return node('div', { className: 'code' }, head, pre);
}

function items(lines, depth) {
  const indent = lines[0].match(ITEM)[1].length;
  const ordered = /\d/.test(lines[0].match(ITEM)[2]);
  const made = node(ordered ? 'ol' : 'ul');
  if (ordered) made.start = parseInt(lines[0].match(ITEM)[2], 10);
  const groups = [];
  for (const line of lines) {
    const match = line.match(ITEM);
    if (match && match[1].length <= indent + 1) groups.push([match[3] ?? '']);
    else groups.at(-1).push(line.slice(Math.min(indent + 2, line.search(/\S|$/))));
  }
  for (const group of groups) {
    const task = group[0].match(/^\[([ xX])\] +(.*)$/);
    if (task) group[0] = `${task[1] === ' ' ? '☐' : '☑'} ${task[2]}`;
    const content = markdown(group.join('\n'), depth + 1);
    // A short item is no paragraph of its own.
    const first = content.firstElementChild;
    if (first?.tagName === 'P') first.replaceWith(...first.childNodes);
    made.append(node('li', {}, content));
  }
  return made;
}

// A text cut into its blocks: a block is drawn again only when its own text has changed, which keeps long answers quick.
export function blocks(text) {
  const lines = text.split('\n');
  const found = [];
  let at = 0;
  let level = 2;
  const take = (kind, test) => {
    const from = at;
    do at += 1; while (at < lines.length && test(lines[at], at));
    found.push([kind, lines.slice(from, at).join('\n')]);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(FENCE);
    if (line.trim() === '') at += 1;
    else if (fence) {
      let open = true;
      take('code', (next) => {
        const was = open;
        if (next.trim().startsWith(fence[2]) && /^[`~]+$/.test(next.trim())) open = false;
        return was;
      });
    } else if (HEADING.test(line)) {
      take('heading', () => false);
      // Below the heading of the question, and no level left out.
      level = Math.min(6, line.match(HEADING)[1].length + 2, level + 1);
      found.at(-1).push(level);
    } else if (RULE.test(line)) take('rule', () => false);
    else if (isTable(lines, at)) take('table', (next) => next.includes('|'));
    else if (ITEM.test(line)) {
      // A blank line ends a list, unless the list goes on behind it.
      take('list', (next, index) => ITEM.test(next) || /^ +\S/.test(next) || (next.trim() === '' && (ITEM.test(lines[index + 1] ?? '') || /^ {2,}\S/.test(lines[index + 1] ?? ''))));
    } else if (line.startsWith('>')) take('quote', (next) => next.startsWith('>'));
    else take('text', (next, index) => next.trim() !== '' && !FENCE.test(next) && !HEADING.test(next) && !RULE.test(next) && !/^ *[-*+] +\S/.test(next) && !next.startsWith('>') && !isTable(lines, index));
  }
  return found;
}

export function draw([kind, text, level], depth = 0) {
  if (depth > DEEPEST) return node('p', { dir: 'auto' }, text);
  if (kind === 'code') {
    const lines = text.split('\n');
    const [, indent, mark, language] = lines[0].match(FENCE);
    const closed = lines.length > 1 && lines.at(-1).trim().startsWith(mark);
    const inner = lines.slice(1, closed ? -1 : undefined).map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line));
    return codeBlock(inner.join('\n'), language);
  }
  if (kind === 'heading') {
    return node(`h${level}`, {}, ...inline(text.match(HEADING)[2]));
  }
  if (kind === 'rule') return node('hr');
  if (kind === 'table') return table(text.split('\n'));
  if (kind === 'list') return items(text.split('\n'), depth);
  if (kind === 'quote') return node('blockquote', {}, markdown(text.split('\n').map((line) => line.replace(/^> ?/, '')).join('\n'), depth + 1));
  return node('p', { dir: 'auto' }, ...inline(text));
}

function markdown(text, depth) {
  const out = document.createDocumentFragment();
  out.append(...blocks(text).map((block) => draw(block, depth)));
  return out;
}
