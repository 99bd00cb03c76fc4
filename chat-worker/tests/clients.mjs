// The official TypeScript client lists and calls the fleet's tools, in both eras.
// Usage: node clients.mjs URL, with @modelcontextprotocol/client beside this file.

import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const url = new URL(process.argv[2]);

async function fleet(mode, version) {
  const client = new Client({ name: 'clients', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(url));
  assert.equal(client.getNegotiatedProtocolVersion(), version);
  const tools = (await client.listTools()).tools;
  const read = tools.find((tool) => tool.name === 'db__read_query');
  assert.ok(tools.length > 5 && read.annotations.readOnlyHint === true, JSON.stringify(tools));
  const answer = await client.callTool({ name: 'db__read_query', arguments: { query: 'SELECT 42 AS answer' } });
  assert.ok(!answer.isError && answer.content[0].text.includes('42'), JSON.stringify(answer));
  const refused = await client.callTool({ name: 'db__read_query', arguments: { query: 'DROP TABLE t' } });
  assert.equal(refused.isError, true);
  await assert.rejects(client.callTool({ name: 'db__no_such_tool', arguments: {} }));
  await client.close();
  console.log(`clients: TypeScript, ${version}: lists ${tools.length} tools of the fleet, and calls them`);
}

await fleet({ pin: '2026-07-28' }, '2026-07-28');
await fleet('auto', '2026-07-28');
await fleet('legacy', '2025-11-25');
