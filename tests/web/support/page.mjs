// A browser like a person's, and what must hold on every page of every test: nothing comes from elsewhere, the policy is not
// violated, no script fails, no text becomes a script.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import AxeBuilder from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const ARGS = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const SCREENSHOTS = process.env.MCPFLEET_SCREENSHOTS;
// What a browser logs by itself about answers that are part of a test.
const EXPECTED = /Failed to load resource: (net::ERR_|the server responded with a status of (401|403|413|422|429|503))/;

let shared = null;

// A browser of a test's own, with these arguments besides.
export async function launch(...more) {
  // Chromium's own sandbox needs a user who is not root.
  return chromium.launch({ executablePath: process.env.MCPFLEET_CHROMIUM, args: [...ARGS, ...more], chromiumSandbox: process.getuid() !== 0 });
}

export async function browser() {
  shared ??= await launch();
  return shared;
}

export async function closeBrowser() {
  await shared?.close();
  shared = null;
}

// `t` is the test: its pages are checked when it ends.
export async function open(t, stack, { path = '/', ready = true, ...options } = {}) {
  const context = await (await browser()).newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options });
  context.setDefaultTimeout(15_000);
  const faults = [];
  await context.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  const watch = (page) => {
    page.on('pageerror', (error) => faults.push(`script: ${error}`));
    page.on('console', (message) => {
      if (message.type() === 'error' && !EXPECTED.test(message.text())) faults.push(`console: ${message.text()}`);
    });
    page.on('dialog', (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  };
  context.on('page', watch);
  context.on('request', (request) => {
    const url = new URL(request.url());
    if (!['blob:', 'data:'].includes(url.protocol) && url.origin !== stack.url) faults.push(`request to ${request.url()}`);
  });
  const page = await context.newPage();
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults, []);
  });
  await page.goto(stack.url + path);
  if (ready) await page.locator('#servers li').first().waitFor({ state: 'attached' });
  return page;
}

export async function ask(page, text) {
  await page.getByLabel('Message').fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

export const lastTurn = (page) => page.locator('.turn').last();

export async function answered(page, text) {
  await lastTurn(page).getByText(text).last().waitFor();
  await page.locator('#send:visible').waitFor();
}

export async function axe(page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  assert.deepEqual(violations.map((found) => `${found.id}: ${found.nodes.map((node) => node.html.slice(0, 150)).join(' | ')}`), []);
}

export async function noSidewaysScroll(page) {
  const wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll('main, #log-frame, #log, .turn, .answer, header, #ask')]
    .filter((element) => element.getClientRects().length && (element.scrollWidth > element.clientWidth + 1 || element.getBoundingClientRect().right > innerWidth + 1))
    .map((element) => `${element.id || element.className || element.tagName}: ${element.scrollWidth} in ${element.clientWidth}`));
  assert.deepEqual(wide, [], `wider than a screen of ${page.viewportSize().width}`);
}

export async function screenshot(page, name) {
  if (!SCREENSHOTS) return;
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
}
