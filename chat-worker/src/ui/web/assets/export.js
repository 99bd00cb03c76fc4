// A conversation as a file: for people (Markdown), or for programs (the messages, as the API takes them).
import { laidOut, node } from './dom.js';
import { after, whole, written } from './store.js';

function fenced(text, language) {
  // Longer than any fence within.
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), (match) => match[0].length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

const quoted = (text) => text.split('\n').map((line) => `> ${line}`).join('\n');

export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title || 'Conversation'}`];
  for (const turn of conversation.turns) {
    parts.push(`## ${new Date(turn.at).toISOString()}`);
    for (const { role, content } of turn.with?.messages ?? []) {
      const said = content.map((block) => block.text ?? `[a picture, ${block.source?.media_type}]`).join('\n\n');
      parts.push(quoted(role === 'assistant' ? `Assistant: ${said}` : said));
    }
    if (turn.question) parts.push(quoted(turn.question));
    for (const text of turn.notices ?? []) parts.push(`*${text}*`);
    for (const message of after(turn)) {
      for (const block of message.content) {
        if (block.type === 'text' && message.role === 'assistant') parts.push(block.text);
        if (block.type === 'tool_use') {
          const { name = block.name, arguments: json = JSON.stringify(block.input ?? {}) } = turn.calls[block.id] ?? {};
          parts.push(`**Tool call: ${name}**`, fenced(laidOut(json), 'json'));
        }
        if (block.type === 'tool_result') parts.push(block.is_error ? '**Error:**' : '**Result:**', fenced(block.content.map((part) => part?.text ?? '').join('\n'), ''));
      }
    }
    if (turn.note) parts.push(`*${turn.note}*`);
  }
  return `${parts.join('\n\n')}\n`;
}

export const asJson = (conversation) => `${written({ title: conversation.title, messages: whole(conversation) }, conversation, 2)}\n`;

export function download(name, type, text) {
  const anchor = node('a', { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
}

export const fileName = (conversation, ending) => `${(conversation.title || 'conversation').replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 50).replace(/^-|-$/g, '') || 'conversation'}.${ending}`;
