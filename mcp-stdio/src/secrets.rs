//! Which names say that what is called so is a secret: of variables, options, headers, keys of JSON and parts of a value. And the values of
//! such variables taken out of what others are told.

/// Words in a name whose value is a secret.
const TELLING: [&str; 42] = [
    "token",
    "tokens",
    "tok",
    "key",
    "keys",
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "pswd",
    "pass",
    "pw",
    "pin",
    "otp",
    "totp",
    "mnemonic",
    "salt",
    "credential",
    "credentials",
    "creds",
    "cred",
    "auth",
    "authorization",
    "pat",
    "dsn",
    "cookie",
    "cookies",
    "session",
    "bearer",
    "signature",
    "signing",
    "sig",
    "sas",
    "jwt",
    "license",
    "licence",
    "webhook",
    "webhooks",
];

/// Ends of words that are written together: `PGPASSWORD`, `clientsecret`.
const ENDS: [&str; 16] = [
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "accountkey",
    "authkey",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "dsn",
    "dbpass",
    "dbpw",
    "pwd",
];

/// Two words that are one.
const TOGETHER: [&str; 3] = ["accesscode", "authcode", "verificationcode"];
/// What names a place, and may have what lets somebody in. An address shows whether it has.
const CONNECTIONS: [&str; 3] = ["connectionstring", "connstring", "connstr"];

/// Words in the name of what is counted or measured: its number is no secret, whatever else the name says.
const MEASURES: [&str; 16] = [
    "max", "min", "limit", "count", "size", "length", "timeout", "ttl", "seconds", "minutes", "hours", "days", "interval", "age",
    "port", "budget",
];

/// Whether the name says that this value is a secret.
pub fn tells(name: &str, value: &str) -> bool {
    is_telling(name) && !is_harmless(name, value)
}

/// Whether the name says so.
pub fn is_telling(name: &str) -> bool {
    let words = words(name);
    let whole = words.concat();
    let tells = |word: &str| TELLING.contains(&word) || ENDS.iter().any(|end| word.ends_with(end));
    // `API_KEY2` is one of several keys, and `APIKEYS` are all of them.
    let several = |word: &str| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    words.iter().map(|word| several(word)).any(|word| tells(&word) || tells(word.trim_end_matches('s')))
        || TOGETHER.iter().chain(&CONNECTIONS).any(|together| whole.contains(together))
}

/// Whether the value is none of a secret, whatever its name: a switch, a number of things, a file beside the program.
pub fn is_harmless(name: &str, value: &str) -> bool {
    let switch = ["true", "false", "0", "1", "yes", "no", "on", "off", "none", "null", "asc", "desc"].contains(&value);
    let number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let words = words(name);
    let connection = value.contains("://") && CONNECTIONS.iter().any(|connection| words.concat().contains(connection));
    let measured = number && words.iter().any(|word| MEASURES.contains(&word.as_str()));
    value.is_empty() || value.starts_with("./") || switch || measured || connection
}

/// The same of a variable of an environment.
pub fn of_variable(name: &str, value: &str) -> bool {
    tells(name, value) && !FOLDERS.contains(&name)
}

/// Shorter values stand in too much that is no secret.
const LEAST: usize = 6;

/// The folder that a shell is in, and the one before: only in an environment are they called so.
const FOLDERS: [&str; 2] = ["PWD", "OLDPWD"];

/// The secrets of an environment: the value of each variable whose name says so.
#[derive(Default)]
pub struct Secrets(Vec<(String, String)>);

impl std::fmt::Debug for Secrets {
    /// Without the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Secrets {
    /// Those of this process, which are those of its children.
    pub fn of_environment() -> Self {
        Self::of(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
    }

    fn of(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut secrets: Vec<_> = variables
            .filter(|(name, value)| value.trim().len() >= LEAST && of_variable(name, value))
            .map(|(name, value)| (name, value.trim().to_owned()))
            .collect();
        // One may be a part of another.
        secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Self(secrets)
    }

    /// The text with `$(NAME)` in the place of each.
    pub fn masked(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, &format!("$({name})")))
    }
}

/// The words of a name, in small letters: those of `X-Api-Key`, of `API_KEY` and of `apiKey` are the same but for the first.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (lower && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if c.is_ascii_alphanumeric() {
            let word = words.last_mut().expect("there is one from the beginning");
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_by_their_words() {
        for name in [
            "API_KEY",
            "apiKey",
            "X-Api-Key",
            "PGPASSWORD",
            "clientsecret",
            "AccountKey",
            "--access-token",
            "Connection String",
            "TOKEN2",
            "APIKEYS",
            "oauth2Bearer",
        ] {
            assert!(is_telling(name), "{name}");
        }
        for name in ["MONKEY", "LOG_LEVEL", "author", "PORT", "keyword", "compass", "--path", "spinner", ""] {
            assert!(!is_telling(name), "{name}");
        }
        assert!(is_harmless("MAX_TOKENS", "4096") && is_harmless("session-timeout", "30") && is_harmless("USE_KEY", "true"));
        assert!(!is_harmless("PIN", "4096") && !is_harmless("MAX_TOKENS", "abc"));
    }
    #[test]
    fn values_of_variables_that_tell_are_taken_out() {
        let variables = [
            ("API_TOKEN", "tok-12345678\n"),
            ("TOKEN_PREFIX", "tok-12"),
            ("HOME", "/home/mcp"),
            ("PWD", "/srv/server"),
            ("OLDPWD", "/home/mcp"),
            ("DB_PWD", "pwd-12345678"),
            ("PIN", "1234"),
            ("MAX_TOKENS", "1000000"),
        ];
        let secrets = Secrets::of(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        let said =
            secrets.masked("bad token tok-12345678 (tok-12…) or pwd-12345678 in /home/mcp, /srv/server/x, 1234 of 1000000");
        let masked = "bad token $(API_TOKEN) ($(TOKEN_PREFIX)…) or $(DB_PWD) in /home/mcp, /srv/server/x, 1234 of 1000000";
        assert_eq!(said, masked);
        assert!(!format!("{secrets:?}").contains("tok-"));
    }
}
