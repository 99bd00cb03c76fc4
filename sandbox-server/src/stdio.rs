//! Standard input as the SDK is to read it: a message a line, the arguments of calls wrapped as the door wraps them (mcp/arguments.rs).

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};

use crate::mcp::arguments;

/// What may wait between the two readers, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Messages from standard input, until it ends. Needs a tokio runtime.
pub fn input() -> impl AsyncRead + Send + Unpin + 'static {
    rewritten(tokio::io::stdin())
}

fn rewritten(from: impl AsyncRead + Send + Unpin + 'static) -> impl AsyncRead + Send + Unpin + 'static {
    let (mut to, messages) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            match from.read_until(b'\n', &mut line).await {
                Ok(1..) => {}
                Ok(0) => return,
                Err(error) => return tracing::warn!(%error, "standard input cannot be read any more"),
            }
            let line = arguments::wrapped(&line).unwrap_or(line);
            if to.write_all(&line).await.is_err() {
                return;
            }
        }
    });
    messages
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn calls_are_wrapped_and_everything_else_comes_through() {
        let sent = concat!(
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n",
            "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"x\",\"arguments\":[1]}}\n",
            "no JSON"
        );
        let mut read = String::new();
        rewritten(sent.as_bytes()).read_to_string(&mut read).await.unwrap();
        let lines: Vec<_> = read.lines().collect();
        assert_eq!((lines[0], lines[2]), ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", "no JSON"));
        assert!(lines[1].contains("\":\"[1]\"}"), "{}", lines[1]);
    }
}
