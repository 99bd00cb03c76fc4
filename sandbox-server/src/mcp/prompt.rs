//! The prompt `mcp-demo`: the name and argument of the reference server, in words of our own.

use rmcp::ErrorData;
use rmcp::model::{GetPromptRequestParams, GetPromptResult, Prompt, PromptArgument, PromptMessage, Role};

/// The only prompt.
pub fn definition() -> Prompt {
    let topic = PromptArgument::new("topic")
        .with_description("What the example data should be about, such as \"a bicycle workshop\"")
        .with_required(true);
    Prompt::new("mcp-demo", Some("Build a small example database on a topic and explore it together"), Some(vec![topic]))
        .with_title("Demonstration")
}

/// Fills in the prompt.
pub fn get(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    if request.name != "mcp-demo" {
        return Err(ErrorData::invalid_params(format!("no prompt named {}; there is mcp-demo", request.name), None));
    }
    let topic = request
        .arguments
        .as_ref()
        .and_then(|arguments| arguments.get("topic"))
        .and_then(|topic| topic.as_str())
        .unwrap_or_default()
        .trim();
    if topic.is_empty() {
        return Err(ErrorData::invalid_params("mcp-demo needs the argument topic", None));
    }
    let text = format!(
        "Show me what you can do with the SQLite database of this server, on this topic: {topic}\n\n\
         1. Look at what is there already (list_tables) and leave it alone.\n\
         2. Think of a question about the topic that somebody would pay to have answered, and tell it to me in three sentences.\n\
         3. Create two or three related tables for it (create_table), with keys and sensible types, and fill each with ten to fifteen plausible rows \
         (write_query, with the values in params).\n\
         4. Offer me three questions to choose from, then wait. Answer the one I choose with read_query, show me the SQL and say what the rows mean.\n\
         5. Note every finding with append_insight. When I say that we are done, read memo://insights and sum it up for somebody who was not here.\n"
    );
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)])
        .with_description(format!("Demonstration on {topic}")))
}
