// Getting in and out: the token, the cookie, rotation.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { answered, ask, axe, closeBrowser, open, screenshot } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

let stack;
before(async () => { stack = await Stack.start({ env: { token: 's3cret-of-length', CHAT_TRUSTED_PROXIES: '127.0.0.0/8' } }); });
after(async () => { await closeBrowser(); await stack.stop(); });

const signIn = async (page, token) => {
  await page.getByLabel('Access token').fill(token);
  await page.keyboard.press('Enter');
};

test('a wrong token is said to be wrong, the right one opens, and the cookie is out of reach', async (t) => {
  stack.setToken('s3cret-of-length');
  const page = await open(t, stack, { ready: false });
  await axe(page);
  await screenshot(page, 'signin');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'token');
  await signIn(page, 'guess');
  await page.getByRole('alert').getByText('That is not the token.').waitFor();
  await axe(page);
  await signIn(page, 's3cret-of-length');
  await page.getByRole('heading', { name: 'What would you like to know?' }).waitFor();
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.secure, cookie.value.includes('s3cret-of-length')], [true, 'Strict', false, false]);
  assert.equal(await page.evaluate(() => document.cookie), '');
});

test('a token that is rotated ends the session at once, and the words being written survive', async (t) => {
  stack.setToken('s3cret-of-length');
  const page = await open(t, stack, { ready: false });
  await signIn(page, 's3cret-of-length');
  await ask(page, 'hello');
  await answered(page, 'An answer from the stand-in.');
  await page.getByLabel('Message').fill('half a thought');
  stack.setToken('another-of-length');
  await page.getByLabel('Access token').waitFor();
  await signIn(page, 's3cret-of-length');
  await page.getByRole('alert').waitFor();
  await signIn(page, 'another-of-length');
  await page.getByText('An answer from the stand-in.').waitFor();
  assert.equal(await page.getByLabel('Message').inputValue(), 'half a thought');
});

test('signing out ends the session, and deletes the conversations where that is asked for', async (t) => {
  stack.setToken('s3cret-of-length');
  const page = await open(t, stack, { ready: false });
  await signIn(page, 's3cret-of-length');
  await ask(page, 'hello');
  await answered(page, 'An answer from the stand-in.');
  const leave = async (how) => {
    await page.getByRole('button', { name: 'Menu' }).click();
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await page.getByRole('dialog').getByRole('button', { name: how, exact: true }).click();
  };
  await leave('Cancel');
  assert.equal((await page.context().cookies()).length, 1);
  await leave('Sign out and delete them');
  await page.getByLabel('Access token').waitFor();
  assert.equal((await page.context().cookies()).length, 0);
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((key) => key.includes('conversation'))), []);
});

test('behind TLS the cookie is for TLS only, and only a trusted proxy can say so', async () => {
  stack.setToken('s3cret-of-length');
  const cookie = async (headers) => {
    const response = await fetch(`${stack.url}/signin`, { method: 'POST', redirect: 'manual', body: new URLSearchParams({ token: 's3cret-of-length' }), headers });
    return response.headers.get('set-cookie');
  };
  assert.match(await cookie({ 'x-forwarded-proto': 'https' }), /; Secure$/);
  assert.doesNotMatch(await cookie({}), /Secure/);
  const other = await Stack.start({ env: { token: 's3cret-of-length' }, sandbox: false });
  try {
    const response = await fetch(`${other.url}/signin`, { method: 'POST', redirect: 'manual', body: new URLSearchParams({ token: 's3cret-of-length' }), headers: { 'x-forwarded-proto': 'https' } });
    assert.doesNotMatch(response.headers.get('set-cookie'), /Secure/);
  } finally {
    await other.stop();
  }
});

test('guessing is limited, and the page says how long to wait', async (t) => {
  const strict = await Stack.start({ env: { token: 's3cret-of-length' }, sandbox: false });
  t.after(() => strict.stop());
  const page = await open(t, strict, { ready: false });
  for (let guess = 0; guess < 11; guess++) await signIn(page, `guess ${guess}`);
  await page.getByRole('alert').getByText(/too many wrong tokens; try again in \d+ s/).waitFor();
  await until('the title', async () => (await page.title()).startsWith('Sign in'));
});
