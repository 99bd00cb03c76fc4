//! What a child tells by itself, and who hears it.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::session::Session;

/// Something that a child tells by itself.
#[derive(Debug, Clone)]
pub struct Notification {
    /// Its name.
    pub method: Box<str>,
    /// The resource that it is about.
    pub uri: Option<Box<str>>,
    /// Of a log message.
    pub level: Option<Box<str>>,
    /// The only one who may hear it; None: everybody who listens.
    pub only: Option<Arc<Session>>,
    /// As it came.
    pub line: Bytes,
}

/// The clients of a child that all share.
pub trait Audience: Debug + Send + Sync {
    /// To those who want it.
    fn deliver(&self, told: &Notification);

    /// The resources that somebody wants to hear of.
    fn resources(&self) -> HashSet<String>;
}
