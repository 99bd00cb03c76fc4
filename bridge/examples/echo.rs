//! The fastest child there could be, for the benchmark: a legacy server on standard input and output whose only tool answers what it is told,
//! and that finds the id in a request by its place.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};

fn main() -> std::io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, std::io::stdin().lock());
    let mut output = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        answer(&line, &mut output)?;
        // Whoever waits for more is told what there is.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
}

fn answer(line: &[u8], output: &mut impl std::io::Write) -> std::io::Result<()> {
    let text = String::from_utf8_lossy(line);
    let Some(id) = text.split_once("\"id\":").map(|(_, rest)| rest) else { return Ok(()) };
    let id = &id[..id.find([',', '}']).unwrap_or(0)];
    let result = if text.contains("\"initialize\"") {
        r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}"#
    } else if text.contains("\"tools/list\"") {
        r#"{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}"#
    } else if text.contains("\"long\"") {
        // As long as it was asked for, in one line.
        let bytes = text.split_once("\"bytes\":").and_then(|(_, rest)| rest[..rest.find('}')?].trim().parse().ok()).unwrap_or(0);
        write!(
            output,
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{}"}}]}}}}"#,
            "x".repeat(bytes)
        )?;
        return output.write_all(b"\n");
    } else if text.contains("\"tools/call\"") {
        r#"{"content":[{"type":"text","text":"item 1"}]}"#
    } else {
        return writeln!(output, r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#);
    };
    writeln!(output, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}
