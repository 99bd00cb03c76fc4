// How a server is, in words for people.
const WORDS = { connecting: 'connecting', up: 'up', down: 'down', circuit_open: 'down', disabled: 'switched off', refused: 'not used' };

// A server that its operator took out because it fails was not switched off by anybody.
export const inWords = (server) => (server.state === 'disabled' && server.by_circuit ? 'down' : WORDS[server.state] ?? server.state);

export function kind(server) {
  if (server.state === 'up') return 'up';
  return server.degraded ? 'down' : 'off';
}

export function detail(server) {
  if (server.state === 'up') return `${server.tools} ${server.tools === 1 ? 'tool' : 'tools'} · MCP ${server.protocol}`;
  const again = server.retry_in_seconds === undefined ? '' : ` Tried again in ${server.retry_in_seconds} s.`;
  return `${server.reason ?? ''}${again}`;
}
