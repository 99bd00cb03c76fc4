//! The model of a program that has none: a gateway, which lends out tools and answers no questions.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Answer, Listener, Model, ModelError, Prompt, offer::Offer};
use crate::tools::spec::ToolSpec;

/// What a gateway says to a question.
pub const SENTENCE: &str =
    "this is a gateway without a model: it answers no questions. Its tools, resources and prompts are at /mcp";

#[derive(Debug)]
pub struct NoModel;

impl Model for NoModel {
    fn answer<'a>(&'a self, _: &'a Prompt<'a>, _: &'a dyn Listener) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async { Err(ModelError::Key(SENTENCE.to_owned())) })
    }

    fn offer(&self, _: Vec<Arc<ToolSpec>>) -> Arc<Offer> {
        Arc::default()
    }

    fn count<'a>(&'a self, _: &'a Prompt<'a>) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async { None })
    }

    fn name(&self) -> &'static str {
        "none"
    }

    fn price_list(&self) -> Option<&str> {
        None
    }
}
