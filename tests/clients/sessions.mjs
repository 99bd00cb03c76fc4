// Clients of the official TypeScript SDK, each in a session of its own, call a tool again and again, and check that each answer is theirs.
// Usage: node sessions.mjs URL CLIENTS TOOL, with @modelcontextprotocol/client beside this file, and a token in TOKEN where one is needed.
// Ends when its standard input does, and prints one line of JSON: {"clients", "calls", "slowest", "errors": [...]}, the slowest in seconds.

import { setTimeout as sleep } from 'node:timers/promises';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, clients, tool] = [new URL(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const headers = process.env.TOKEN ? { authorization: `Bearer ${process.env.TOKEN}` } : {};
const told = { clients: 0, calls: 0, slowest: 0, errors: [] };
let over = false;
process.stdin.resume().on('end', () => { over = true; });

const since = (began) => (performance.now() - began) / 1000;
// Seconds since the Unix epoch: what happened in the cluster at that moment is in its log.
const failed = (number, began, what) => told.errors.push(`client ${number}, at ${(Date.now() / 1000).toFixed(1)}, after ${since(began).toFixed(1)} s: ${what}`);

// What fetch met is only named as the cause.
const told_of = (error) => error.cause ? `${error}: ${error.cause}` : String(error);

async function run(number) {
  await sleep(number * 20);
  let began = performance.now();
  try {
    const client = new Client({ name: 'sessions', version: '1' }, { versionNegotiation: { mode: 'legacy' } });
    await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));
    told.clients += 1;
    for (let count = 0; !over; count += 1) {
      began = performance.now();
      const mine = { client: number, count };
      try {
        const answer = await client.callTool({ name: tool, arguments: mine });
        const same = !answer.isError && JSON.parse(answer.content[0].text).client === number && JSON.parse(answer.content[0].text).count === count;
        if (!same) failed(number, began, `an answer that is not its own: ${JSON.stringify(answer)}`);
        if (count % 10 === 0) await client.listTools();
      } catch (error) {
        failed(number, began, told_of(error));
      }
      told.calls += 1;
      told.slowest = Math.max(told.slowest, since(began));
      await sleep(100);
    }
    await client.close();
  } catch (error) {
    failed(number, began, `its session ended: ${told_of(error)}`);
  }
}

await Promise.all(Array.from({ length: clients }, (_, number) => run(number)));
// Streams may be open still: they are not waited for, but the line is.
process.stdout.write(`${JSON.stringify(told)}\n`, () => process.exit(0));
