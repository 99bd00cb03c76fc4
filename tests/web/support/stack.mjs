// The real chat worker between the stand-in for the model and a real sandbox-server, on ports of their own. Whoever starts
// one stops it; a process that outlives its test is a failure of the test.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const bin = process.env.MCPFLEET_BIN;
const here = new URL('..', import.meta.url).pathname;

export async function until(what, holds, seconds = 20) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    const value = await holds();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${seconds} s have not brought: ${what}`);
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class Process {
  constructor(name, args, env = {}) {
    this.name = name;
    this.log = '';
    this.child = spawn(join(bin, name), args, { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env } });
    this.exit = new Promise((resolve) => this.child.on('exit', (code, signal) => resolve(code ?? signal)));
    this.exit.then((code) => { this.code = code; });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on('data', (data) => { this.log += data; });
  }

  async says(pattern) {
    return until(`${this.name} to say ${pattern}`, () => {
      if (this.code !== undefined) throw new Error(`${this.name} ended with ${this.code}: ${this.log}`);
      return this.log.match(pattern);
    });
  }

  async stop(signal = 'SIGTERM') {
    if (this.code === undefined) this.child.kill(signal);
    return this.exit;
  }
}

export class Stack {
  // `servers` are further entries of mcp.json; `env` are settings of the chat worker.
  static async start({ env = {}, servers = [], sandbox = true, script = join(here, 'model.yaml') } = {}) {
    const stack = new Stack();
    stack.directory = mkdtempSync(join(tmpdir(), 'mcpfleet-web.'));
    stack.port = await freePort();
    stack.sandboxPort = await freePort();
    stack.model = new Process('model-standin', ['--listen', '127.0.0.1:0', '--script', script]);
    const [modelUrl] = await stack.model.says(/http:\/\/127\.0\.0\.1:\d+/);
    if (sandbox) await stack.startSandbox();
    const entry = { name: 'sqlite', url: `http://127.0.0.1:${stack.sandboxPort}/mcp`, timeout: 5, max_retries: 0, health_check_interval: 0.5, metadata: { description: 'Customers and orders' } };
    stack.config = join(stack.directory, 'mcp.json');
    writeFileSync(stack.config, JSON.stringify({ servers: [...(sandbox ? [entry] : []), ...servers] }));
    stack.tokenFile = join(stack.directory, 'token');
    stack.env = { ANTHROPIC_BASE_URL: modelUrl, MCP_CONFIG_PATH: stack.config, LOG_FILE: '-', CHAT_RATE_LIMIT_REQUESTS: '0', ...env };
    if (env.token) {
      stack.setToken(env.token);
      stack.env.CHAT_ACCESS_TOKEN_FILE = stack.tokenFile;
    }
    await stack.startWorker();
    return stack;
  }

  get url() { return `http://127.0.0.1:${this.port}`; }

  setToken(token) { writeFileSync(this.tokenFile, token); }

  async startSandbox() {
    this.sandbox = new Process('sandbox-server', ['serve', '--db', join(this.directory, 'x.db'), '--listen', `127.0.0.1:${this.sandboxPort}`]);
    await this.sandbox.says(/"address"/);
  }

  async startWorker() {
    this.worker = new Process('chat-worker', ['serve', '--listen', `127.0.0.1:${this.port}`], this.env);
    await this.worker.says(/chat worker listens on/);
    if (!this.sandbox || this.sandbox.code !== undefined) return;
    await until('the sandbox to be up', async () => {
      // Without the token it says no more than that it lives.
      const headers = this.env.token ? { authorization: `Bearer ${this.env.token}` } : {};
      const health = await (await fetch(`${this.url}/health`, { headers })).json();
      return health.metrics.servers.find((server) => server.name === 'sqlite')?.state === 'up';
    });
  }

  async stop() {
    await this.worker?.stop('SIGKILL');
    await this.sandbox?.stop('SIGKILL');
    await this.model?.stop('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }

  modelLog() { return this.model.log; }
}

export const read = (path) => readFileSync(path, 'utf8');
