//! Whether two messages say the same: a driver, a webhook or a server numbers its requests, says when, and counts its attempts. What differs
//! in that alone is told once, and is worth no write. Pure.
//!
//! Other numbers do count: an exit code, an HTTP status, what a quota allows, a user's id; and so do versions: a date, an image's digest.

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
        let after = word(Some(index + 1));
        let is_number = this.bytes().all(|byte| byte.is_ascii_digit());
        if before == OURS || is_number && is_of_an_account(before) {
            meaning.push_str(this);
        } else if is_a_time(this, before[1], after) || is_opaque(this) || is_numbered(this, before, after) {
            meaning.push('#');
        } else {
            push_name(&mut meaning, text, (*begin, *end));
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

/// A time of day, with a date before it or by itself; a date whose time of day comes after it; or how long something took, in seconds. A
/// date alone is the name of a version.
fn is_a_time(word: &str, before: &str, after: &str) -> bool {
    // In one word: a letter, or another sign, is between the date and the time.
    let dated = word.get(..10).is_some_and(is_a_date) && word.get(11..).is_some_and(|time| is_a_time_of_day(time, 2));
    let follows = is_a_date(before) && is_a_time_of_day(word, 2);
    let is_followed = is_a_date(word) && is_a_time_of_day(after, 2);
    dated || follows || is_followed || is_a_time_of_day(word, 3) || is_a_duration(word)
}

/// `2026-12-01`, `2026/12/01`, `1/12/2026`.
fn is_a_date(word: &str) -> bool {
    let parts: Vec<_> = word.split(['-', '/']).collect();
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    parts.iter().all(is_number) && matches!(*lengths, [4, 1..=2, 1..=2] | [1..=2, 1..=2, 4])
}

/// `10:00:00`, with what belongs to it: a fraction, a zone. `least`: of so many numbers.
fn is_a_time_of_day(word: &str, least: usize) -> bool {
    let clock = word.find(['.', ',', '+', '-', 'Z']).map_or(word, |end| &word[..end]);
    let rest = word[clock.len()..].chars().all(|c| c.is_ascii_digit() || ".,+-:Z".contains(c));
    let fits = |(index, number): (usize, &str)| {
        number.bytes().all(|byte| byte.is_ascii_digit()) && (number.len() == 2 || index == 0 && number.len() == 1)
    };
    rest && (least..=3).contains(&clock.split(':').count()) && clock.split(':').enumerate().all(fits)
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

fn is_numbered(word: &str, before: [&str; 2], after: &str) -> bool {
    let key = before[1];
    let is_number = word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_amount = is_one_of("request trace", key) && is_a_quantity(word);
    let is_named = is_one_of(NUMBERED, key) && !is_amount && !is_of_an_account(before);
    word.contains(|c: char| c.is_ascii_digit()) && is_named || is_number && is_one_of(COUNTED, after)
}

/// Whether the words before a number say that it is a user's, or a group's: a spec asks for it.
fn is_of_an_account([owner, key]: [&str; 2]) -> bool {
    is_one_of("user group", owner) && is_one_of("id request", key)
}

fn is_one_of(all: &str, word: &str) -> bool {
    let plain = word.replace(['-', '_'], "");
    all.split(' ').any(|one| one.eq_ignore_ascii_case(&plain))
}

/// As Kubernetes writes an amount of CPU, or of memory, with its unit.
fn is_a_quantity(word: &str) -> bool {
    let number = ["Ki", "Mi", "Gi", "Ti", "m", "k", "M", "G", "T"].iter().find_map(|unit| word.strip_suffix(unit));
    number.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// A word that is kept, but for ids and large numbers in it, and for the port of a client. It is where the text has it from `begin` to `end`.
fn push_name(meaning: &mut String, text: &str, (begin, end): (usize, usize)) {
    let word = &text[begin..end];
    let host =
        word.rsplit_once(':').filter(|(host, port)| host.contains('.') && port.parse().is_ok_and(|port: u32| port >= EPHEMERAL));
    let name = host.map_or(word, |(host, _)| host);
    let mut rest = name;
    while !rest.is_empty() {
        let before = &text[..begin + name.len() - rest.len()];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if let Some(after) = after_uuid(rest) {
            meaning.push('#');
            rest = after;
            continue;
        }
        let (part, after) = rest.split_at(end);
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        // A fraction is part of its number.
        let fraction = after.strip_prefix('.').filter(|_| is_number);
        let fraction = fraction.filter(|fraction| fraction.starts_with(|c: char| c.is_ascii_digit()));
        let is_large = is_number && part.len() >= 10 && (fraction.is_some() || !is_told_of(before));
        if is_large || !is_number && is_an_id(part, before) {
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

/// Whether the number that comes next is what the text is about: the value of something, or one of a list of values.
fn is_told_of(before: &str) -> bool {
    let before = before.trim_end_matches(['"', '\'', '`']);
    let list = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == ',' || c == ' ');
    before.ends_with(['=', ':']) || before.ends_with(": ") || list.ends_with(['[', '('])
}

/// Whether what comes next says which image it is: its digest, or its tag. Behind a name that ends with `id` it is an id.
fn is_of_an_image(before: &str) -> bool {
    let is_name = |name: &str| name.ends_with(|c: char| c.is_ascii_alphanumeric());
    let is_id = |name: &str| ["Id", "ID", "-id", "_id"].iter().any(|id| name.ends_with(id));
    before.ends_with('@') || before.strip_suffix(':').is_some_and(|name| is_name(name) && !is_id(name))
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

/// A hash or an address in hexadecimal, or a mixture of letters and digits.
fn is_an_id(part: &str, before: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = part.strip_prefix("0x").is_some_and(is_hex);
    let is_hash = part.len() >= 8 && digits > 0 && is_hex(part);
    let is_mixture = part.len() >= 16 && digits >= 4 && part.len() - digits >= 4;
    is_address || (is_hash || is_mixture) && !is_of_an_image(before)
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
    #[case::with_a_zone("2026-12-01T10:00:00+02:00: full", "2026-12-01T10:05:00+02:00: full")]
    #[case::without_seconds("2026-12-01 10:00 no such database", "2026-12-02 11:30 no such database")]
    #[case::of_browsers("12/1/2026, 10:00:00 no such database", "12/2/2026, 9:30:00 no such database")]
    #[case::times_of_day("full at 10:00:00", "full at 9:05:00.5Z")]
    #[case::large_numbers("message 1733043600123 was lost", "message 1733043612500 was lost")]
    #[case::seconds_with_a_fraction("ts=1733043600.12 full", "ts=1733043612.5 full")]
    #[case::hashes("container 3f2a9b1c0d is gone", "container 81bc02ff7a is gone")]
    #[case::ids_behind_a_colon("jobId:3f2a9b1c0d is full", "jobId:81bc02ff7a is full")]
    #[case::ids_behind_a_blank("the id 17 is taken", "the id 18 is taken")]
    #[case::traces("trace 3f2a: full", "trace 81bc: full")]
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
    #[case::bytes("exceeded quota: q, limited: memory=1073741824", "exceeded quota: q, limited: memory=2147483648")]
    #[case::bytes_by_themselves("the limit is 104857600", "the limit is 209715200")]
    #[case::values("runAsUser: Invalid value: 1000660000", "runAsUser: Invalid value: 1000700000")]
    #[case::ranges("not in [1000660000, 1000669999]", "not in [1000700000, 1000709999]")]
    #[case::ends_of_ranges("not in [1000660000, 1000669999]", "not in [1000660000, 1000679999]")]
    #[case::ranges_in_one_word("not in (1000660000,1000669999)", "not in (1000660000,1000679999)")]
    #[case::users("user id 1000 is not allowed", "user id 1001 is not allowed")]
    #[case::large_users("group id 1000660000 is not allowed", "group id 1000670000 is not allowed")]
    #[case::requests_for_memory("the request 2Gi is too large", "the request 4Gi is too large")]
    #[case::requests_for_cpu("cpu request: 500m is too large", "cpu request: 600m is too large")]
    #[case::digests(
        "no image app@sha256:3f2a9b1c0d3f2a9b1c0d3f2a9b1c0d3f",
        "no image app@sha256:1bc02ff7a381bc02ff7a381bc02ff7a3"
    )]
    #[case::tags("no image registry.example/app:3f2a9b1c", "no image registry.example/app:81bc02ff")]
    #[case::tags_behind_a_digit("no image app2:3f2a9b1c", "no image app2:81bc02ff")]
    #[case::revisions("it speaks 2025-06-18 only", "it speaks 2025-11-25 only")]
    #[case::names_of_nodes("node 10-0-1-23 is full", "node 10-0-1-24 is full")]
    #[case::with_a_port("node 10-0-1-23:80 is away", "node 10-0-1-24:80 is away")]
    #[case::fractions("1/2/3 are taken", "1/2/4 are taken")]
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
