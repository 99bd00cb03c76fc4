// The official TypeScript client calls everything that the server offers, in both eras. It checks each structured result against the
// tool's output schema by itself. Usage: node clients.mjs URL, with @modelcontextprotocol/client beside this file.

import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const url = new URL(process.argv[2]);

async function everything(name, mode, version) {
  const client = new Client({ name: 'clients', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(url));
  assert.equal(client.getNegotiatedProtocolVersion(), version);
  const offered = (await client.listTools()).tools.map((tool) => tool.name);
  const called = new Set();
  const call = async (tool, args) => {
    called.add(tool);
    const result = await client.callTool({ name: tool, arguments: args });
    assert.ok(!result.isError, `${tool}: ${JSON.stringify(result)}`);
    return result.structuredContent;
  };
  const table = `t_${name}`;
  await call('create_table', { query: `CREATE TABLE ${table} (id INTEGER PRIMARY KEY, name TEXT)` });
  const written = await call('write_query', { query: `INSERT INTO ${table} (name) VALUES (?), (?)`, params: ['a', 'ä "b"\n'] });
  assert.deepEqual(written, { affected_rows: 2, last_insert_rowid: 2 });
  const first = await call('read_query', { query: `SELECT * FROM ${table} ORDER BY id`, max_rows: 1 });
  assert.deepEqual(first.rows, [[1, 'a']]);
  const second = await call('read_query', { query: `SELECT * FROM ${table} ORDER BY id`, max_rows: 1, cursor: first.next_cursor });
  assert.deepEqual(second.rows, [[2, 'ä "b"\n']]);
  const batch = await call('write_batch', {
    statements: [
      { query: `INSERT INTO ${table} (name) VALUES (:name)`, params: { name: 'c' } },
      { query: `DELETE FROM ${table} WHERE name = ? RETURNING id`, params: ['c'] },
    ],
  });
  assert.equal(batch.results.length, 2);
  assert.deepEqual(batch.results[0], { affected_rows: 1, last_insert_rowid: 3 });
  assert.deepEqual([batch.results[1].affected_rows, batch.results[1].returned.rows], [1, [[3]]]);
  assert.deepEqual((await call('execute_sql_query', { query: `SELECT count(*) FROM ${table}` })).rows, [[2]]);
  assert.ok((await call('list_tables', {})).tables.some((found) => found.name === table));
  assert.equal((await call('describe_table', { table_name: table })).columns.length, 2);
  assert.equal((await call('explain_query', { query: `SELECT * FROM ${table} WHERE id = 1` })).row_count, 1);
  assert.ok((await call('search_schema', { text: table })).matches.length > 0);
  await call('append_insight', { insight: `seen by ${name}` });
  assert.deepEqual([...called].sort(), [...offered].sort(), 'a tool was not called');

  const refused = await client.callTool({ name: 'read_query', arguments: { query: `DELETE FROM ${table}` } });
  assert.equal(refused.isError, true);
  const undone = await client.callTool({
    name: 'write_batch',
    arguments: { statements: [{ query: `DELETE FROM ${table}` }, { query: `INSERT INTO ${table} (id) VALUES ('no number')` }] },
  });
  assert.equal(undone.isError, true);
  assert.deepEqual((await call('read_query', { query: `SELECT count(*) FROM ${table}` })).rows, [[2]]);
  await assert.rejects(client.callTool({ name: 'no_such_tool', arguments: {} }));

  const uris = (await client.listResources()).resources.map((resource) => resource.uri);
  assert.ok(uris.includes('memo://insights') && uris.includes(`schema://tables/${table}`), uris.join(' '));
  const memo = await client.readResource({ uri: 'memo://insights' });
  assert.match(memo.contents[0].text, new RegExp(`seen by ${name}`));
  const [template] = (await client.listResourceTemplates()).resourceTemplates;
  const completed = await client.complete({ ref: { type: 'ref/resource', uri: template.uriTemplate }, argument: { name: 'table', value: 't_' } });
  assert.ok(completed.completion.values.includes(table));
  const [prompt] = (await client.listPrompts()).prompts;
  assert.ok((await client.getPrompt({ name: prompt.name, arguments: { topic: 'tea' } })).messages.length > 0);
  await client.close();
  console.log(`clients: TypeScript, ${version}: ${called.size} tools, resources, completion and the prompt answer as they should`);
}

await everything('modern', { pin: '2026-07-28' }, '2026-07-28');
await everything('auto', 'auto', '2026-07-28');
await everything('legacy', 'legacy', '2025-11-25');
