// How it looks and feels: both themes, a phone, the keyboard alone, what a screen reader is told, text that is no markup.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { answered, ask, axe, closeBrowser, lastTurn, noSidewaysScroll, open, screenshot } from './support/page.mjs';
import { Stack, until } from './support/stack.mjs';

const EVIL = '<img src=x onerror=alert(9)>';
let stack;
before(async () => {
  const gone = { name: EVIL, url: 'http://127.0.0.1:9/mcp', timeout: 1, metadata: { description: EVIL } };
  stack = await Stack.start({ servers: [gone] });
});
after(async () => { await closeBrowser(); await stack.stop(); });

for (const colorScheme of ['light', 'dark']) {
  for (const [device, viewport] of [['desktop', { width: 1280, height: 900 }], ['phone', { width: 360, height: 740 }]]) {
    test(`empty, answered and failed are clean in ${colorScheme} on a ${device}`, async (t) => {
      const options = device === 'phone' ? { hasTouch: true, isMobile: true, deviceScaleFactor: 2 } : {};
      const page = await open(t, stack, { colorScheme, viewport, ...options });
      await page.locator('#ideas button').first().waitFor();
      await axe(page);
      await noSidewaysScroll(page);
      await screenshot(page, `${device}-${colorScheme}-empty`);
      await ask(page, 'a report');
      await answered(page, 'That is all.');
      await axe(page);
      await noSidewaysScroll(page);
      await screenshot(page, `${device}-${colorScheme}-end`);
      await page.locator('#log').evaluate((log) => { log.scrollTop = 0; });
      await screenshot(page, `${device}-${colorScheme}-report`);
      await ask(page, 'How many are there?');
      await answered(page, 'It did not work');
      await lastTurn(page).locator('summary').click();
      await ask(page, 'break');
      await lastTurn(page).locator('.error').waitFor();
      await axe(page);
      await noSidewaysScroll(page);
      await screenshot(page, `${device}-${colorScheme}-failed`);
      await ask(page, 'delete Radia');
      await page.locator('.approval').waitFor();
      await axe(page);
      await noSidewaysScroll(page);
      await screenshot(page, `${device}-${colorScheme}-approval`);
      await page.getByRole('button', { name: 'Chats' }).click();
      await screenshot(page, `${device}-${colorScheme}-list`);
      await axe(page);
    });
  }
}

test('the colours can be chosen, and stay', async (t) => {
  const page = await open(t, stack, { colorScheme: 'light' });
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await back();
  await page.getByRole('button', { name: 'Menu' }).click();
  await page.getByLabel('Colours').selectOption('dark');
  const dark = await back();
  assert.notEqual(light, dark);
  await page.reload();
  assert.equal(await back(), dark);
});

