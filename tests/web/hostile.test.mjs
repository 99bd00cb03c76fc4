// A page of somebody else, in the browser of who runs the chat worker, sandbox-server and the bridge on a laptop, as they are started without
// flags: it gets nothing out of them, and makes no call. It tries as a page of another origin, and as one whose own name leads to them (DNS
// rebinding): then it may read what it is answered.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { connect, createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { launch } from './support/page.mjs';
import { Process, Stack } from './support/stack.mjs';

const MODERN = '2026-07-28';
const PAGE = '<!doctype html><title>A page of somebody else</title>';

let stack, bridge, evil, chromium, asked;
// Each with its tools' prefix, and paths that tell something besides.
let programs;
before(async () => {
  stack = await Stack.start();
  bridge = new Process('bridge', ['run', '--listen', '127.0.0.1:0', '--', join(process.env.MCPFLEET_BIN, 'sandbox-server'), 'stdio', '--db', join(stack.directory, 'bridged.db')]);
  const [, address] = await bridge.says(/"address":"127\.0\.0\.1:(\d+)"/);
  await bridge.says(/child speaks MCP/);
  programs = [
    { name: 'chat-worker', port: stack.port, prefix: 'sqlite__', paths: ['/', '/v1/servers', '/v1/tools', '/v1/usage', '/health', '/metrics', '/healthz', '/readyz'], asks: { message: 'hello' } },
    { name: 'sandbox-server', port: stack.sandboxPort, prefix: '', paths: ['/metrics', '/healthz', '/readyz'] },
    { name: 'bridge', port: Number(address), prefix: '', paths: ['/metrics', '/healthz', '/readyz'] },
  ];
  asked = stack.modelLog().length;
  evil = await Evil.start();
  chromium = await launch('--host-resolver-rules=MAP evil.test 127.0.0.1');
});
after(async () => {
  await chromium?.close();
  evil?.stop();
  await bridge?.stop('SIGKILL');
  await stack?.stop();
});

// Who serves the page at evil.test, until that name leads elsewhere. A browser opens connections before it needs them: where one leads is
// decided when something is asked.
class Evil {
  static async start() {
    const evil = new Evil();
    evil.leadsTo = null;
    evil.server = createServer((socket) => {
      socket.on('error', () => socket.destroy());
      socket.once('data', (asked) => {
        if (!evil.leadsTo) {
          socket.end(`HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: ${PAGE.length}\r\nconnection: close\r\n\r\n${PAGE}`);
          return;
        }
        const onward = connect(evil.leadsTo, '127.0.0.1');
        onward.on('error', () => socket.destroy()).write(asked);
        socket.pipe(onward).pipe(socket);
      });
    });
    await new Promise((resolve) => evil.server.listen(0, '127.0.0.1', resolve));
    evil.url = `http://evil.test:${evil.server.address().port}/`;
    return evil;
  }

  stop() { this.server.close(); }
}

// A call as a client without a session makes it, and as one of an earlier era does: a body that any page may send.
function calls({ prefix, asks }, table) {
  const params = { name: `${prefix}create_table`, arguments: { query: `CREATE TABLE ${table} (a)` } };
  const rpc = (more) => JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { ...params, ...more } });
  const meta = { 'io.modelcontextprotocol/protocolVersion': MODERN, 'io.modelcontextprotocol/clientCapabilities': {}, 'io.modelcontextprotocol/clientInfo': { name: 'page', version: '1' } };
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const client = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'page', version: '1' } };
  return [
    { path: '/mcp', body: rpc({ _meta: meta }), headers: { ...headers, 'mcp-protocol-version': MODERN, 'mcp-method': 'tools/call', 'mcp-name': params.name } },
    { path: '/mcp', body: rpc({}), headers },
    { path: '/mcp', body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: client }), headers },
    ...(asks ? [{ path: '/v1/chat', body: JSON.stringify(asks), headers }] : []),
  ];
}

