//! Which bodies are read, and how.

use std::time::Duration;

/// How long the answer is waited for after an event that is no message, or answers something else, where the answer should come at once.
pub const SECOND_CHANCE: Duration = Duration::from_secs(1);

/// What a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Json,
    Events,
    Other(String),
    /// It does not say.
    None,
}

impl Content {
    /// By the value of `Content-Type`.
    pub fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::None };
        let text = String::from_utf8_lossy(value);
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Self::Json,
            "text/event-stream" => Self::Events,
            _ => Self::Other(essence),
        }
    }
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Plain,
    /// Whether it was asked for or not.
    Gzip,
}

impl Coding {
    /// By the value of `Content-Encoding`; the error says what is wrong with it.
    pub fn of(value: Option<&[u8]>) -> Result<Self, String> {
        let value = String::from_utf8_lossy(value.unwrap_or_default()).trim().to_ascii_lowercase();
        match value.as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            other => {
                let other: String = other.chars().filter(|c| !c.is_control()).take(64).collect();
                Err(format!("its content encoding is {other}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_known_by_its_headers() {
        assert_eq!(Content::of(None), Content::None);
        assert_eq!(Content::of(Some(b" Application/JSON ; charset=\xff")), Content::Json);
        assert_eq!(Content::of(Some(b"text/event-stream;charset=utf-8")), Content::Events);
        assert_eq!(Content::of(Some(b"text/html")), Content::Other("text/html".into()));
        assert_eq!(Coding::of(None), Ok(Coding::Plain));
        assert_eq!(Coding::of(Some(b" X-GZIP ")), Ok(Coding::Gzip));
        assert_eq!(Coding::of(Some(b"br")), Err("its content encoding is br".into()));
    }
}
