// Hands requests on to a gateway with one server behind it, and takes that server's prefix off the names of tools and prompts, in both
// directions: the conformance suite asks for its fixtures by their own names. All else passes as it is.
// Usage: node unprefixed.mjs URL SERVER; prints where it listens.

import { createServer, request } from 'node:http';

const [gateway, prefix] = [new URL(process.argv[2]), `${process.argv[3]}__`];

function prefixed(body) {
  let message;
  try { message = JSON.parse(body); } catch { return body; }
  const { method, params } = message ?? {};
  const named = { 'tools/call': params, 'prompts/get': params, 'completion/complete': params?.ref }[method];
  if (typeof named?.name !== 'string') return body;
  named.name = prefix + named.name;
  return JSON.stringify(message);
}

const proxy = createServer(async (asked, answer) => {
  let body = '';
  for await (const piece of asked.setEncoding('utf8')) body += piece;
  body = prefixed(body);
  const { 'transfer-encoding': _whole, ...sent } = asked.headers;
  const headers = { ...sent, 'content-length': Buffer.byteLength(body) };
  if (['tools/call', 'prompts/get'].includes(headers['mcp-method']) && headers['mcp-name']) headers['mcp-name'] = prefix + headers['mcp-name'];
  const onward = request(gateway, { method: asked.method, headers, agent: false }, (came) => {
    const { 'content-length': _shorter, ...kept } = came.headers;
    answer.writeHead(came.statusCode, kept).flushHeaders();
    // Events come as lines; a body without line ends, at once.
    let rest = '';
    came.setEncoding('utf8').on('data', (piece) => {
      const end = (rest + piece).lastIndexOf('\n') + 1;
      const lines = (rest + piece).slice(0, end);
      rest = (rest + piece).slice(end);
      if (lines) answer.write(lines.replaceAll(prefix, ''));
    });
    came.on('end', () => answer.end(rest.replaceAll(prefix, ''))).on('error', () => answer.destroy());
  });
  onward.on('error', () => answer.destroy()).end(body);
  answer.on('close', () => onward.destroy());
});
proxy.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${proxy.address().port}${gateway.pathname}`));
