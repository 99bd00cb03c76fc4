// A tool that takes its time: the page says how far it is, in the words of its server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chatOver } from './support/mcp.mjs';
import { answered, ask, axe, closeBrowser, lastTurn, open } from './support/page.mjs';

let finish;
const finished = new Promise((resolve) => { finish = resolve; });

// Half way until it is told to finish.
async function toil(params, { id, response }) {
  const say = (message) => response.write(`data: ${JSON.stringify({ jsonrpc: '2.0', ...message })}\n\n`);
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  say({ method: 'notifications/progress', params: { progressToken: params._meta.progressToken, progress: 1, total: 2, message: 'half\u202e way' } });
  await finished;
  say({ id, result: { content: [{ type: 'text', text: 'all done' }] } });
  response.end();
}

let stack;
let stop;
before(async () => {
  const tools = [{ name: 'toil', inputSchema: { type: 'object' }, annotations: { readOnlyHint: true } }];
  ({ stack, stop } = await chatOver('slow', { tools: {} }, { 'tools/list': { tools }, 'tools/call': toil }));
});
after(async () => {
  await closeBrowser();
  await stop();
});

test('a card says how far its tool is, and then what it came to', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'Please toil');
  const summary = lastTurn(page).locator('.tool summary');
  await summary.getByText(/running · \d+ s · half way/).waitFor();
  await axe(page);
  finish();
  await answered(page, 'It said all done.');
  assert.match(await summary.textContent(), /^slow · toil done · /);
});
