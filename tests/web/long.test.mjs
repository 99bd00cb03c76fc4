// A conversation that grows out of the model's window: people keep all of it, the model goes on from a summary.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, open, screenshot } from './support/page.mjs';
import { Stack } from './support/stack.mjs';

let stack;
before(async () => { stack = await Stack.start({ script: new URL('long.yaml', import.meta.url).pathname }); });
after(async () => { await closeBrowser(); await stack.stop(); });

const long = (name) => `What is in ${name}? ${'word '.repeat(1_900)}`;
const notice = (page) => lastTurn(page).locator('.notice', { hasText: 'summarised' });
const sent = (page) => page.waitForRequest((request) => request.url().endsWith('/v1/chat')).then((request) => request.postDataJSON());

test('a summarised conversation is whole for people, goes on, and says what happened', async (t) => {
  const page = await open(t, stack);
  await ask(page, long('the first'));
  await answered(page, 'So it goes on.');
  assert.equal(await notice(page).count(), 0);
  await ask(page, long('the second'));
  await answered(page, 'So it goes on.');
  await notice(page).waitFor();

  await page.reload();
  await notice(page).waitFor();
  assert.equal(await page.locator('.turn').count(), 2);
  assert.match(await page.locator('.question').first().textContent(), /^What is in the first/);
  assert.equal(await page.getByText('They spoke of many words.').count(), 0, 'the summary is for the model');
  await axe(page);
  await screenshot(page, 'summarised');

  const next = sent(page);
  await ask(page, 'and now?');
  const body = JSON.stringify((await next).messages);
  assert.ok(body.includes('They spoke of many words.') && body.includes('the second') && !body.includes('the first'));
  await answered(page, 'So it goes on.');

  const exported = async (name) => {
    await page.getByRole('button', { name: 'Menu' }).click();
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name }).click()]);
    return readFileSync(await download.path(), 'utf8');
  };
  const { messages } = JSON.parse(await exported('Export as JSON'));
  assert.deepEqual(messages.map((message) => message.role), ['user', 'assistant', 'user', 'assistant', 'user', 'assistant']);
  assert.match(messages[0].content[0].text, /^What is in the first/);
  assert.match(await exported('Export as Markdown'), /What is in the first\?[\s\S]*What is in the second\?[\s\S]*is being summarised[\s\S]*and now\?/);
});

test('a question from before the summary is asked anew with what came before it', async (t) => {
  const page = await open(t, stack);
  await ask(page, long('the first'));
  await answered(page, 'So it goes on.');
  await ask(page, long('the second'));
  await answered(page, 'So it goes on.');
  await page.getByRole('button', { name: 'Edit the question' }).first().click();
  await page.getByLabel('Message').fill('something short');
  const next = sent(page);
  await page.getByRole('button', { name: 'Send' }).click();
  assert.deepEqual((await next).messages, []);
  await answered(page, 'So it goes on.');
  assert.equal(await page.locator('.turn').count(), 1);
  assert.equal(await notice(page).count(), 0);
});
