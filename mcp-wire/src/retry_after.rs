//! How long a server asks to be left alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::fmt::rfc2822;

/// The longest that is obeyed: a server that says more is asked again then.
pub const MOST: Duration = Duration::from_mins(10);

/// Reads Retry-After: seconds, however many, or a date in any of the three forms that HTTP has (RFC 9110, 5.6.7), or as mails have it.
/// Anything else is as if it were not there.
pub fn read(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // What no number holds is very long.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    if let Ok(at) = httpdate::parse_http_date(header) {
        return at.duration_since(now).ok();
    }
    let at = u64::try_from(rfc2822::parse(header).ok()?.timestamp().as_second()).ok()?;
    (UNIX_EPOCH + Duration::from_secs(at)).duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_garbage_is_ignored() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:00 GMT").unwrap();
        assert_eq!(read("120", now), Some(Duration::from_mins(2)));
        let dates = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 09:49:37 +0100",
        ];
        for date in dates {
            assert_eq!(read(date, now), Some(Duration::from_secs(37)), "{date}");
        }
        assert_eq!(read("Sun, 06 Nov 1994 08:48:37 GMT", now), None);
        assert!(read("99999999999999999999", now) > Some(MOST), "more than a number holds");
        for garbage in ["soon", "-5", "+5", "1.5", ""] {
            assert_eq!(read(garbage, now), None, "{garbage}");
        }
    }
}
