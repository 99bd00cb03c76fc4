// Talks to the server: streams of events, and errors that say what to do. Our own reader, and not EventSource: that can
// neither send a conversation nor see a status, and gives up at the first 503.

export class Problem extends Error {
  constructor(status, detail, wait) {
    super(detail);
    Object.assign(this, { status, wait });
  }
}

// The events of a response, as [name, data].
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    // A CR and its LF may come in two pieces.
    buffer = (buffer + value).replaceAll('\r\n', '\n');
    let end;
    while ((end = buffer.indexOf('\n\n')) >= 0) {
      const lines = buffer.slice(0, end).split('\n');
      buffer = buffer.slice(end + 2);
      const of = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim());
      const data = of('data');
      if (data.length) yield [of('event')[0] ?? 'message', JSON.parse(data.join('\n'))];
    }
  }
}

async function checked(response) {
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const wait = Number(response.headers.get('retry-after')) || 0;
  throw new Problem(response.status, problem.detail ?? problem.error?.message ?? `The server answered ${response.status}.`, wait);
}

// `body` is JSON.
export async function chat(body, signal) {
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' };
  return events(await checked(await fetch('/v1/chat', { method: 'POST', headers, body, signal })));
}

// A prompt or a resource, by the events of its way.
export async function quoted(path, body, signal) {
  const headers = { 'content-type': 'application/json', accept: 'text/event-stream' };
  return events(await checked(await fetch(path, { method: 'POST', headers, body: JSON.stringify(body), signal })));
}

export async function live(signal) {
  return events(await checked(await fetch('/v1/servers', { headers: { accept: 'text/event-stream' }, cache: 'no-store', signal })));
}

export async function tools() {
  return (await (await checked(await fetch('/v1/tools'))).json()).tools;
}

export const pause = (seconds, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
});
