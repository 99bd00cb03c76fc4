//! The servers as one, as far as everything at /mcp needs to know it: what is offered, and how.

use std::sync::Arc;

use crate::{llm::offer::Search, policy, tools::spec::ToolSpec, ui::web::state::Web};

/// Arguments of one call. Far below what a conversation may be.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// The handler of every request.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub web: Arc<Web>,
}

impl Gateway {
    /// Whether calls of it are made at all. `ask` leaves the asking to the client, which sees what the tool says of itself.
    pub fn offers(&self, spec: &ToolSpec) -> bool {
        policy::offers(spec, self.web.app.settings.approvals)
    }

    pub fn searches(&self) -> bool {
        self.web.app.settings.tool_search == Search::Always
    }

    /// What is offered now: a change of it is worth telling.
    pub fn offered(&self) -> Vec<(String, String)> {
        let catalogue = self.web.app.engine.hub.catalogue();
        catalogue.iter().filter(|spec| self.offers(spec)).map(|spec| (spec.name.clone(), spec.hash.clone())).collect()
    }
}