test('everything is reached by the keyboard, in the order in which it is seen', async (t) => {
  const page = await open(t, stack);
  await page.locator('#ideas button').first().waitFor();
  const focused = () => page.evaluate(() => {
    const element = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return { name: element.id || element.textContent, visible: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 };
  });
  assert.equal((await focused()).name, 'message', 'the message has the focus from the start');
  await page.evaluate(() => document.querySelector('.skip').focus());
  assert.ok((await focused()).visible);
  const order = [];
  for (let n = 0; n < 30; n += 1) {
    await page.keyboard.press('Tab');
    const { name, visible } = await focused();
    order.push(name);
    assert.ok(visible, `the focus is not seen on ${name}`);
    if (name === 'send') break;
  }
  const ids = order.filter((name) => /^[a-z-]+$/.test(name));
  assert.deepEqual(ids, ['side-button', 'servers', 'servers-button', 'menu-button', 'new', 'message', 'send']);
  assert.ok(order.length > ids.length, 'the suggestions are among them');
  const conversation = page.locator('#log');
  assert.equal(await conversation.getAttribute('tabindex'), '-1', 'there is nothing in it yet');

  // A question, stopped, a second one: without a mouse.
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.type('Count slowly');
  await page.keyboard.press('Enter');
  await lastTurn(page).getByText('One two').waitFor();
  await page.keyboard.press('Escape');
  await lastTurn(page).getByText('Stopped.').waitFor();
  assert.equal((await focused()).name, 'message');
  await page.keyboard.type('line one');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('line two');
  await page.keyboard.press('Enter');
  await answered(page, 'An answer from the stand-in.');
  assert.equal(await lastTurn(page).locator('.question').textContent(), 'line one\nline two');
  assert.equal(await conversation.getAttribute('tabindex'), '0', 'what scrolls is reached by the keyboard');

  // Menus and dialogs: Esc closes them, and the focus is where it was.
  await page.locator('#menu-button').focus();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  assert.equal((await focused()).name, 'beyond');
  await page.keyboard.press('Escape');
  assert.equal((await focused()).name, 'menu-button');
  assert.equal(await page.locator('#menu').isVisible(), false);
  await page.getByRole('button', { name: 'Delete: Count slowly' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  assert.match((await focused()).name, /Delete/);
});

test('on a phone the list lies over the page, holds the focus, and gives it back', async (t) => {
  const page = await open(t, stack, { viewport: { width: 360, height: 740 } });
  await ask(page, 'hello');
  await answered(page, 'An answer from the stand-in.');
  const toggle = page.getByRole('button', { name: 'Chats' });
  assert.equal(await toggle.getAttribute('aria-expanded'), 'false');
  await toggle.click();
  assert.equal(await toggle.getAttribute('aria-expanded'), 'true');
  assert.equal(await page.evaluate(() => document.activeElement.closest('#side') !== null), true);
  for (let n = 0; n < 12; n += 1) {
    await page.keyboard.press('Tab');
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.activeElement.closest('#side, header, .skip') !== null));
  }
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('#side').isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'side-button');
});

test('a screen reader is told what is there, and what happens', async (t) => {
  const page = await open(t, stack);
  for (const role of ['banner', 'main', 'complementary']) await page.getByRole(role).first().waitFor();
  await page.getByRole('log', { name: 'Conversation' }).waitFor({ state: 'attached' });
  await page.getByRole('list', { name: 'Servers' }).waitFor();
  const states = [];
  await page.exposeFunction('said', (text) => states.push(text));
  await page.evaluate(() => new MutationObserver(() => window.said(document.getElementById('status').textContent)).observe(document.getElementById('status'), { childList: true }));
  await ask(page, 'How many are there?');
  await answered(page, 'It did not work');
  await until('the end', () => states.includes('Answered.'));
  assert.deepEqual([...new Set(states)], ['Waiting for the answer', 'Calling read_query', 'Answered.']);
  await page.getByRole('article').getByRole('heading', { name: 'Question 1' }).waitFor({ state: 'attached' });
  assert.equal(await page.locator('#status').getAttribute('role'), 'status');
});

test('markup in answers, results and names of servers is text', async (t) => {
  const page = await open(t, stack);
  await page.locator('#servers li', { hasText: EVIL }).waitFor();
  await page.getByRole('button', { name: /^Servers/ }).click();
  await page.locator('#server-list', { hasText: EVIL }).waitFor();
  await page.keyboard.press('Escape');
  await ask(page, 'an injection');
  await until('the end', async () => (await page.locator('#send').isVisible()) && (await page.locator('.end .row').count()) > 0);
  await lastTurn(page).locator('summary').click();
  const turn = lastTurn(page);
  assert.match(await turn.textContent(), /<img src=x onerror=alert\(1\)>/);
  assert.match(await turn.locator('.tool').textContent(), /<script>alert\(6\)<\/script>/);
  assert.equal(await page.locator('#log img, #log script, #log svg, #log iframe, header img').count(), 0);
  const links = await turn.locator('a').evaluateAll((all) => all.map((link) => [link.href, link.rel, link.target]));
  assert.ok(links.length > 0);
  for (const [href, rel, target] of links) assert.deepEqual([new URL(href).protocol, rel, target], ['https:', 'noopener noreferrer nofollow', '_blank']);
});

test('a suggestion is asked with one press', async (t) => {
  const page = await open(t, stack);
  await page.getByRole('button', { name: 'Create some sample data.' }).click();
  await page.locator('.question', { hasText: 'Create some sample data.' }).waitFor();
  assert.equal(await page.locator('#welcome').isVisible(), false);
});
