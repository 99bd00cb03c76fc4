// An MCP server of a test's own, behind a chat of its own.
import { createServer } from 'node:http';
import { Stack, until } from './stack.mjs';

// `methods` has the result of each method, or what makes it of the params; who writes the answer itself, by `{ id, response }`, gives none.
async function listen(name, capabilities, methods) {
  const hello = { protocolVersion: '2025-06-18', capabilities, serverInfo: { name, version: '1' } };
  const known = { initialize: hello, ...methods };
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    if (request.method !== 'POST') {
      response.writeHead(405).end();
      return;
    }
    const { id, method, params } = JSON.parse(body);
    if (id === undefined) {
      response.writeHead(202).end();
      return;
    }
    if (!Object.hasOwn(known, method)) {
      response.writeHead(404).end();
      return;
    }
    const how = known[method];
    const result = typeof how === 'function' ? await how(params, { id, response }) : how;
    if (result) response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result }));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

// A chat whose one server that is, once it is up.
export async function chatOver(name, capabilities, methods) {
  const server = await listen(name, capabilities, methods);
  const url = `http://127.0.0.1:${server.address().port}/mcp`;
  const stack = await Stack.start({ sandbox: false, servers: [{ name, url, timeout: 60 }] });
  await until('the server to be up', async () => (await (await fetch(`${stack.url}/v1/servers`)).json()).servers[0].state === 'up');
  const stop = async () => {
    await stack.stop();
    server.closeAllConnections();
    server.close();
  };
  return { stack, stop };
}
