//! The two ends of the process's own pipes.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;

/// Where standard input and output are as this process sees them, on Linux.
const INPUT: &str = "/proc/self/fd/0";
const OUTPUT: &str = "/proc/self/fd/1";

/// Standard input and output. Pipes, which they are under a client, are opened anew: so they can be waited for without a thread, and whoever
/// shares the old ones (a shell, our own log) does not find them changed. What is no pipe, or another user's, is read and written as usual.
pub fn open() -> (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) {
    let input: Box<dyn AsyncRead + Send + Unpin> = match pipe::OpenOptions::new().open_receiver(INPUT) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdin()),
    };
    let output: Box<dyn AsyncWrite + Send + Unpin> = match pipe::OpenOptions::new().open_sender(OUTPUT) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdout()),
    };
    (input, output)
}
