//! What becomes of a field of mcp.json that is not known here. Other programs' files have many: most only describe, and are ignored with
//! a word. One that would change what runs, or that gives or takes rights, must not be ignored: its entry is refused. Pure.

/// Fields that are known to say nothing about what runs, although their names look so. Those that allow calls without asking are here,
/// too: without them, one is asked.
const HARMLESS: [&str; 14] = [
    "alwaysallow",
    "amount",
    "autoapprove",
    "autoapproved",
    "author",
    "authors",
    "displayname",
    "gallery",
    "homepage",
    "icon",
    "iconurl",
    "keywords",
    "programminglanguage",
    "repository",
];

/// Parts of names that say who may what, with which credentials, or what is started, and where.
const WEIGHTY: [&str; 65] = [
    "able",
    "active",
    "allow",
    "approv",
    "args",
    "argument",
    "assume",
    "auth",
    "block",
    "cabundle",
    "cafile",
    "cert",
    "chroot",
    "cmd",
    "command",
    "confirm",
    "container",
    "cookie",
    "credential",
    "cwd",
    "deny",
    "dir",
    "docker",
    "endpoint",
    "env",
    "exclude",
    "exec",
    "filter",
    "forbid",
    "group",
    "header",
    "host",
    "ignore",
    "image",
    "include",
    "insecure",
    "interpreter",
    "isolat",
    "key",
    "mount",
    "namespace",
    "network",
    "only",
    "override",
    "param",
    "pass",
    "permission",
    "platform",
    "policy",
    "privilege",
    "program",
    "proxy",
    "requestinit",
    "root",
    "runtime",
    "sandbox",
    "secret",
    "shell",
    "skip",
    "ssl",
    "tls",
    "token",
    "umask",
    "user",
    "volume",
];
/// The same, of names that are too many to be told by a part.
const WEIGHTY_WORDS: [&str; 12] = ["arg", "ca", "gid", "method", "path", "port", "query", "tool", "tools", "trust", "uid", "url"];

/// Whether an entry with this field is refused.
pub fn refuses(field: &str) -> bool {
    // Comments and schemas, as people write them into JSON.
    if field.starts_with(['_', '$', '#', '/']) || field.starts_with("x-") {
        return false;
    }
    let plain: String = field.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let weighty = WEIGHTY.iter().any(|part| plain.contains(part)) || WEIGHTY_WORDS.contains(&plain.as_str());
    let tools = plain.starts_with("tool") || plain.ends_with("tools") || plain.ends_with("url");
    !HARMLESS.contains(&plain.as_str()) && (weighty || tools)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_or_takes_rights_refuses_and_what_describes_does_not() {
        for field in [
            "envFile",
            "env_file",
            "headersHelper",
            "oauth",
            "bearer_token_env_var",
            "disable",
            "Disabled",
            "isActive",
            "enable",
            "readOnly",
            "run_as_user",
            "workingDirectory",
            "work_dir",
            "caFile",
            "shell",
            "docker",
            "toolsFilter",
            "allowed",
            "permissions",
            "proxy",
            "verifySsl",
            "passphrase",
            "apiKey",
            "cookies",
            "requireConfirmation",
            "arg",
            "arguments",
            "params",
            "program",
            "mountPath",
            "path",
            "volumes",
            "mounts",
            "interpreter",
            "isolated",
            "query",
            "umask",
        ] {
            assert!(refuses(field), "{field}");
        }
        for field in [
            "timeuot",
            "note",
            "comment",
            "_disabled_because",
            "$schema",
            "x-team",
            "displayName",
            "icon",
            "iconUrl",
            "alwaysAllow",
            "autoApprove",
            "category",
            "tags",
            "gallery",
            "author",
            "color",
            "order",
            "initTimeout",
            "// url",
            "programmingLanguage",
            "amount",
        ] {
            assert!(!refuses(field), "{field}");
        }
    }
}
