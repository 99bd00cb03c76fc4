// Writes down what a turn's events say, as messages. The server says at the end how the conversation goes on; this is for
// turns whose end is never heard: stopped ones, and those that a reload or a broken connection cuts off. What tools have
// done by then must not be forgotten. Thinking is left out: it counts only within the turn that it was thought in.

const text = (said) => ({ type: 'text', text: said });

const resultBlock = (id, said, isError) => ({ type: 'tool_result', tool_use_id: id, is_error: isError, content: [text(said.trim() === '' ? '(no output)' : said)] });

export class Record {
  // `asked` are the messages of the question; `open` are the calls that the conversation waits for: their results come first.
  constructor(asked = [], open = []) {
    this.messages = [...asked];
    this.asked = asked.length;
    this.said = '';
    this.calls = [];
    this.open = open.map((block) => block.id);
    this.results = new Map();
  }

  on(event) {
    if (event.type === 'text') {
      if (this.results.size) this.close();
      this.said += event.text;
    } else if (event.type === 'restart') this.said = '';
    else if (event.type === 'tool_call') {
      if (this.open.includes(event.id)) return;
      if (this.results.size) this.close();
      this.calls.push({ type: 'tool_use', id: event.id, name: event.name, input: event.input });
    } else if (event.type === 'tool_result') this.results.set(event.id, resultBlock(event.id, event.text, event.is_error));
  }

  // Ends a round: what was said and called, and the results. Each call gets one.
  close(missing = 'cut off before it had a result') {
    const content = [...(this.said.trim() ? [text(this.said)] : []), ...this.calls];
    if (content.length) this.messages.push({ role: 'assistant', content });
    const ids = [...this.open, ...this.calls.map((call) => call.id)];
    if (ids.length) this.messages.push({ role: 'user', content: ids.map((id) => this.results.get(id) ?? resultBlock(id, missing, true)) });
    Object.assign(this, { said: '', calls: [], open: [], results: new Map() });
  }

  // What there is, as a conversation that can go on. Nothing but the question is nothing.
  ended(missing) {
    const copy = Object.assign(new Record(), structuredClone({ ...this }));
    copy.close(missing);
    return copy.messages.slice(copy.asked).some((message) => message.role === 'assistant' || message.content.some((block) => block.type === 'tool_result')) ? copy.messages : [];
  }

  // The same, with calls left open that wait for a decision.
  waiting() {
    const copy = Object.assign(new Record(), structuredClone({ ...this }));
    const calls = copy.calls;
    if (!calls.length || copy.results.size) return this.ended();
    copy.messages.push({ role: 'assistant', content: [...(copy.said.trim() ? [text(copy.said)] : []), ...calls] });
    return copy.messages;
  }
}
