//! Which request is being worked on. Whoever takes one up says its id once; what is written and sent for it is found by it.

tokio::task_local! {
    static ID: String;
}

/// The id of the request that is being worked on here.
pub fn id() -> Option<String> {
    ID.try_with(Clone::clone).ok()
}

/// Does work for the request with this id. A span would say it, too, but is looked up at every piece of an answer.
pub async fn scope<W: Future>(id: String, work: W) -> W::Output {
    ID.scope(id, work).await
}
