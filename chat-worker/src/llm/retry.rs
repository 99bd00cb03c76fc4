//! Whether a failed attempt is made again, and when. Pure: the answer's headers first, then its status; the clock and
//! the dice are the caller's.

use std::time::{Duration, SystemTime};

use mcp_wire::retry_after;

use super::ModelError;

/// Attempts after the first.
pub const RETRIES: u32 = 2;
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// What the headers of a failed answer say about trying again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// `x-should-retry`.
    pub should_retry: Option<bool>,
    /// `retry-after-ms`, else `retry-after`.
    pub after: Option<Duration>,
}

impl Hints {
    /// Reads the headers. `now` is for a `retry-after` that is a date.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>, now: SystemTime) -> Self {
        let should_retry = match header("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        let milliseconds = header("retry-after-ms").and_then(|text| seconds(text, 1_000.0));
        let after = milliseconds.or_else(|| {
            let text = header("retry-after")?;
            seconds(text, 1.0).or_else(|| retry_after::read(text, now))
        });
        Self { should_retry, after }
    }
}

/// A count of units, `scale` of them to the second. Garbage is no hint.
fn seconds(text: &str, scale: f64) -> Option<Duration> {
    let value: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(value / scale).ok()
}

/// How long to wait before the next attempt; `None` when there must be none.
///
/// `retries` have been made, `left` is what remains of the deadline, `dice` is in 0..1. A wait that the server asked
/// for is kept to the letter; when it does not fit into what is left, trying earlier would only be refused again.
pub fn next(error: &ModelError, hints: Hints, retries: u32, left: Duration, dice: f64) -> Option<Duration> {
    if retries >= RETRIES || !wanted(error, hints) {
        return None;
    }
    let backoff = FIRST_DELAY.saturating_mul(1 << retries.min(8)).min(LONGEST_DELAY);
    // Up to a quarter less, so that callers that failed together do not return together.
    let delay = hints.after.unwrap_or_else(|| backoff.mul_f64(1.0 - 0.25 * dice));
    (delay < left).then_some(delay)
}

/// Whether it may be gone the next time, as far as the error itself says.
#[cfg(test)]
pub fn is_passing(error: &ModelError) -> bool {
    wanted(error, Hints::default())
}

fn wanted(error: &ModelError, hints: Hints) -> bool {
    match error {
        // Spent is spent: the limit does not move within any deadline of ours.
        ModelError::Status { status: 429, kind: Some(kind), .. }
            if kind.ends_with("_spend_limit_reached") || kind == "insufficient_quota" =>
        {
            false
        }
        ModelError::Status { status, .. } => hints.should_retry.unwrap_or(matches!(status, 408 | 409 | 429) || *status >= 500),
        ModelError::Event { kind, .. } => {
            // The second line is what OpenAI and its relatives say.
            matches!(kind.as_str(), "overloaded_error" | "api_error" | "rate_limit_error" | "timeout_error")
                || matches!(kind.as_str(), "server_error" | "rate_limit_exceeded" | "internal_server_error")
        }
        ModelError::Connect(_) | ModelError::Stream(_) | ModelError::NotTheApi { .. } => true,
        ModelError::Key(_) | ModelError::TooLarge(_) | ModelError::Deadline(_) | ModelError::Budget { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn status(status: u16, kind: &str) -> ModelError {
        ModelError::Status { status, kind: Some(kind.into()), message: String::new(), retry_after: None }
    }

    fn hints(pairs: &[(&str, &'static str)]) -> Hints {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        Hints::read(find, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
    }

    const LEFT: Duration = Duration::from_mins(10);

    #[rstest]
    #[case(408, true)]
    #[case(409, true)]
    #[case(429, true)]
    #[case(500, true)]
    #[case(529, true)]
    #[case(400, false)]
    #[case(401, false)]
    #[case(413, false)]
    fn the_status_decides_where_the_headers_are_silent(#[case] code: u16, #[case] again: bool) {
        assert_eq!(next(&status(code, "x"), Hints::default(), 0, LEFT, 0.0).is_some(), again);
    }

    #[test]
    fn x_should_retry_is_stronger_than_the_status() {
        assert!(next(&status(400, "x"), hints(&[("x-should-retry", "true")]), 0, LEFT, 0.0).is_some());
        assert!(next(&status(529, "x"), hints(&[("x-should-retry", "false")]), 0, LEFT, 0.0).is_none());
    }

    #[test]
    fn milliseconds_come_before_seconds_and_dates_are_read() {
        let both = hints(&[("retry-after-ms", "1500"), ("retry-after", "9")]);
        assert_eq!(next(&status(429, "x"), both, 0, LEFT, 1.0), Some(Duration::from_millis(1_500)));
        let date = hints(&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")]);
        assert_eq!(date.after, Some(Duration::from_secs(10)));
        assert_eq!(hints(&[("retry-after", "soon")]).after, None);
        assert_eq!(hints(&[("retry-after", "-5")]).after, None);
    }

    #[test]
    fn a_wait_longer_than_the_deadline_is_not_begun() {
        let long = hints(&[("retry-after", "900")]);
        assert_eq!(next(&status(429, "x"), long, 0, LEFT, 0.0), None);
    }

    #[test]
    fn a_spend_limit_is_final_whatever_the_headers_say() {
        let limit = status(429, "workspace_spend_limit_reached");
        assert_eq!(next(&limit, hints(&[("x-should-retry", "true"), ("retry-after", "1")]), 0, LEFT, 0.0), None);
    }

    #[test]
    fn the_wait_doubles_and_there_are_two_retries() {
        let broken = ModelError::Stream("x".into());
        let delays: Vec<_> = (0..4).map(|retries| next(&broken, Hints::default(), retries, LEFT, 0.0)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(delays, [ms(500), ms(1_000), None, None]);
        assert_eq!(next(&broken, Hints::default(), 0, LEFT, 1.0), ms(375));
    }
}
