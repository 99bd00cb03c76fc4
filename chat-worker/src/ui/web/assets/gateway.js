// The page of a gateway: its servers, as they change, and their tools.
import { $, node, visible } from './dom.js';
import { Problem, live, pause, tools } from './stream.js';
import { detail, inWords, kind } from './words.js';

const line = (text) => node('p', { className: 'detail', textContent: text, dir: 'auto' });

function showServers(servers) {
  $('server-list').replaceChildren(...servers.map((server) => {
    const head = node('p', { className: kind(server) }, node('bdi', { textContent: server.name }), `: ${inWords(server)}`);
    return node('li', {}, head, ...[server.description, detail(server)].filter(Boolean).map(line));
  }));
}

function showTools(list) {
  $('tool-count').textContent = String(list.length);
  $('tool-list').replaceChildren(...list.map((tool) => {
    const mark = tool.destructive ? ' may change or destroy data' : '';
    const head = node('p', {}, node('code', { textContent: visible(tool.name) }), mark);
    return node('li', {}, head, line(tool.description.split('\n')[0]));
  }));
}

function connection(text) {
  $('connection').textContent = text;
  $('connection').hidden = text === '';
}

async function follow() {
  for (;;) {
    try {
      for await (const [name, data] of await live()) {
        connection('');
        if (name === 'servers') {
          showServers(data.servers);
          showTools(await tools());
        } else if (name === 'signed_out') return location.reload();
      }
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return location.reload();
      connection('The gateway cannot be reached. Trying again…');
    }
    await pause(2);
  }
}

$('address').textContent = new URL('/mcp', location.href).href;
follow();
