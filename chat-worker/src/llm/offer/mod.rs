//! What a model's API is offered of the catalogue: each tool as that API takes it (`schema`, `root` and `names` mend its schema),
//! as many as it takes, chosen fairly over the servers, and a way to find the others (`search`). Pure. A tool that cannot be
//! mended, or that does not fit, is left out and named; it never spoils a request.

mod keywords;
mod left_out;
pub mod names;
mod refs;
mod root;
mod schema;
pub mod search;

use std::{collections::BTreeMap, sync::Arc};

use mcp_wire::json;
use serde_json::{Value, value::to_raw_value};

pub use self::left_out::{LeftOut, Told};
use crate::tools::spec::ToolSpec;
pub use crate::tools::spec::{Dialect, Projected, Renamed};

/// A tool's schema may take this much of every prompt, in bytes.
const MAX_SCHEMA: usize = 64 * 1024;

/// The tool as an API takes it; `Err` says why it cannot be offered there.
pub fn projected(spec: &ToolSpec, dialect: Dialect) -> Result<Arc<Projected>, String> {
    spec.dialects.of(dialect, || project(spec, dialect))
}

/// One tool as an API takes it.
fn project(spec: &ToolSpec, dialect: Dialect) -> Result<Projected, String> {
    // However deep: what is offered of it is not.
    let given: Value = json::parse(spec.input_schema.get()).map_err(|error| format!("its input schema: {error}"))?;
    let given = given.as_object().cloned().unwrap_or_default();
    let (mut mended, told) = root::plain_object(schema::stand_alone(&given));
    let mut renamed = Renamed::new();
    if dialect == Dialect::Messages {
        names::map_schema(&mut mended, &mut renamed);
    }
    let mut mended = Value::Object(mended);
    if mended.to_string().len() > MAX_SCHEMA {
        without_words(&mut mended);
    }
    let schema = to_raw_value(&mended).map_err(|error| format!("its input schema: {error}"))?;
    if schema.get().len() > MAX_SCHEMA {
        return Err(format!("its input schema is larger than {} KiB", MAX_SCHEMA / 1024));
    }
    let description = [Some(spec.description.as_str()).filter(|text| !text.trim().is_empty()), told.as_deref()];
    let description = description.into_iter().flatten().collect::<Vec<_>>().join("\n\n");
    Ok(Projected { name: spec.name.clone(), description, schema, renamed })
}

/// The words of a schema that is too long with them: types and names say most.
fn without_words(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            // A property may have such a name: then its value is a schema.
            map.retain(|name, value| {
                let words = matches!(name.as_str(), "description" | "title") && value.is_string();
                let data = matches!(name.as_str(), "examples" | "default") && !value.is_object();
                !(words || data)
            });
            map.iter_mut()
                .filter(|(name, _)| !matches!(name.as_str(), "enum" | "const"))
                .for_each(|(_, value)| without_words(value));
        }
        Value::Array(list) => list.iter_mut().for_each(without_words),
        _ => {}
    }
}

/// When tools are found by search instead of being listed in each prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Search {
    /// Where there are more than fit: those that fit are listed, the others are found.
    #[default]
    Auto,
    /// Always: nothing is listed.
    Always,
    /// Never: what does not fit is left out.
    Never,
}

/// What an API takes of tools.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub dialect: Dialect,
    /// How many; `None` where only their size counts.
    pub tools: Option<usize>,
    /// Their definitions together, in bytes.
    pub bytes: usize,
    /// Letters of one description; `None` where there is no limit.
    pub description: Option<usize>,
    pub search: Search,
}

/// Tools with their projections, by their servers' names.
type ByServer<'c> = BTreeMap<&'c str, Vec<(&'c Arc<ToolSpec>, Arc<Projected>)>>;

/// What one request offers.
#[derive(Debug, Default)]
pub struct Offer {
    /// In the order of their names: the same tools always make the same prefix.
    pub tools: Vec<Arc<Projected>>,
    pub left_out: Vec<LeftOut>,
    /// All that there was to choose from.
    pub catalogue: Vec<Arc<ToolSpec>>,
}

impl Offer {
    /// Chooses from the catalogue. `refused` are definitions that the API has refused, by hash, with its reason.
    pub fn choose(catalogue: Vec<Arc<ToolSpec>>, room: Room, refused: &BTreeMap<String, String>) -> Self {
        let mut offer = Self::default();
        let mut fitting: ByServer<'_> = BTreeMap::new();
        for spec in &catalogue {
            match refused.get(&spec.hash).cloned().map_or_else(|| projected(spec, room.dialect), Err) {
                Ok(projected) => fitting.entry(&spec.server).or_default().push((spec, room.shortened(projected))),
                Err(reason) => offer.leave_out(spec, reason),
            }
        }
        let (count, bytes) =
            fitting.values().flatten().fold((0, 0), |(count, bytes), (_, tool)| (count + 1, bytes + tool.size()));
        let fits = room.tools.is_none_or(|most| count <= most) && bytes <= room.bytes;
        let searching = match room.search {
            _ if room.tools.is_some_and(|most| most < search::TOOLS) => false,
            Search::Always => count > 0,
            Search::Auto => !fits,
            Search::Never => false,
        };
        let places = match room.search {
            Search::Always => 0,
            _ => room.tools.unwrap_or(usize::MAX).saturating_sub(if searching { search::TOOLS } else { 0 }),
        };
        offer.take_turns(&fitting, places, room.bytes);
        drop(fitting);
        if searching {
            offer.tools.extend(search::definitions());
        }
        offer.tools.sort_by(|one, other| one.name.cmp(&other.name));
        offer.catalogue = catalogue;
        offer
    }

    /// One tool of each server, then the next of each, while there is room: no server crowds out another.
    fn take_turns(&mut self, servers: &ByServer<'_>, places: usize, mut bytes: usize) {
        let longest = servers.values().map(Vec::len).max().unwrap_or(0);
        for turn in 0..longest {
            for (spec, tool) in servers.values().filter_map(|tools| tools.get(turn)) {
                if self.tools.len() < places && tool.size() <= bytes {
                    bytes -= tool.size();
                    self.tools.push(Arc::clone(tool));
                } else {
                    self.leave_out(spec, "there are more tools than the model's API takes at once".to_owned());
                }
            }
        }
    }

    fn leave_out(&mut self, spec: &ToolSpec, reason: String) {
        self.left_out.push(LeftOut { server: spec.server.clone(), tool: spec.tool.clone(), reason });
    }

    /// The tool of this name, where it is offered.
    pub fn get(&self, name: &str) -> Option<&Arc<Projected>> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

impl Room {
    fn shortened(&self, tool: Arc<Projected>) -> Arc<Projected> {
        let Some(most) = self.description.filter(|most| tool.description.chars().count() > *most) else { return tool };
        let mut description: String = tool.description.chars().take(most - 1).collect();
        description.push('…');
        let Projected { name, schema, renamed, .. } = &*tool;
        Arc::new(Projected { name: name.clone(), description, schema: schema.clone(), renamed: renamed.clone() })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub mod tests;
