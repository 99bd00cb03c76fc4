// Tools that may destroy: a person decides, once, for always, not, or never; also after a reload.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, open, screenshot } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

let stack;
before(async () => { stack = await Stack.start(); });
after(async () => { await closeBrowser(); await stack.stop(); });
let page;

const decide = (name) => page.getByRole('region', { name: /May th/ }).getByRole('button', { name, exact: true }).click();
const asked = () => page.getByRole('region', { name: 'May this tool run?' }).waitFor();
const lasting = async (t) => {
  page = await open(t, stack);
  await ask(page, 'Create sample data');
};

beforeEach(async () => { page = null; });

test('once runs it once, and asks again the next time', async (t) => {
  await lasting(t);
  // Both the table and the rows are asked about, one after the other.
  for (let calls = 0; calls < 2; calls += 1) {
    await until('a question or the end', async () => (await page.locator('.approval').count()) || (await page.locator('#send').isVisible() && (await lastTurn(page).textContent()).includes('three customers')));
    if (await page.locator('.approval').count()) await decide('Allow once');
  }
  await answered(page, 'The table holds three customers.');
  await ask(page, 'delete Radia');
  await asked();
  assert.match(await page.locator('.approval pre').textContent(), /DELETE FROM customers WHERE id = 3/);
  assert.equal(await page.evaluate(() => document.activeElement.className), 'approval');
  await axe(page);
  await screenshot(page, 'approval');
  await decide('Allow once');
  await answered(page, 'Done.');
  await ask(page, 'delete Radia');
  await asked();
  await decide('Deny');
  await answered(page, 'Then I leave it.');
  assert.match(await lastTurn(page).locator('.tool summary').textContent(), /denied/);
});

test('always is not asked again in this conversation, and in a new one it is', async (t) => {
  page = await open(t, stack);
  await ask(page, 'delete Radia');
  await asked();
  await decide('Always allow');
  await answered(page, 'Done.');
  await page.reload();
  await ask(page, 'delete Radia');
  await answered(page, 'Done.');
  await page.getByRole('button', { name: 'New conversation' }).click();
  await ask(page, 'delete Radia');
  await asked();
});

test('never is answered without asking', async (t) => {
  page = await open(t, stack);
  await ask(page, 'delete Radia');
  await asked();
  await decide('Never allow');
  await answered(page, 'Then I leave it.');
  await ask(page, 'delete Radia');
  await until('a second refusal', async () => (await page.locator('.turn').count()) === 2 && (await lastTurn(page).textContent()).includes('Then I leave it.'));
  assert.equal(await page.locator('.approval').count(), 0);
});

test('a decision that waits is there after a reload, and can be made then', async (t) => {
  page = await open(t, stack);
  await ask(page, 'delete Radia');
  await asked();
  await page.reload();
  await asked();
  assert.match(await page.locator('.approval').textContent(), /sqlite · write_query[\s\S]*DELETE FROM customers/);
  assert.equal(await page.evaluate(() => document.activeElement.className), 'approval');
  await decide('Always allow');
  await answered(page, 'Done.');
  assert.equal(await page.locator('.turn').count(), 1);
});

test('asking something else instead leaves the tool alone', async (t) => {
  page = await open(t, stack);
  await ask(page, 'delete Radia');
  await asked();
  await ask(page, 'never mind');
  await answered(page, 'An answer from the stand-in.');
  assert.equal(await page.locator('.approval').count(), 0);
  await page.reload();
  await page.getByText('An answer from the stand-in.').waitFor();
  assert.equal(await page.locator('.approval').count(), 0);
});

test('letters that cannot be seen are shown in what is to be approved', async (t) => {
  page = await open(t, stack);
  await ask(page, 'something hidden');
  await asked();
  assert.match(await page.locator('.approval pre').textContent(), /\\u202egnihton\\u202c\\u200b/);
});

test('arguments are shown as they are sent, and go back so', async (t) => {
  const exact = /"params": ?\[\s*1\.0,\s*12345678901234567890\s*\]/;
  page = await open(t, stack);
  await ask(page, 'write it exactly');
  await asked();
  assert.match(await page.locator('.approval pre').textContent(), exact);
  await page.reload();
  await asked();
  assert.match(await page.locator('.approval pre').textContent(), exact);
  const sent = page.waitForRequest((request) => request.url().endsWith('/v1/chat'));
  await decide('Allow once');
  assert.match((await sent).postData(), exact);
});

test('what is being written when a question comes up is no answer to it', async (t) => {
  page = await open(t, stack);
  let answer;
  const held = new Promise((resolve) => { answer = resolve; });
  await page.route('**/v1/chat', async (route) => { await held; await route.continue(); });
  await ask(page, 'delete Radia');
  const words = 'the next thought has some spaces';
  await page.getByLabel('Message').focus();
  await page.keyboard.type(words.slice(0, 10));
  answer();
  await page.keyboard.type(words.slice(10, 20), { delay: 60 });
  await asked();
  await page.keyboard.type(words.slice(20), { delay: 20 });
  assert.equal(await page.getByLabel('Message').inputValue(), words);
  assert.equal(await page.locator('.approval').count(), 1);
});
