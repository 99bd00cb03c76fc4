// Markdown to DOM nodes. It never makes HTML from text: every character of a model's answer becomes a text node, so there
// is nothing to sanitise. Links go to http, https and mailto only; images become links.

const SAFE = /^(https?:|mailto:)/i;

function element(name, ...children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function link(text, target) {
  if (!SAFE.test(target)) return document.createTextNode(text);
  const node = element('a', text);
  node.href = target;
  node.rel = 'noopener noreferrer';
  node.target = '_blank';
  return node;
}

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|!?\[([^\]]*)\]\(([^\s)]+)\)|\*\*([\s\S]+?)\*\*|\*([^*\s][^*]*)\*|(https?:\/\/[^\s<>)]+)/g;

function inline(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > end) nodes.push(text.slice(end, match.index));
    end = match.index + match[0].length;
    if (match[2] !== undefined) nodes.push(element('code', match[2].trim()));
    else if (match[4] !== undefined) nodes.push(link(match[3] || match[4], match[4]));
    else if (match[5] !== undefined) nodes.push(element('strong', ...inline(match[5])));
    else if (match[6] !== undefined) nodes.push(element('em', ...inline(match[6])));
    else nodes.push(link(match[7], match[7]));
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim());
}

function table(lines) {
  const row = (line, name) => element('tr', ...cells(line).map((cell) => element(name, ...inline(cell))));
  const head = element('thead', row(lines[0], 'th'));
  return element('table', head, element('tbody', ...lines.slice(2).map((line) => row(line, 'td'))));
}

const FENCE = /^\s*(```+|~~~+)\s*(\S*)/;
const ITEM = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/;
const RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

// The blocks of a text, as nodes.
export function markdown(text) {
  const lines = text.split('\n');
  const out = document.createDocumentFragment();
  let at = 0;
  const take = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at], at - from)) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(FENCE);
    const heading = line.match(/^(#{1,6})\s+(.*)$/);
    if (line.trim() === '') at += 1;
    else if (fence) {
      at += 1;
      const code = take((next) => !next.trim().startsWith(fence[1]));
      at += 1;
      out.append(element('pre', element('code', code.join('\n'))));
    } else if (heading) {
      at += 1;
      // The page has its own h1.
      out.append(element(`h${Math.min(6, heading[1].length + 1)}`, ...inline(heading[2])));
    } else if (line.includes('|') && at + 1 < lines.length && lines[at + 1].includes('-') && RULE.test(lines[at + 1])) {
      out.append(table(take((next) => next.includes('|'))));
    } else if (ITEM.test(line)) {
      const ordered = /\d/.test(line.match(ITEM)[2]);
      const items = take((next) => ITEM.test(next) || (/^\s+\S/.test(next)));
      const list = element(ordered ? 'ol' : 'ul');
      for (const item of items) {
        const match = item.match(ITEM);
        if (match) list.append(element('li', ...inline(match[3])));
        else list.lastChild.append(' ', ...inline(item.trim()));
      }
      out.append(list);
    } else if (line.startsWith('>')) {
      const quoted = take((next) => next.startsWith('>')).map((next) => next.replace(/^>\s?/, ''));
      out.append(element('blockquote', markdown(quoted.join('\n'))));
    } else {
      const text = take((next, index) => next.trim() !== '' && (index === 0 || !(FENCE.test(next) || ITEM.test(next) || /^#{1,6}\s/.test(next))));
      out.append(element('p', ...inline(text.join('\n'))));
    }
  }
  return out;
}
