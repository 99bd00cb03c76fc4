// A tool that takes its time: the page says how far it is, in the words of its server.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, open } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

let finish;
const finished = new Promise((resolve) => { finish = resolve; });

// An MCP server whose tool is half way until it is told to finish.
const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  if (request.method !== 'POST') {
    response.writeHead(405).end();
    return;
  }
  const { id, method, params } = JSON.parse(body);
  const answer = (result) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result }));
  const say = (message) => response.write(`data: ${JSON.stringify({ jsonrpc: '2.0', ...message })}\n\n`);
  if (id === undefined) response.writeHead(202).end();
  else if (method === 'initialize') answer({ protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'slow', version: '1' } });
  else if (method === 'tools/list') answer({ tools: [{ name: 'toil', inputSchema: { type: 'object' }, annotations: { readOnlyHint: true } }] });
  else if (method === 'tools/call') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    say({ method: 'notifications/progress', params: { progressToken: params._meta.progressToken, progress: 1, total: 2, message: 'half\u202e way' } });
    await finished;
    say({ id, result: { content: [{ type: 'text', text: 'all done' }] } });
    response.end();
  } else response.writeHead(404).end();
});

let stack;
before(async () => {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}/mcp`;
  stack = await Stack.start({ sandbox: false, servers: [{ name: 'slow', url, timeout: 60 }] });
  await until('the server to be up', async () => (await (await fetch(`${stack.url}/v1/servers`)).json()).servers[0].state === 'up');
});
after(async () => {
  await closeBrowser();
  await stack.stop();
  server.closeAllConnections();
  server.close();
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
