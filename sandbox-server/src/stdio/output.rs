//! What is still to be written: whole lines, as many at once as there are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes that may wait before nothing more is read that would add to them.
const ROOM: usize = 1 << 20;

/// The buffer is kept between batches, but not one that a large answer has made.
const KEPT: usize = 64 << 10;

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Being written right now.
    on_its_way: usize,
    /// Somebody waits for room.
    crowded: bool,
    ended: bool,
}

/// Cheap to clone: all fill the same.
#[derive(Debug, Clone, Default)]
pub struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    filled: Notify,
    emptied: Notify,
    broken: CancellationToken,
}

impl Output {
    /// A message, which has no line end of its own.
    pub fn push(&self, message: &[u8]) {
        let mut waiting = self.waiting();
        waiting.lines.extend_from_slice(message);
        waiting.lines.push(b'\n');
        drop(waiting);
        self.0.filled.notify_one();
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.waiting().ended = true;
        self.0.filled.notify_one();
    }

    /// Until so little waits that there may be more of it, or nobody reads any more.
    pub async fn room(&self) {
        let emptied = async {
            loop {
                let mut emptied = std::pin::pin!(self.0.emptied.notified());
                emptied.as_mut().enable();
                {
                    let mut waiting = self.waiting();
                    if waiting.lines.len() + waiting.on_its_way <= ROOM {
                        return;
                    }
                    waiting.crowded = true;
                }
                emptied.await;
            }
        };
        tokio::select! {
            biased;
            () = emptied => {}
            () = self.broken() => {}
        }
    }

    /// Until nobody reads any more.
    pub async fn broken(&self) {
        self.0.broken.cancelled().await;
    }

    /// Until the end, or until nobody reads any more.
    pub async fn write_to(self, mut output: impl AsyncWrite + Unpin) {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            batch.shrink_to(KEPT);
            let ended = {
                let mut waiting = self.waiting();
                std::mem::swap(&mut batch, &mut waiting.lines);
                waiting.on_its_way = batch.len();
                waiting.ended
            };
            if batch.is_empty() {
                if ended {
                    return;
                }
                self.0.filled.notified().await;
                continue;
            }
            let written = async {
                output.write_all(&batch).await?;
                output.flush().await
            };
            if written.await.is_err() {
                return self.0.broken.cancel();
            }
            let mut waiting = self.waiting();
            waiting.on_its_way = 0;
            if std::mem::take(&mut waiting.crowded) {
                self.0.emptied.notify_waiters();
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
