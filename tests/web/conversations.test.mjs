// Several conversations: the list, names, deleting, two tabs, and what was stored by somebody else.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, open, screenshot } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

let stack;
before(async () => { stack = await Stack.start(); });
after(async () => { await closeBrowser(); await stack.stop(); });

const titles = (page) => page.locator('#conversations .open').allTextContents();
const fresh = async (page, question) => {
  await page.getByRole('button', { name: 'New conversation' }).click();
  await ask(page, question);
  await answered(page, 'An answer from the stand-in.');
};

test('conversations are listed, opened, renamed and deleted', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'about apples');
  await answered(page, 'An answer from the stand-in.');
  await fresh(page, 'about pears');
  assert.deepEqual(await titles(page), ['about pears', 'about apples']);
  await page.getByRole('button', { name: 'about apples', exact: true }).click();
  assert.equal(await page.locator('.question').textContent(), 'about apples');
  assert.match(await page.title(), /^about apples/);

  await page.getByRole('button', { name: 'Rename: about apples' }).click();
  await page.getByLabel('Name of the conversation').fill('fruit');
  await page.keyboard.press('Enter');
  assert.ok((await titles(page)).includes('fruit'));
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'fruit');
  await page.getByRole('button', { name: 'Rename: fruit' }).click();
  await page.getByLabel('Name of the conversation').fill('nothing');
  await page.keyboard.press('Escape');
  assert.ok((await titles(page)).includes('fruit'));
  await axe(page);
  await screenshot(page, 'conversations');

  await page.getByRole('button', { name: 'Delete: fruit' }).click();
  await axe(page);
  await page.keyboard.press('Escape');
  assert.equal((await titles(page)).length, 2);
  await page.getByRole('button', { name: 'Delete: fruit' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await until('one conversation', async () => (await titles(page)).length === 1);
  await page.reload();
  await until('the list', async () => (await titles(page)).join() === 'about pears');
});

test('the way back leads to the conversation before', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'about apples');
  await answered(page, 'An answer from the stand-in.');
  await fresh(page, 'about pears');
  await page.getByRole('button', { name: 'about apples', exact: true }).click();
  await page.goBack();
  await page.locator('.question', { hasText: 'about pears' }).waitFor();
});

test('a turn goes on while another conversation is in view', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'Count slowly');
  await lastTurn(page).getByText('One two').waitFor();
  await fresh(page, 'meanwhile');
  await page.getByRole('button', { name: 'Count slowly', exact: true }).click();
  await page.getByRole('button', { name: 'Stop' }).waitFor();
  await answered(page, 'twenty.');
});

test('two tabs see each other, and neither loses what the other did not know of', async (t) => {
  const one = await open(t, stack);
  await ask(one, 'from one');
  await answered(one, 'An answer from the stand-in.');
  const two = await one.context().newPage();
  await two.goto(one.url());
  await two.locator('.question', { hasText: 'from one' }).waitFor();
  await ask(two, 'from two');
  await answered(two, 'An answer from the stand-in.');
  await one.locator('.question', { hasText: 'from two' }).waitFor();

  // Both at once.
  await ask(one, 'Count slowly');
  await lastTurn(one).getByText('One two').waitFor();
  await ask(two, 'at the same time');
  await answered(two, 'An answer from the stand-in.');
  await answered(one, 'twenty.');
  const both = async (page) => (await titles(page)).filter((title) => title.startsWith('from one')).length;
  await until('two conversations', async () => (await both(one)) === 2 && (await both(two)) === 2);
});

test('what cannot be read is said, and deleted; what was planted is text', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'hello');
  await answered(page, 'An answer from the stand-in.');
  await page.evaluate(() => {
    const evil = '<img src=x onerror=alert(1)><script>alert(2)</script>';
    const key = Object.keys(localStorage).find((name) => name.startsWith('mcpfleet.conversation.'));
    const conversation = JSON.parse(localStorage.getItem(key));
    conversation.title = evil;
    Object.assign(conversation.turns[0], { question: evil, note: evil, model: evil });
    conversation.turns[0].delta = [
      { role: 'user', content: [{ type: 'text', text: evil }] },
      { role: 'assistant', content: [{ type: 'text', text: `${evil} [x](javascript:alert(3))` }, { type: 'tool_use', id: evil, name: evil, input: { a: evil } }] },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: evil, content: [{ type: 'text', text: evil }] }] },
    ];
    conversation.turns[0].calls = { [evil]: { server: evil, tool: evil, duration_ms: evil } };
    localStorage.setItem(key, JSON.stringify(conversation));
    const index = JSON.parse(localStorage.getItem('mcpfleet.conversations'));
    Object.values(index)[0].title = evil;
    index.broken = { title: 'broken', updated: 1, rev: 1 };
    localStorage.setItem('mcpfleet.conversations', JSON.stringify(index));
    localStorage.setItem('mcpfleet.conversation.broken', '{"turns": [{"delta": 7}]}');
  });
  await page.reload();
  await page.locator('.question', { hasText: '<img' }).waitFor();
  assert.equal(await page.locator('#log img, #log script, #log a, #side img, #side script').count(), 0);
  await page.getByRole('button', { name: 'broken', exact: true }).click();
  await page.getByRole('alert').getByText('cannot be read').waitFor();
  await page.getByRole('button', { name: 'Delete: broken' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await until('one left', async () => (await titles(page)).length === 1);
});

test('a full storage is said, and the conversation goes on', async (t) => {
  const page = await open(t, stack);
  await page.evaluate(() => {
    for (let size = 4_000_000; size > 10; size = Math.floor(size / 2)) {
      try {
        for (let n = 0; ; n += 1) localStorage.setItem(`fill.${size}.${n}`, 'x'.repeat(size));
      } catch { /* it is full for this size */ }
    }
  });
  await ask(page, 'hello');
  await answered(page, 'An answer from the stand-in.');
  await page.getByRole('alert').getByText('no more room').waitFor();
});
