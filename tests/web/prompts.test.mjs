// Prompts and resources: what is text is written into the message, all else is attached to the question, shown before it is sent, and stays
// with it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chatOver } from './support/mcp.mjs';
import { answered, axe, closeBrowser, lastTurn, open } from './support/page.mjs';
import { until } from './support/stack.mjs';

// A picture of one point.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const text = (said) => ({ type: 'text', text: said });
const said = (role, content) => ({ role, content });
const PROMPTS = {
  plain: [said('user', text('Say it\nplainly'))],
  talk: [said('user', text('Look at this:')), said('user', { type: 'image', mimeType: 'image/png', data: PNG }), said('assistant', text('A single point.')), said('user', text('Which colour?'))],
};

let stack;
let stop;
before(async () => {
  ({ stack, stop } = await chatOver('s', { tools: {}, prompts: {}, resources: {} }, {
    'tools/list': { tools: [] },
    'prompts/list': { prompts: Object.keys(PROMPTS).map((name) => ({ name })) },
    'resources/list': { resources: [{ uri: 'a:b', name: 'notes' }] },
    'resources/templates/list': { resourceTemplates: [] },
    'prompts/get': ({ name }) => ({ messages: PROMPTS[name] }),
    'resources/read': ({ uri }) => ({ contents: [{ uri, text: 'its text' }] }),
  }));
});
after(async () => {
  await closeBrowser();
  await stop();
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
