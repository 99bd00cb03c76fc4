// The official TypeScript client lists and calls the fleet's tools, in both eras; and a server of the earlier era that talks while it works
// speaks to it.
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

// Progress, pictures, resources, prompts and questions of server-everything, which is asked in the earlier era.
async function everything(mode, version) {
  const client = new Client({ name: 'clients', version: '1' }, { versionNegotiation: { mode }, capabilities: { elicitation: { form: {} }, sampling: {} } });
  client.setRequestHandler('elicitation/create', async () => ({ action: 'accept', content: { name: 'Ann', check: true } }));
  client.setRequestHandler('sampling/createMessage', async () => ({ role: 'assistant', model: 'm', content: { type: 'text', text: 'sampled here' } }));
  await client.connect(new StreamableHTTPClientTransport(url));
  const steps = [];
  const call = async (name, args, options) => {
    const answer = await client.callTool({ name: `everything__${name}`, arguments: args }, options);
    return answer.content.map((block) => block.text ?? block.type).join(' ');
  };
  await call('trigger-long-running-operation', { duration: 0.3, steps: 3 }, { onprogress: ({ progress, total }) => steps.push([progress, total]) });
  assert.deepEqual(steps, [[1, 3], [2, 3], [3, 3]]);
  assert.match(await call('get-tiny-image', {}), /image/);
  assert.match(await call('trigger-elicitation-request', {}), /Ann/);
  assert.match(await call('trigger-sampling-request', { prompt: 'p', maxTokens: 5 }), /sampled here/);
  const { resources } = await client.listResources();
  assert.ok((await client.readResource({ uri: resources[0].uri })).contents.length > 0);
  const { prompts } = await client.listPrompts();
  const simple = prompts.find((prompt) => prompt.name.startsWith('everything__') && !prompt.arguments?.length);
  assert.ok((await client.getPrompt({ name: simple.name })).messages.length > 0);
  await client.close();
  console.log(`clients: TypeScript, ${version}: progress, pictures, questions, resources and prompts of server-everything`);
}

await everything({ pin: '2026-07-28' }, '2026-07-28');
await everything('legacy', '2025-11-25');
