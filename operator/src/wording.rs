//! Whether two messages say the same: a driver, a webhook or a server numbers its requests, says when, and counts its attempts. What differs
//! in that alone is told once, and is worth no write. Pure.
//!
//! Other numbers do count: an exit code, an HTTP status, what a quota allows.

use serde::Serialize;
use serde_json::Value;

/// Fields of a status that hold sentences. All others are compared as they are.
const SENTENCES: [&str; 2] = ["message", "failure"];

/// A word with a digit after one of these is the name of one attempt, and of nothing else.
const NUMBERED: &str =
    "attempt attempts correlationid goroutine id nonce operationid pid reqid request requestid retry retries trace traceid";
/// A number before one of these is a count of attempts, or of time.
const COUNTED: &str =
    "ago attempt attempts hour hours milliseconds minute minutes ms retries retry sec second seconds times tries";
/// The words before a time that we say ourselves, and mean.
const OURS: [&str; 2] = ["count", "from"];

/// From here on a port is a client's own, as a rule, and another one for each connection.
const EPHEMERAL: u32 = 32_768;

/// Whether a message says what another one said.
pub fn is_same(told: &str, said: &str) -> bool {
    told == said || meaning(told) == meaning(said)
}

/// Whether a status says what another one said: sentences in other words for the same, and everything else as it was.
pub fn says_the_same(told: &impl Serialize, said: &impl Serialize) -> bool {
    let json = |status: Result<Value, _>| status.unwrap_or_default();
    let (told, said) = (json(serde_json::to_value(told)), json(serde_json::to_value(said)));
    !said.is_null() && are_same(&told, &said)
}

fn are_same(told: &Value, said: &Value) -> bool {
    match (told, said) {
        (Value::Object(told), Value::Object(said)) => {
            let same = |(key, told): (&String, &Value)| match (told, said.get(key)) {
                (Value::String(told), Some(Value::String(said))) if SENTENCES.contains(&&**key) => is_same(told, said),
                (told, Some(said)) => are_same(told, said),
                (_, None) => false,
            };
            told.len() == said.len() && told.iter().all(same)
        }
        (Value::Array(told), Value::Array(said)) => {
            told.len() == said.len() && told.iter().zip(said).all(|(told, said)| are_same(told, said))
        }
        (told, said) => told == said,
    }
}

/// The message without what differs from one time to the next.
fn meaning(text: &str) -> String {
    let words = words(text);
    let word = |index: Option<usize>| index.and_then(|index| words.get(index)).map_or("", |(begin, end)| &text[*begin..*end]);
    let (mut meaning, mut until) = (String::with_capacity(text.len()), 0);
    for (index, (begin, end)) in words.iter().enumerate() {
        meaning.push_str(&text[until..*begin]);
        let before = [2, 1].map(|back| word(index.checked_sub(back)));
        let this = &text[*begin..*end];
        if before == OURS {
            meaning.push_str(this);
        } else if is_a_time(this) || is_opaque(this) || is_numbered(this, before[1], word(Some(index + 1))) {
            meaning.push('#');
        } else {
            push_name(&mut meaning, this);
        }
        until = *end;
    }
    meaning.push_str(&text[until..]);
    meaning
}

/// Where words begin and end: names, numbers, times, addresses. A colon or a comma is part of one between two digits.
fn words(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let is_part = |at: usize| match bytes[at] {
        b':' | b',' => is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)),
        b'-' | b'.' | b'_' | b'/' | b'+' => true,
        byte => byte.is_ascii_alphanumeric() || !byte.is_ascii(),
    };
    let (mut words, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let begin = at;
        while at < bytes.len() && is_part(at) {
            at += 1;
        }
        if at > begin {
            let ends = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
            let inner = &bytes[begin..at];
            if let (Some(first), Some(last)) = (inner.iter().position(ends), inner.iter().rposition(ends)) {
                words.push((begin + first, begin + last + 1));
            }
        }
        at += 1;
    }
    words
}

/// A date, a time of day, or both; or how long something took, in seconds.
fn is_a_time(word: &str) -> bool {
    let is_of = |c: char| c.is_ascii_digit() || "-:./,+TZ".contains(c);
    let parts = word.matches(['-', ':', '/']).count();
    let clock = word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(is_of) && parts > 1;
    clock || is_a_duration(word)
}

