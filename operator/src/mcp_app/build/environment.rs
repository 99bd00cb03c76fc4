//! The chat worker's environment: what the spec says in the worker's terms.

use k8s_openapi::api::core::v1::EnvVar;

use super::paths::{CONFIG_DIR, FILE, KEY_DIR, KEY_FILE, TOKEN_DIR, TOKEN_FILE};
use crate::{
    crd::mcp_app::{Approvals, ModelApi},
    mcp_app::validate::ValidatedApp,
    workload,
};

/// What tools were when they were first seen: in the emptyDir, which a restart of the container leaves as it is.
const DATA_DIR: &str = "/tmp";
/// The day's account of tokens, beside it.
const USAGE_FILE: &str = "/tmp/usage.json";

/// What the spec says first, then the person's own variables, which win where they meet.
pub(super) fn build(app: &ValidatedApp) -> Vec<EnvVar> {
    let mut variables: Vec<(&str, String)> = vec![
        ("MCP_CONFIG_PATH", format!("{CONFIG_DIR}/{FILE}")),
        ("CHAT_ACCESS_TOKEN_FILE", format!("{TOKEN_DIR}/{TOKEN_FILE}")),
        ("CHAT_RATE_LIMIT_REQUESTS", app.rate_limit.requests.to_string()),
        ("CHAT_RATE_LIMIT_WINDOW_SECONDS", app.rate_limit.window_seconds.to_string()),
        ("CHAT_APPROVALS", approvals(app.approvals).to_owned()),
        ("CHAT_USAGE_FILE", USAGE_FILE.to_owned()),
        ("CHAT_DATA_DIR", DATA_DIR.to_owned()),
        ("LOG_LEVEL", app.log_level.as_str().to_owned()),
        // The root is read-only, and the cluster collects what goes to stdout.
        ("LOG_FILE", String::from("-")),
    ];
    variables.extend(model(app));
    variables.extend(app.system_prompt.iter().map(|prompt| ("CHAT_SYSTEM_PROMPT", prompt.clone())));
    variables.extend(app.cache_seconds.iter().map(|seconds| ("CHAT_CACHE_SECONDS", seconds.to_string())));
    if let Some(budget) = &app.budget {
        variables.push(("CHAT_BUDGET_TOKENS_PER_DAY", budget.tokens_per_day.to_string()));
        variables.push(("CHAT_BUDGET_ALERT_PERCENT", budget.alert_percent.to_string()));
    }
    variables.extend(list("CHAT_ALLOWED_HOSTS", &app.allowed_hosts));
    variables.extend(list("CHAT_TRUSTED_PROXIES", &app.trusted_proxies));
    workload::environment(variables, &app.pod)
}

fn list(name: &'static str, values: &[String]) -> Option<(&'static str, String)> {
    (!values.is_empty()).then(|| (name, values.join(",")))
}

fn model(app: &ValidatedApp) -> Vec<(&'static str, String)> {
    let Some(model) = &app.model else {
        return vec![("CHAT_MODE", "gateway".to_owned())];
    };
    let (api, base_url, key_file) = match model.api {
        ModelApi::Anthropic => ("anthropic", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY_FILE"),
        ModelApi::OpenAI => ("openai", "OPENAI_BASE_URL", "OPENAI_API_KEY_FILE"),
    };
    let mut variables = vec![
        ("CHAT_MODEL_API", api.to_owned()),
        ("CHAT_MODEL", model.name.clone()),
        ("CHAT_MAX_TOKENS", model.max_tokens.to_string()),
    ];
    variables.extend(model.api_key_secret_ref.iter().map(|_| (key_file, format!("{KEY_DIR}/{KEY_FILE}"))));
    variables.extend(model.base_url.iter().map(|url| (base_url, url.clone())));
    variables.extend(model.fallback.iter().map(|fallback| ("CHAT_MODEL_FALLBACK", fallback.clone())));
    variables.extend(model.context_tokens.iter().map(|tokens| ("CHAT_CONTEXT_TOKENS", tokens.to_string())));
    variables
}

pub(super) fn approvals(approvals: Approvals) -> &'static str {
    match approvals {
        Approvals::Ask => "ask",
        Approvals::Always => "always",
        Approvals::Never => "never",
    }
}
