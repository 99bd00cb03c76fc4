// What the page says when things go wrong: a circuit, limits, a server that is restarted or gone.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, open, screenshot } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

after(closeBrowser);

async function started(t, options) {
  const stack = await Stack.start(options);
  t.after(() => stack.stop());
  return stack;
}

test('a badge turns red when a circuit opens, and green again, without a reload', async (t) => {
  const stack = await started(t);
  const page = await open(t, stack);
  await page.locator('#servers .up', { hasText: 'sqlite' }).waitFor();
  const green = await page.locator('#servers li').evaluate((badge) => getComputedStyle(badge).color);
  await stack.sandbox.stop('SIGKILL');
  await page.locator('#servers .down', { hasText: /sqlite: down/ }).waitFor();
  const [red] = await page.locator('#servers li').evaluateAll((badges) => badges.map((badge) => getComputedStyle(badge).color));
  assert.notEqual(red, green);
  await until('it to be said', async () => /sqlite: down/.test(await page.locator('#announce').textContent()));
  await page.getByRole('button', { name: 'Servers 0/1 up' }).click();
  await axe(page);
  await screenshot(page, 'circuit');
  await page.keyboard.press('Escape');
  await ask(page, 'hello');
  await lastTurn(page).locator('.notice', { hasText: 'The server sqlite' }).waitFor();
  await answered(page, 'An answer from the stand-in.');
  await stack.startSandbox();
  await page.locator('#servers .up', { hasText: 'sqlite' }).waitFor({ timeout: 40_000 });
});

test('too many requests: the page says how long to wait, and then asks again', async (t) => {
  const stack = await started(t, { env: { CHAT_RATE_LIMIT_REQUESTS: '1', CHAT_RATE_LIMIT_WINDOW_SECONDS: '3' } });
  const page = await open(t, stack);
  await ask(page, 'first');
  await answered(page, 'An answer from the stand-in.');
  await ask(page, 'second');
  await lastTurn(page).getByText(/Too many requests; try again in \d s/).waitFor();
  const again = lastTurn(page).getByRole('button', { name: /^Try again in \d s$/ });
  assert.ok(await again.isDisabled());
  await screenshot(page, 'limited');
  await lastTurn(page).getByRole('button', { name: 'Try again', exact: true }).click();
  await answered(page, 'An answer from the stand-in.');
});

test('a replica that is stopped lets the answer end; the page says so, and connects again', async (t) => {
  const stack = await started(t, { env: { CHAT_DRAIN_SECONDS: '30' } });
  const page = await open(t, stack);
  await ask(page, 'Count slowly');
  await lastTurn(page).getByText('One two').waitFor();
  const stopping = stack.worker.stop('SIGTERM');
  await page.locator('#connection', { hasText: 'is being restarted' }).waitFor();
  await page.locator('#status', { hasText: 'this answer has 30 s to end' }).waitFor();
  await answered(page, 'twenty.');
  assert.equal(await stopping, 0);
  await ask(page, 'hello');
  await lastTurn(page).locator('.error', { hasText: 'The server cannot be reached.' }).waitFor();
  await page.locator('#connection', { hasText: 'cannot be reached' }).waitFor();
  await axe(page);
  await screenshot(page, 'gone');
  await stack.startWorker();
  await page.locator('#connection').waitFor({ state: 'hidden' });
  await lastTurn(page).getByRole('button', { name: 'Try again' }).click();
  await answered(page, 'An answer from the stand-in.');
});

test('an answer that is not whole when the time is over says why, and goes on elsewhere', async (t) => {
  const stack = await started(t, { env: { CHAT_DRAIN_SECONDS: '1' } });
  const page = await open(t, stack);
  await ask(page, 'Count slowly');
  await lastTurn(page).getByText('One two').waitFor();
  await stack.worker.stop('SIGTERM');
  await lastTurn(page).getByText('The server was restarted before the answer was whole.').waitFor();
  await stack.startWorker();
  await lastTurn(page).getByRole('button', { name: 'Try again' }).click();
  await answered(page, 'twenty.');
  assert.equal(await page.locator('.answer').count(), 1);
});

test('a server that dies in the middle leaves what was said, and a way to go on', async (t) => {
  const stack = await started(t);
  const page = await open(t, stack);
  await ask(page, 'Have a look, slow please');
  await lastTurn(page).getByText('One two').waitFor();
  await stack.worker.stop('SIGKILL');
  await lastTurn(page).locator('.error').waitFor();
  await stack.startWorker();
  await lastTurn(page).getByRole('button', { name: 'Go on' }).click();
  await answered(page, 'twenty.');
  assert.equal(await lastTurn(page).locator('.tool').count(), 1);
});
