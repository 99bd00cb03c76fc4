// The official TypeScript client lists and calls the fleet's tools, in both eras, reads its resources and prompts; and servers of the earlier
// era that talk while they work speak to it.
// Usage: node clients.mjs URL FOLDER, with @modelcontextprotocol/client beside this file; FOLDER is what the server `files` has.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, folder] = [new URL(process.argv[2]), process.argv[3]];
const pixel = readFileSync(`${folder}/pixel.png`).toString('base64');

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

// Progress, pictures, resources, prompts and questions of servers that are asked in the earlier era.
async function others(mode, version) {
  const client = new Client({ name: 'clients', version: '1' }, { versionNegotiation: { mode }, capabilities: { elicitation: { form: {} }, sampling: {} } });
  const questions = [];
  client.setRequestHandler('elicitation/create', async ({ params }) => {
    questions.push(params.message);
    return { action: 'accept', content: { name: 'Ann', check: true } };
  });
  client.setRequestHandler('sampling/createMessage', async () => ({ role: 'assistant', model: 'm', content: { type: 'text', text: 'sampled here' } }));
  await client.connect(new StreamableHTTPClientTransport(url));

  const steps = [];
  const call = async (name, args, options) => {
    const answer = await client.callTool({ name, arguments: args }, options);
    assert.ok(!answer.isError, JSON.stringify(answer));
    return answer;
  };
  const text = async (name, args) => (await call(name, args)).content.map((block) => block.text).join(' ');
  await call('everything__trigger-long-running-operation', { duration: 0.3, steps: 3 }, { onprogress: ({ progress, total }) => steps.push([progress, total]) });
  assert.deepEqual(steps, [[1, 3], [2, 3], [3, 3]]);
  assert.match(await text('everything__trigger-elicitation-request', {}), /- Name: Ann/);
  assert.deepEqual(questions, ['Please provide inputs for the following fields:']);
  assert.match(await text('everything__trigger-sampling-request', { prompt: 'p', maxTokens: 5 }), /sampled here/);

  const [image] = (await call('everything__get-tiny-image', {})).content.filter((block) => block.type === 'image');
  assert.ok(image.mimeType === 'image/png' && Buffer.from(image.data, 'base64').subarray(1, 4).equals(Buffer.from('PNG')), JSON.stringify(image));
  const file = await call('files__read_media_file', { path: `${folder}/pixel.png` });
  assert.deepEqual(file.content, [{ type: 'image', data: pixel, mimeType: 'image/png' }]);
  assert.match(await text('files__read_text_file', { path: `${folder}/note.txt` }), /kept here/);
  const outside = await client.callTool({ name: 'files__read_text_file', arguments: { path: '/etc/passwd' } });
  assert.ok(outside.isError && /outside allowed directories/.test(outside.content[0].text), JSON.stringify(outside));
  const entity = { name: `TypeScript ${version}`, entityType: 'client', observations: ['it was here'] };
  await call('memory__create_entities', { entities: [entity] });
  const graph = (await call('memory__read_graph', {})).structuredContent;
  assert.deepEqual(graph.entities.find(({ name }) => name === entity.name), entity);

  const uris = (await client.listResources()).resources.map(({ uri }) => uri);
  const known = ['memo://insights', 'memory://knowledge-graph', 'demo://resource/static/document/features.md'];
  assert.ok(known.every((uri) => uris.includes(uri)), JSON.stringify(uris));
  const read = async (uri) => (await client.readResource({ uri })).contents[0];
  assert.ok((await read('memory://knowledge-graph')).text.includes(entity.name));
  assert.match((await read('demo://resource/static/document/features.md')).text, /^#/);
  const templates = (await client.listResourceTemplates()).resourceTemplates.map(({ uriTemplate }) => uriTemplate);
  assert.ok(templates.includes('demo://resource/dynamic/blob/{resourceId}'), JSON.stringify(templates));
  const blob = await read('demo://resource/dynamic/blob/7');
  assert.match(Buffer.from(blob.blob, 'base64').toString(), /^Resource 7: /);
  await assert.rejects(read('demo://resource/none'));

  const prompts = (await client.listPrompts()).prompts.map(({ name }) => name);
  assert.ok(['db__mcp-demo', 'everything__simple-prompt', 'everything__args-prompt'].every((name) => prompts.includes(name)), JSON.stringify(prompts));
  const asked = await client.getPrompt({ name: 'everything__args-prompt', arguments: { city: 'Bern', state: 'BE' } });
  assert.deepEqual(asked.messages, [{ role: 'user', content: { type: 'text', text: "What's weather in Bern, BE?" } }]);
  await client.close();
  console.log(`clients: TypeScript, ${version}: progress, pictures, questions, resources and prompts of other servers`);
}

await others({ pin: '2026-07-28' }, '2026-07-28');
await others('legacy', '2025-11-25');
