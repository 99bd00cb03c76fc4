// A turn, from the question to its end: streaming, cards, stop, retry, edit, copy, export, and what a reload keeps.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, open, screenshot } from './support/page.mjs';
import { Stack, read, until } from './support/stack.mjs';

let stack;
before(async () => {
  stack = await Stack.start({ env: { CHAT_APPROVALS: 'always' } });
});
after(async () => { await closeBrowser(); await stack.stop(); });

test('an answer streams in, with a card for its tool, and what it cost', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'Create sample data');
  await answered(page, 'The table holds three customers.');
  await ask(page, 'How many are there?');
  await answered(page, 'There are 3 customers.');
  const turn = lastTurn(page);
  assert.equal(await turn.locator('strong').textContent(), '3');
  const card = turn.locator('details.tool');
  assert.match(await card.locator('summary').textContent(), /^sqlite · read_query done · (\d+ ms|\d+\.\d s)$/);
  await card.locator('summary').click();
  assert.match(await card.getByRole('group', { name: 'Arguments' }).textContent(), /SELECT COUNT\(\*\)/);
  assert.match(await card.getByRole('group', { name: 'Result' }).textContent(), /\b3\b/);
  await page.locator('#usage').getByText(/stand-in.* tokens · cost unknown/).waitFor();
  await page.getByRole('button', { name: /^Servers 1\/1 up/ }).click();
  await page.locator('#today').getByText(/Today on this server: [\d,]+ tokens/).waitFor();
  await axe(page);
  await screenshot(page, 'answer');
});

test('what is written while it streams is seen word by word, and Stop keeps it', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'Count slowly');
  await lastTurn(page).getByText('One two three').waitFor();
  assert.ok(!(await lastTurn(page).textContent()).includes('twenty'));
  assert.equal(await page.locator('#log').getAttribute('aria-busy'), 'true');
  await axe(page);
  await screenshot(page, 'running');
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('.end').getByText('Stopped.').waitFor();
  const said = await lastTurn(page).locator('.answer').textContent();
  await page.reload();
  await page.getByText('One two three').waitFor();
  assert.equal((await lastTurn(page).locator('.answer').textContent()).trim(), said.trim());
  await ask(page, 'and then?');
  await answered(page, 'An answer from the stand-in.');
});

test('a reload in the middle keeps what the tools have done, and the turn goes on from there', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'Have a look, slow please');
  await lastTurn(page).getByText('One two').waitFor();
  await page.reload();
  await lastTurn(page).getByText('The answer was interrupted.').waitFor();
  assert.match(await lastTurn(page).locator('.tool summary').textContent(), /list_tables done/);
  await lastTurn(page).getByRole('button', { name: 'Go on' }).click();
  await lastTurn(page).getByText('One two').waitFor();
  assert.equal(await lastTurn(page).locator('.tool').count(), 1, 'the tool did not run again');
  await page.getByRole('button', { name: 'Stop' }).click();
});

test('an answer that breaks off begins again, and nothing of the first attempt stays', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'again and again');
  await answered(page, 'This is the whole answer of the second attempt.');
  assert.equal(await lastTurn(page).locator('.answer').textContent(), 'This is the whole answer of the second attempt.');
});

test('a failure says what it was, and can be tried again', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'break');
  await lastTurn(page).locator('.error').waitFor();
  await axe(page);
  await screenshot(page, 'error');
  await lastTurn(page).getByRole('button', { name: 'Try again' }).click();
  await until('a second failure', async () => (await lastTurn(page).locator('.error').count()) === 1 && page.locator('#send').isVisible());
});

test('a question is edited: what came after it is replaced, and Esc leaves it as it was', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'first');
  await answered(page, 'An answer from the stand-in.');
  await ask(page, 'second');
  await until('two turns', async () => (await page.locator('.turn').count()) === 2 && page.locator('#send').isVisible());
  await page.getByRole('button', { name: 'Edit the question' }).first().click();
  assert.equal(await page.getByLabel('Message').inputValue(), 'first');
  await page.keyboard.press('Escape');
  assert.equal(await page.getByLabel('Message').inputValue(), '');
  await page.getByRole('button', { name: 'Edit the question' }).first().click();
  await ask(page, 'first, but better');
  await until('one turn', async () => (await page.locator('.turn').count()) === 1);
  await answered(page, 'An answer from the stand-in.');
  assert.equal(await page.locator('.question').textContent(), 'first, but better');
});

test('try again asks the same question anew', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'hello');
  await answered(page, 'An answer from the stand-in.');
  const before = stack.modelLog().length;
  await lastTurn(page).getByRole('button', { name: 'Try again' }).click();
  await until('the model to be asked', () => stack.modelLog().length > before);
  await answered(page, 'An answer from the stand-in.');
  assert.equal(await page.locator('.turn').count(), 1);
});

test('answers, questions and code are copied as they were written', async (t) => {
  const page = await open(t, stack, { permissions: ['clipboard-read', 'clipboard-write'] });
  await ask(page, 'a report');
  await answered(page, 'That is all.');
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await page.getByRole('button', { name: 'Copy the answer' }).click();
  await until('the answer', async () => (await clipboard()).startsWith('## The quarter in numbers'));
  await page.getByRole('button', { name: 'Copy the code' }).click();
  await until('the code', async () => /^SELECT city[\s\S]*DESC;$/.test(await clipboard()));
  await page.getByRole('button', { name: 'Copy the question' }).click();
  await until('the question', async () => (await clipboard()) === 'a report');
});

test('a conversation is exported for people and for programs', async (t) => {
  const page = await open(t, stack);
  await ask(page, 'How many are there?');
  await answered(page, 'customers.');
  const file = async (name) => {
    await page.getByRole('button', { name: 'Menu' }).click();
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name }).click()]);
    return [download.suggestedFilename(), read(await download.path())];
  };
  const [name, text] = await file('Export as Markdown');
  assert.equal(name, 'How-many-are-there.md');
  assert.match(text, /> How many are there\?[\s\S]*sqlite__read_query[\s\S]*There are \*\*3\*\* customers\./);
  const { messages } = JSON.parse((await file('Export as JSON'))[1]);
  assert.deepEqual(messages.map((message) => message.role), ['user', 'assistant', 'user', 'assistant']);
});

test('the reader is kept at the end while it streams, and let go when they scroll away', async (t) => {
  const page = await open(t, stack, { viewport: { width: 800, height: 500 } });
  await ask(page, 'a long story');
  const log = page.locator('#log');
  const distance = () => log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
  await lastTurn(page).getByText('Twelve.').waitFor();
  assert.ok(await distance() < 80);
  await log.hover();
  await page.mouse.wheel(0, -2000);
  await page.getByRole('button', { name: 'Jump to the latest' }).waitFor();
  await answered(page, 'The end.');
  assert.ok(await distance() > 80);
  await page.getByRole('button', { name: 'Jump to the latest' }).click();
  await until('the end', async () => (await distance()) < 5);
});