/// As Go and Rust write one: `40s`, `1m20s`, `3.2ms`. What ends with another unit may be a quantity.
fn is_a_duration(word: &str) -> bool {
    let mut rest = word;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if unit.len() == rest.len() {
            return false;
        }
        let Some(after) = ["ms", "ns", "us", "µs", "h", "m", "s"].iter().find_map(|name| unit.strip_prefix(name)) else {
            return false;
        };
        rest = after;
    }
    word.ends_with('s')
}

/// Long, and made of letters and digits as nobody speaks: a token, or something that is encoded.
fn is_opaque(word: &str) -> bool {
    let count = |is: fn(&char) -> bool| word.chars().filter(is).count();
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "+/_-".contains(c));
    plain
        && word.len() >= 40
        && count(char::is_ascii_digit) >= 6
        && count(char::is_ascii_uppercase) >= 6
        && count(char::is_ascii_lowercase) >= 6
}

fn is_numbered(word: &str, before: &str, after: &str) -> bool {
    let is_one_of = |all: &str, word: &str| {
        let plain = word.replace(['-', '_'], "");
        all.split(' ').any(|one| one.eq_ignore_ascii_case(&plain))
    };
    let is_number = word.chars().all(|c| c.is_ascii_digit() || c == '.');
    word.contains(|c: char| c.is_ascii_digit()) && is_one_of(NUMBERED, before) || is_number && is_one_of(COUNTED, after)
}

/// A word that is kept, but for ids and large numbers in it, and for the port of a client.
fn push_name(meaning: &mut String, word: &str) {
    let host =
        word.rsplit_once(':').filter(|(host, port)| host.contains('.') && port.parse().is_ok_and(|port: u32| port >= EPHEMERAL));
    let mut rest = host.map_or(word, |(host, _)| host);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if let Some(after) = after_uuid(rest) {
            meaning.push('#');
            rest = after;
            continue;
        }
        let (part, after) = rest.split_at(end);
        if is_an_id(part) {
            // A fraction is part of its number.
            let fraction = after.strip_prefix('.').filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()));
            rest = fraction.map_or(after, |fraction| fraction.trim_start_matches(|c: char| c.is_ascii_digit()));
            meaning.push('#');
            continue;
        }
        meaning.push_str(part);
        let other = after.chars().next().map_or(0, char::len_utf8);
        meaning.push_str(&after[..other]);
        rest = &after[other..];
    }
    if host.is_some() {
        meaning.push_str(":#");
    }
}

/// What comes after a uuid at the beginning.
fn after_uuid(text: &str) -> Option<&str> {
    let mut rest = text;
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        rest = if index == 0 { rest } else { rest.strip_prefix('-')? };
        let (group, after) = rest.split_at_checked(length)?;
        group.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
        rest = after;
    }
    (!rest.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(rest)
}

