//! What is said to a server that asks its client something while that waits for an answer. I/O by way of `client`.
//!
//! What is said is `protocol`'s. It goes by connections of its own, beside the stream in which was asked: some servers go on only once they
//! were answered, and others read nothing before they are done.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::probe::{client::Http, protocol, verdict::Step};

/// So many requests of a server are answered in one probe; what it asks beyond is noise.
const MOST: usize = 16;
/// So many at the same time: each takes a connection.
const AT_ONCE: usize = 2;
/// How long those under way are waited for when all else of a probe is done.
const PATIENCE: Duration = Duration::from_secs(1);

/// The replies of one probe. Those that are under way end with it.
#[derive(Debug)]
pub struct Replies {
    under_way: JoinSet<()>,
    begun: usize,
    places: Arc<Semaphore>,
}

impl Default for Replies {
    fn default() -> Self {
        Self { under_way: JoinSet::new(), begun: 0, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Replies {
    /// Answers the requests in one event, by what is asked with these headers; `batches`: they may be several in an array.
    pub fn answer(&mut self, http: &Http, headers: &HeaderMap, event: &[u8], batches: bool) {
        for body in protocol::replies(event, batches).into_iter().take(MOST - self.begun) {
            self.begun += 1;
            let (mut http, headers, places) = (http.beside(), headers.clone(), Arc::clone(&self.places));
            self.under_way.spawn(async move {
                // It is never closed.
                let _place = places.acquire().await;
                // How it is taken is the server's business: it is seen by whether it goes on.
                let _taken = http.send(Step::Ping, &Method::POST, &headers, &body).await;
            });
        }
    }

    /// Lets what is under way arrive, and gives up what does not.
    pub async fn settle(&mut self) {
        let all = async { while self.under_way.join_next().await.is_some() {} };
        let _done = timeout(PATIENCE, all).await;
        self.under_way.abort_all();
    }
}