// In the page: every way to send what is there to be sent. What it could read, it gives.
async function attack({ bases, posts, paths }) {
  const read = [];
  const tried = async (what, request) => {
    try {
      const response = await request();
      // An opaque answer has the status 0, and nothing in it.
      if (response.status) read.push({ what, status: response.status, text: await response.text() });
    } catch { /* The browser let nothing through. */ }
  };
  // Named parts of the body make it JSON.
  const submitted = (url, body) => new Promise((resolve) => {
    const frame = document.createElement('iframe');
    frame.name = `frame-${document.querySelectorAll('iframe').length}`;
    const form = Object.assign(document.createElement('form'), { method: 'post', enctype: 'text/plain', action: url, target: frame.name });
    const field = document.createElement('input');
    [field.name, field.value] = [`${body.slice(0, -1)},"x":"`, '"}'];
    form.append(field);
    document.body.append(frame, form);
    frame.onload = () => {
      try {
        const text = frame.contentDocument?.body?.innerText;
        if (text) read.push({ what: `a form to ${url}`, text });
      } catch { /* It is of another origin. */ }
      resolve();
    };
    form.submit();
  });
  for (const base of bases) {
    for (const { path, body, headers } of posts) {
      const url = base + path;
      await tried(`JSON to ${url}`, () => fetch(url, { method: 'POST', headers, body }));
      await tried(`text to ${url}`, () => fetch(url, { method: 'POST', body }));
      await tried(`opaque text to ${url}`, () => fetch(url, { method: 'POST', mode: 'no-cors', body }));
      await tried(`with cookies to ${url}`, () => fetch(url, { method: 'POST', credentials: 'include', headers, body }));
      await submitted(url, body);
    }
    for (const path of paths) {
      await tried(base + path, () => fetch(base + path));
      await tried(`opaque ${base + path}`, () => fetch(base + path, { mode: 'no-cors' }));
    }
    // A stream: that it opens is told, or that it does not.
    await new Promise((resolve) => {
      const events = new EventSource(`${base}/mcp`);
      events.onopen = () => { read.push({ what: `events of ${base}/mcp`, status: 200 }); events.close(); resolve(); };
      events.onerror = () => { events.close(); resolve(); };
    });
  }
  return read;
}

async function post(port, { path, body, headers }) {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body });
  return { status: response.status, text: await response.text() };
}

// The tables that a program's own client is told of.
async function tables({ port, prefix }) {
  const [call] = calls({ prefix }, 'none');
  const request = JSON.parse(call.body);
  Object.assign(request.params, { name: `${prefix}list_tables`, arguments: {} });
  const { status, text } = await post(port, { path: '/mcp', body: JSON.stringify(request), headers: { ...call.headers, 'mcp-name': `${prefix}list_tables` } });
  assert.equal(status, 200, text);
  return text;
}

async function metric(port, name) {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ')[1] ?? 0);
}

const page = async (t) => {
  evil.leadsTo = null;
  const context = await chromium.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(evil.url);
  assert.equal(await page.title(), 'A page of somebody else');
  return page;
};

test('a page of another origin reads nothing and calls nothing', { timeout: 120_000 }, async (t) => {
  const hostile = await page(t);
  for (const program of programs) {
    const bases = ['127.0.0.1', 'localhost'].map((host) => `http://${host}:${program.port}`);
    const read = await hostile.evaluate(attack, { bases, posts: calls(program, 'stolen'), paths: program.paths });
    assert.deepEqual(read, [], program.name);
    assert.doesNotMatch(await tables(program), /stolen/, program.name);
  }
  // It is they that refuse, and not the browser alone.
  assert.ok(await metric(programs[1].port, 'sandbox_http_refused_total{reason="origin"}') > 0);
  assert.ok(await metric(programs[2].port, 'bridge_refused_total{reason="origin"}') > 0);
  assert.equal(stack.modelLog().length, asked, stack.modelLog());
});

test('a page whose name leads to a program reads refusals alone and calls nothing', { timeout: 120_000 }, async (t) => {
  for (const program of programs) {
    const hostile = await page(t);
    evil.leadsTo = program.port;
    const read = await hostile.evaluate(attack, { bases: [new URL(evil.url).origin], posts: calls(program, 'stolen'), paths: program.paths });
    // Everything is the page's own origin, and came there.
    assert.ok(read.length > program.paths.length, JSON.stringify(read));
    for (const { what, status, text } of read) {
      assert.ok(status === undefined || status === 403, `${program.name}: ${what}: ${status} ${text}`);
      assert.match(text, /header is not allowed|another site|answers to localhost/, `${program.name}: ${what}`);
    }
    assert.doesNotMatch(await tables(program), /stolen/, program.name);
  }
  assert.equal(stack.modelLog().length, asked, stack.modelLog());
});

test('what the page sends is what a client may send', async () => {
  for (const program of programs) {
    const [modern, , initialize] = calls(program, 'made');
    assert.equal((await post(program.port, modern)).status, 200, program.name);
    assert.match((await post(program.port, initialize)).text, /"protocolVersion"/, program.name);
    assert.match(await tables(program), /made/, program.name);
  }
});