/// A hash or an address in hexadecimal, a large number, or a mixture of letters and digits.
fn is_an_id(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = part.strip_prefix("0x").is_some_and(is_hex);
    is_address
        || digits >= 6 && digits == part.len()
        || part.len() >= 8 && digits > 0 && is_hex(part)
        || part.len() >= 16 && digits >= 4 && part.len() - digits >= 4
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::request_ids("request-id: 7f3a failed", "request-id: 81bc failed")]
    #[case::uuids(
        "api error UnauthorizedOperation, RequestID: 0b1c2d3e-0000-4a4b-8c8d-0123456789ab",
        "api error UnauthorizedOperation, RequestID: 9f8e7d6c-1111-4a4b-9c8d-ba9876543210"
    )]
    #[case::ids_of_vendors("overloaded (req_011CSHoEeqs5C35K2UUqR7Fy)", "overloaded (req_011CSHqzLPk2sYd8xWmA93Rt)")]
    #[case::sandboxes(
        r#"failed to set up network for sandbox "5f0e5f0e5f0e5f0e5f0e5f0e5f0e5f0e": no IP"#,
        r#"failed to set up network for sandbox "a1b2a1b2a1b2a1b2a1b2a1b2a1b2a1b2": no IP"#
    )]
    #[case::what_is_encoded(
        "Encoded failure: 4GfBx9Qz-Lk2Mv7Rt_Ys8Wn3Pd5Hj6Cb1Xa0Ze4Uo9 in eu",
        "Encoded failure: Zz8Kq1Wm5Nb-3Vc7_Xl2Jh6Gf9Ds4Ap0Oi1Uy2Tr5E in eu"
    )]
    #[case::times("at 2026-12-01T10:00:00.123Z the pool was full", "at 2026-12-01T10:05:12.9Z the pool was full")]
    #[case::of_python("2026-12-01 10:00:00,123 ERROR no such database", "2026-12-01 10:05:00,7 ERROR no such database")]
    #[case::of_go("2026/12/01 10:00:00 no such database", "2026/12/02 11:30:00 no such database")]
    #[case::since_1970("[1733043600.12] no such database", "[1733043612.5] no such database")]
    #[case::back_off("back-off 40s restarting failed container", "back-off 1m20s restarting failed container")]
    #[case::how_long("it took 3.2ms, gave up after 12 seconds", "it took 17ms, gave up after 9 seconds")]
    #[case::attempts("attempt 17: tried 3 times", "attempt 18: tried 4 times")]
    #[case::ports("read udp 10.88.0.5:45632->10.96.0.10:53: i/o timeout", "read udp 10.88.0.5:39120->10.96.0.10:53: i/o timeout")]
    #[case::addresses("panic at 0x7ffd12: nil", "panic at 0x55d0c8: nil")]
    fn what_differs_each_time_it_is_said_is_the_same(#[case] told: &str, #[case] said: &str) {
        assert!(is_same(told, said), "{} / {}", meaning(told), meaning(said));
    }

    #[rstest]
    #[case::exit_codes("it ended last with exit code 1", "it ended last with exit code 137 (signal 9)")]
    #[case::statuses("HTTP 500 to initialize", "HTTP 503 to initialize")]
    #[case::errors("JSON-RPC error -32603: no", "JSON-RPC error -32602: no")]
    #[case::nodes("0/1 nodes are available: 1 Insufficient cpu", "0/2 nodes are available: 2 Insufficient cpu")]
    #[case::quotas("exceeded quota: q, limited: limits.cpu=500m", "exceeded quota: q, limited: limits.cpu=600m")]
    #[case::limits("maximum memory usage is 64Mi", "maximum memory usage is 128Mi")]
    #[case::pods_in_service("1/3 pods in service", "2/3 pods in service")]
    #[case::other_pods("pod db-mcp-6f9c7d4b5-x2x4z: no", "pod db-mcp-6f9c7d4b5-7k2pq: no")]
    #[case::claims("the claim data-1 is not bound", "the claim data-2 is not bound")]
    #[case::tools("they offer get_report_v1", "they offer get_report_v2")]
    #[case::ports_of_servers("dial tcp 10.96.0.1:443: refused", "dial tcp 10.96.0.1:6443: refused")]
    #[case::hosts("dial tcp 10.96.0.1:443: refused", "dial tcp 10.96.0.2:443: refused")]
    #[case::versions("npm 10.2.3 is too old", "npm 10.2.4 is too old")]
    #[case::words("the pool is full", "the pool is gone")]
    #[case::when_it_counts("failures count from 2026-01-01T00:01:00Z", "failures count from 2026-01-01T00:02:00Z")]
    fn what_means_something_else_is_told(#[case] told: &str, #[case] said: &str) {
        assert!(!is_same(told, said), "{}", meaning(told));
    }

    #[test]
    fn whatever_is_said_is_the_same_as_itself_and_keeps_its_letters() {
        for text in ["", "größe 10 µs – ok", "::::", "a:1:b", "1:", ":1", "…12s…", "ÿ1234567ÿ"] {
            assert!(is_same(text, text));
            let _survives = meaning(text);
        }
        assert_eq!(meaning("pod db-mcp-6f9c7d-x2x4z, container mcp: Error"), "pod db-mcp-6f9c7d-x2x4z, container mcp: Error");
    }

    #[test]
    fn a_status_says_the_same_while_only_sentences_differ_and_in_that_alone() {
        let status = |message: &str, reason: &str, at: &str| json!({"conditions": [{"type": "Ready", "reason": reason, "message": message}], "circuit": {"retryAt": at}});
        let told = status("attempt 1: full", "ApplyFailed", "2026-01-01T00:00:00Z");
        let same = |said: &Value| says_the_same(&told, said);
        assert!(same(&status("attempt 2: full", "ApplyFailed", "2026-01-01T00:00:00Z")));
        assert!(!same(&status("attempt 2: gone", "ApplyFailed", "2026-01-01T00:00:00Z")));
        assert!(!same(&status("attempt 2: full", "Attempt2", "2026-01-01T00:00:00Z")));
        assert!(!same(&status("attempt 2: full", "ApplyFailed", "2026-01-01T00:00:09Z")), "what is no sentence counts");
        assert!(!same(&json!({"conditions": []})) && !same(&Value::Null));
    }
}
