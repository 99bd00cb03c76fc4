// Prompts and resources: what is text is written into the message, all else is attached to the question, shown before it is sent, and stays
// with it.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { answered, axe, closeBrowser, lastTurn, open } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

// A picture of one point.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const text = (said) => ({ type: 'text', text: said });
const said = (role, content) => ({ role, content });
const PROMPTS = {
  plain: [said('user', text('Say it\nplainly'))],
  talk: [said('user', text('Look at this:')), said('user', { type: 'image', mimeType: 'image/png', data: PNG }), said('assistant', text('A single point.')), said('user', text('Which colour?'))],
};

const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  if (request.method !== 'POST') {
    response.writeHead(405).end();
    return;
  }
  const { id, method, params } = JSON.parse(body);
  const answer = (result) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result }));
  if (id === undefined) response.writeHead(202).end();
  else if (method === 'initialize') answer({ protocolVersion: '2025-06-18', capabilities: { tools: {}, prompts: {}, resources: {} }, serverInfo: { name: 's', version: '1' } });
  else if (method === 'tools/list') answer({ tools: [] });
  else if (method === 'prompts/list') answer({ prompts: Object.keys(PROMPTS).map((name) => ({ name })) });
  else if (method === 'resources/list') answer({ resources: [{ uri: 'a:b', name: 'notes' }] });
  else if (method === 'resources/templates/list') answer({ resourceTemplates: [] });
  else if (method === 'prompts/get') answer({ messages: PROMPTS[params.name] });
  else if (method === 'resources/read') answer({ contents: [{ uri: params.uri, text: 'its text' }] });
  else response.writeHead(404).end();
});

let stack;
before(async () => {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}/mcp`;
  stack = await Stack.start({ sandbox: false, servers: [{ name: 's', url, timeout: 60 }] });
  await until('the server to be up', async () => (await (await fetch(`${stack.url}/v1/servers`)).json()).servers[0].state === 'up');
});
after(async () => {
  await closeBrowser();
  await stack.stop();
  server.closeAllConnections();
  server.close();
});

async function choose(page, name) {
  await page.getByLabel('Message').fill('/prompt');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByRole('dialog').getByRole('button', { name }).click();
  await page.locator('#beyond-dialog').waitFor({ state: 'hidden' });
}

// What the page sends when the question is asked.
async function sent(page) {
  const [request] = await Promise.all([page.waitForRequest((one) => one.url().endsWith('/v1/chat')), page.getByRole('button', { name: 'Send' }).click()]);
  return request.postDataJSON();
}

test('a prompt that is one text is written, and may be changed', async (t) => {
  const page = await open(t, stack);
  await choose(page, 's__plain');
  assert.equal(await page.getByLabel('Message').inputValue(), 'Say it\nplainly');
  assert.equal((await sent(page)).message, 'Say it\nplainly');
  await answered(page, 'An answer from the stand-in.');
});

test('a resource is written with room for the question', async (t) => {
  const page = await open(t, stack);
  await page.getByLabel('Message').fill('/resources');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 's__notes' }).click();
  await page.locator('#beyond-dialog').waitFor({ state: 'hidden' });
  assert.equal(await page.getByLabel('Message').inputValue(), 'This is the resource a:b:\n\nits text\n\n');
});

test('a prompt with roles and pictures is shown, sent as it is, and stays with its question', async (t) => {
  const page = await open(t, stack);
  await choose(page, 's__talk');
  const attached = page.locator('#attached');
  await attached.getByText('With s__talk').click();
  await attached.getByText('Which colour?').waitFor();
  await until('the picture to be drawn', () => attached.locator('canvas').evaluate((canvas) => canvas.width === 1));
  await axe(page);
  await page.getByLabel('Message').fill('Be brief.');
  const body = await sent(page);
  assert.equal(body.message, 'Be brief.');
  assert.deepEqual(body.with.map(({ role, content }) => [role, content.map((block) => block.type)]), [['user', ['text', 'image']], ['assistant', ['text']], ['user', ['text']]]);
  await answered(page, 'An answer from the stand-in.');
  assert.equal(await attached.isVisible(), false, 'it has been sent');

  // After a reload it is what was asked with, and no answer.
  await page.reload();
  const turn = lastTurn(page);
  assert.deepEqual(await turn.locator('.answer').allTextContents(), ['An answer from the stand-in.']);
  assert.equal(await turn.locator('.question').textContent(), 'Be brief.');
  await turn.getByText('With s__talk').click();
  await turn.getByText('A single point.').waitFor();
  await axe(page);

  // It is asked again with it, changed or not; and goes on.
  await turn.getByRole('button', { name: 'Edit the question' }).click();
  assert.equal(await attached.isVisible(), true);
  await page.getByLabel('Message').fill('');
  const again = await sent(page);
  assert.deepEqual([again.message, again.with.length, again.messages], [undefined, 3, []]);
  await answered(page, 'An answer from the stand-in.');
  await page.getByLabel('Message').fill('And now?');
  assert.equal((await sent(page)).messages.length, 4);
  await answered(page, 'An answer from the stand-in.');
});

test('what was attached can be taken out', async (t) => {
  const page = await open(t, stack);
  await choose(page, 's__talk');
  await page.getByRole('button', { name: 'Take it out' }).click();
  assert.equal(await page.locator('#attached').isVisible(), false);
  await page.getByLabel('Message').fill('Hello');
  assert.equal((await sent(page)).with, undefined);
  await answered(page, 'An answer from the stand-in.');
});
