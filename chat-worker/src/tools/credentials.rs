//! The headers that a server's entry gives to every request: those that stand there, and those whose values stand in files. The files are
//! read at every request, so that a short-lived token is renewed without a new connection.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use mcp_stdio::secrets;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::error::ServerError;
use crate::{
    config::server::{ServerEntry, Target},
    redact,
};

/// The headers of one server.
#[derive(Debug)]
pub struct Credentials {
    fixed: HeaderMap,
    files: Vec<(HeaderName, PathBuf)>,
    /// What the files gave last: it bridges the moment in which one is replaced.
    last: Mutex<Option<HeaderMap>>,
}

impl Credentials {
    pub fn of(entry: &ServerEntry) -> Result<Self, ServerError> {
        know_those_in(&entry.target);
        let mut fixed = HeaderMap::new();
        for (name, value) in &entry.headers {
            if secrets::tells(name, value.expose()) || redact::has_scheme(value.expose()) {
                redact::know(value.expose());
            }
            fixed.append(
                named(name)?,
                hidden(value.expose().as_bytes())
                    .ok_or_else(|| unusable(&format!("the value of the header {name} cannot be one")))?,
            );
        }
        let files = entry.headers_from.iter().map(|(name, file)| Ok((named(name)?, file.clone())));
        let credentials = Self { fixed, files: files.collect::<Result<_, ServerError>>()?, last: Mutex::default() };
        // What cannot be used at all is told before anything is asked.
        credentials.now()?;
        Ok(credentials)
    }

    /// The headers as they are now.
    pub fn now(&self) -> Result<HeaderMap, ServerError> {
        if self.files.is_empty() {
            return Ok(self.fixed.clone());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read() {
            Ok(headers) => {
                if last.as_ref() != Some(&headers) {
                    let values = self.files.iter().filter_map(|(name, _)| headers.get(name)?.to_str().ok());
                    values.for_each(redact::know_renewed);
                }
                Ok(last.insert(headers).clone())
            }
            Err(problem) => {
                let headers = last.clone().ok_or_else(|| unusable(&problem))?;
                tracing::warn!("{problem}; the last credentials are used");
                Ok(headers)
            }
        }
    }

    fn read(&self) -> Result<HeaderMap, String> {
        let mut headers = self.fixed.clone();
        for (name, file) in &self.files {
            let bytes = std::fs::read(file).map_err(|error| format!("{} cannot be used: {error}", file.display()))?;
            headers.insert(name, of_file(&bytes).ok_or_else(|| odd(name, file))?);
        }
        Ok(headers)
    }
}

/// Some servers take theirs in their URL: a password, or a parameter that is named for one.
fn know_those_in(target: &Target) {
    let Target::Url(url) = target else { return };
    let Ok(url) = Url::parse(url) else { return };
    url.password().into_iter().for_each(redact::know);
    url.query_pairs().filter(|(name, value)| secrets::tells(name, value)).for_each(|(_, value)| redact::know(&value));
}

/// A file that is just being written may be empty for a moment: that is no credential.
fn of_file(bytes: &[u8]) -> Option<HeaderValue> {
    hidden(bytes.trim_ascii()).filter(|value| !value.is_empty())
}

fn odd(name: &HeaderName, file: &Path) -> String {
    format!("the content of {} cannot be the header {name}", file.display())
}

fn named(name: &str) -> Result<HeaderName, ServerError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable(&format!("{name:?} cannot be the name of a header")))
}

fn hidden(bytes: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unusable(problem: &str) -> ServerError {
    ServerError::Credentials(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::parse;

    fn entry(file: &str) -> ServerEntry {
        let text = format!(
            r#"{{"servers": [{{"name": "a", "url": "https://a/mcp", "headers": {{"X-Team": "t"}},
                 "headers_from": [{{"name": "Authorization", "file": {file:?}}}]}}]}}"#
        );
        parse(&text, &|_| None).expect("valid").servers.remove(0)
    }

    #[test]
    fn what_a_url_holds_of_credentials_is_hidden() {
        let text = r#"{"servers": [{"name": "a", "url": "https://u:of-the-front-door@a/mcp?tavilyApiKey=of-the-search-1&team=blue-team-1"}]}"#;
        Credentials::of(&parse(text, &|_| None).expect("valid").servers.remove(0)).expect("usable");
        assert_eq!(redact::redact("of-the-front-door of-the-search-1 blue-team-1"), "*** *** blue-team-1");
    }

    #[test]
    fn a_missing_and_an_impossible_credential_are_told_without_their_value() {
        let missing = Credentials::of(&entry("/nowhere/token")).expect_err("no such file").to_string();
        assert!(missing.contains("/nowhere/token"), "{missing}");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "Bearer top\nsecret").expect("written");
        let impossible = Credentials::of(&entry(&file.display().to_string())).expect_err("no header").to_string();
        assert!(impossible.contains("authorization") && !impossible.contains("top"), "{impossible}");
    }

    #[test]
    fn a_renewed_credential_is_taken_up_and_a_half_written_one_is_bridged() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "Bearer one\n").expect("written");
        let credentials = Credentials::of(&entry(&file.display().to_string())).expect("usable");
        let now = || credentials.now().expect("usable").get("authorization").expect("set").to_str().expect("text").to_owned();
        assert_eq!(now(), "Bearer one");
        std::fs::write(&file, "Bearer two").expect("written");
        assert_eq!(now(), "Bearer two");
        std::fs::write(&file, "").expect("written");
        assert_eq!(now(), "Bearer two");
        assert_eq!(credentials.now().expect("usable").get("x-team").expect("set"), "t");
        assert!(!format!("{:?}", credentials.now()).contains("two"), "it is hidden");
    }
}
