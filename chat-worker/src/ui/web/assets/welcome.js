// What an empty conversation shows: what can be asked here, from the tools that are there.
import { $, button } from './dom.js';
import { tools } from './stream.js';

// For tools that are well known by name; in this order.
const KNOWN = [
  ['list_tables', 'Which tables are there?'],
  ['create_table', 'Create some sample data.'],
  ['read_query', 'How many customers do we have, and which city has the most?'],
];

function ideas(offered) {
  const names = new Set(offered.map((tool) => tool.tool));
  const known = KNOWN.filter(([tool]) => names.has(tool)).map(([, idea]) => idea);
  const servers = [...new Set(offered.map((tool) => tool.server))];
  return [...known, ...servers.map((server) => `What can you do with ${server}?`)].slice(0, 4);
}

export async function suggest(choose) {
  const offered = await tools().catch(() => []);
  const servers = new Set(offered.map((tool) => tool.server)).size;
  const count = (number, word) => `${number} ${word}${number === 1 ? '' : 's'}`;
  $('welcome-text').textContent = offered.length
    ? `The model can use ${count(offered.length, 'tool')} of ${count(servers, 'server')}. You are asked before a tool runs that may destroy something.`
    : 'There are no tools at the moment: the model answers from what it knows.';
  $('ideas').replaceChildren(...ideas(offered).map((idea) => button(idea, () => choose(idea), 'idea')));
}
