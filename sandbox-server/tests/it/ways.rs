//! Requests of every odd shape, made of right and wrong parts, are answered with the same bytes on the short way and on the SDK's. Which
//! way a request may take is http/direct.rs; tests/it/direct.rs has the cases that were thought of one by one.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use sandbox_server::http::direct;
use sandbox_server::mcp::SqliteMcp;

use crate::support::Server;

const SCHEMA: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO item VALUES (1, 'a\"ä\n'), (2, NULL)";

/// The order means nothing to either, but only the first may take the short way.
const SHORT: &str = "application/json, text/event-stream";
const THE_SDKS: &str = "text/event-stream, application/json";

#[derive(Debug, Clone)]
struct Sent {
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// Mostly the first, which is right; sometimes one of the others.
fn mostly(right: &'static str, others: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![24 => Just(Some(right)), 2 => select(others).prop_map(Some), 1 => Just(None)]
}

/// A member with its name, or nothing.
fn member(name: &'static str, value: impl Strategy<Value = Option<&'static str>>) -> impl Strategy<Value = Option<String>> {
    value.prop_map(move |value| value.map(|value| format!("\"{name}\":{value}")))
}

/// Members in any order, with one twice or an unknown one now and then.
fn object(members: Vec<BoxedStrategy<Option<String>>>) -> impl Strategy<Value = String> {
    let unknown = prop_oneof![12 => Just(None), 1 => select(&[
        "\"extra\":1", "\"result\":{}", "\"id\":2", "\"task\":{}", "\"name\":\"list_tables\"", "\"jsonrpc\":\"2.0\"", "\"\\u0069d\":3",
    ][..]).prop_map(|text| Some(text.to_owned()))];
    (members, unknown, any::<prop::sample::Index>(), prop::bool::weighted(0.03)).prop_map(|(members, unknown, which, twice)| {
        let mut members: Vec<String> = members.into_iter().flatten().chain(unknown).collect();
        if !members.is_empty() {
            let at = which.index(members.len());
            if twice {
                members.push(members[at].clone());
            }
            members.rotate_left(at);
        }
        format!("{{{}}}", members.join(","))
    })
}

fn meta(modern: bool) -> BoxedStrategy<Option<String>> {
    let versions: &[&str] = &["\"2025-11-25\"", "\"2099-01-01\"", "\"\"", "20260728", "null", "\"2026-07-28 \""];
    let capabilities: &[&str] = &["{\"sampling\":{}}", "[]", "7", "null", "{\"extensions\":{\"x/y\":{}}}", "\"{}\""];
    let optional = |name, values: &'static [&'static str]| {
        let value = prop_oneof![5 => Just(None), 1 => select(values).prop_map(Some)];
        member(name, value).boxed()
    };
    let mut members = vec![
        optional("traceparent", &["\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"", "\"00-nonsense\"", "5"]),
        optional("tracestate", &["\"a=b\"", "{}"]),
        optional("baggage", &["\"user=x\""]),
        optional("progressToken", &["\"p\"", "1", "null", "{}"]),
        optional("com.example/own", &["[1,2]", "\"\\ud83d\\ude00\""]),
        optional("io.modelcontextprotocol/clientInfo", &["{\"name\":\"t\",\"version\":\"1\"}", "{}", "\"t\"", "null"]),
    ];
    if modern {
        members.push(member("io.modelcontextprotocol/protocolVersion", mostly("\"2026-07-28\"", versions)).boxed());
        members.push(member("io.modelcontextprotocol/clientCapabilities", mostly("{}", capabilities)).boxed());
    }
    let text = object(members).prop_map(|meta| Some(format!("\"_meta\":{meta}")));
    let odd = select(&["\"_meta\":null", "\"_meta\":[]", "\"_meta\":{}"][..]).prop_map(|text| Some(text.to_owned()));
    let absent = if modern { 1 } else { 6 };
    prop_oneof![16 => text, 1 => odd, absent => Just(None)].boxed()
}

fn params(modern: bool) -> BoxedStrategy<String> {
    let names: &[&str] = &["\"list_tables\"", "\"no_such_tool\"", "\"read\\u005fquery\"", "\"READ_QUERY\"", "\"\"", "7", "null"];
    let arguments: &[&str] = &[
        "{\"query\":\"SELECT nme FROM item\"}",
        "{\"query\":\"SELECT ?1, ?2\",\"params\":[1e999,2]}",
        "{\"query\":\"SELECT ?\",\"params\":[123456789012345678901234567890]}",
        "{\"query\":\"SELECT ?\",\"params\":[\"\\u0000\\uD83D\\uDE00\"]}",
        "{\"query\":\"SELECT ?\",\"params\":[\"\\uD83D\"]}",
        "{\"query\":\"SELECT -0.0, 1e2, ?\",\"params\":[-0.0]}",
        "{\"query\":\"SELECT :a\",\"params\":{\"a\":1,\"a\":2}}",
        "{\"query\":\"SELECT 1\",\"query\":\"SELECT 2\"}",
        "{\"query\":\"SELECT * FROM item\",\"max_rows\":1}",
        "{\"query\":\"UPDATE item SET name = 'b' WHERE id = 2 RETURNING *\"}",
        "{\"table_name\":\"item\"}",
        "{}",
        "[]",
        "null",
        "\"{}\"",
        "{\"query\":[[[[[[[[[[]]]]]]]]]]}",
    ];
    object(vec![
        member("name", mostly("\"read_query\"", names)).boxed(),
        member("arguments", mostly("{\"query\":\"SELECT * FROM item\"}", arguments)).boxed(),
        meta(modern),
    ])
    .boxed()
}

fn body(modern: bool) -> impl Strategy<Value = Vec<u8>> {
    let ids: &[&str] = &["-7", "\"a\\\"b\"", "1.5", "null", "18446744073709551615", "1e2", "[1]", "true", "\"\\u0000\""];
    let members = vec![
        member("jsonrpc", mostly("\"2.0\"", &["\"1.0\"", "2.0", "\"2.0 \"", "\"\\u0032.0\""])).boxed(),
        member("id", mostly("1", ids)).boxed(),
        member("method", mostly("\"tools/call\"", &["\"tools/list\"", "\"ping\"", "\"tools/Call\"", "\"tools\\/call\"", "9"]))
            .boxed(),
        params(modern).prop_map(|params| Some(format!("\"params\":{params}"))).boxed(),
    ];
    let whole =
        (object(members), select(&["", " ", "\n\t", "\u{feff}", "//\n"][..]), select(&["", " ", "\n", "x", "\0", "{}"][..]));
    (whole, 0..60_u8, any::<prop::sample::Index>()).prop_map(|((text, before, after), damage, place)| {
        let odd = damage < 4;
        let text = if odd { format!("{before}{text}{after}") } else { text };
        let mut bytes = text.into_bytes();
        let at = place.index(bytes.len());
        match damage {
            10 => bytes.truncate(at),
            11 => bytes[at] = 0xff,
            12 => bytes.insert(at, b'\0'),
            13 => {
                bytes.insert(0, b'[');
                bytes.push(b']');
            }
            _ => {}
        }
        bytes
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    let header = |name: &'static str, value: BoxedStrategy<Option<&'static str>>| {
        (value, prop::bool::weighted(0.03)).prop_map(move |(value, twice)| {
            let count = if twice { 2 } else { 1 };
            value.map(|value| vec![(name, value); count]).unwrap_or_default()
        })
    };
    any::<bool>().prop_flat_map(move |modern| {
        let version = if modern {
            mostly("2026-07-28", &["2025-11-25", "2099-01-01", "2024-11-05", "", "draft"]).boxed()
        } else {
            prop_oneof![select(&["2025-11-25", "2025-06-18", "2025-03-26"][..]).prop_map(Some), Just(None)].boxed()
        };
        let (method, name) = if modern {
            (
                mostly("tools/call", &["tools/list", "Tools/Call", ""]).boxed(),
                mostly("read_query", &["list_tables", "=?base64?cmVhZF9xdWVyeQ==?=", ""]).boxed(),
            )
        } else {
            (
                prop_oneof![4 => Just(None), 1 => Just(Some("tools/list"))].boxed(),
                prop_oneof![4 => Just(None), 1 => Just(Some("x"))].boxed(),
            )
        };
        let kind = mostly(
            "application/json",
            &["application/json; charset=utf-8", "APPLICATION/JSON", "text/json", "application/json,"],
        );
        let headers = (
            header("mcp-protocol-version", version),
            header("mcp-method", method),
            header("mcp-name", name),
            header("content-type", kind.boxed()),
            header("mcp-session-id", prop_oneof![6 => Just(None), 1 => Just(Some("gone"))].boxed()),
        );
        (headers, body(modern)).prop_map(|((a, b, c, d, e), body)| Sent { headers: [a, b, c, d, e].concat(), body })
    })
}

async fn answer(server: &Server, sent: &Sent, accept: &str) -> (u16, Vec<Option<String>>, Vec<u8>) {
    let mut request = server.request(Method::POST, "/mcp").header(ACCEPT, accept);
    for (name, value) in &sent.headers {
        request = request.header(*name, *value);
    }
    let response = request.body(sent.body.clone()).send().await.unwrap();
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let headers = vec![header(CONTENT_TYPE), header(CONTENT_LENGTH)];
    (response.status().as_u16(), headers, response.bytes().await.unwrap().to_vec())
}

fn takes_the_short_way(sent: &Sent) -> bool {
    let mut headers = HeaderMap::new();
    headers.append(ACCEPT, HeaderValue::from_static(SHORT));
    for (name, value) in &sent.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    direct::read::<SqliteMcp>(&Method::POST, &headers, &sent.body, true).is_some()
}

#[test]
fn whatever_is_sent_is_answered_alike_on_both_ways() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::start(SCHEMA, &[]);
    let (short, all) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&sent(), |sent| {
            all.set(all.get() + 1);
            short.set(short.get() + usize::from(takes_the_short_way(&sent)));
            let ours = runtime.block_on(answer(&server, &sent, SHORT));
            let theirs = runtime.block_on(answer(&server, &sent, THE_SDKS));
            if ours != theirs {
                let shown = |(status, headers, body): &(u16, Vec<Option<String>>, Vec<u8>)| {
                    format!("{status} {headers:?} {}", String::from_utf8_lossy(body))
                };
                let body = String::from_utf8_lossy(&sent.body);
                return Err(TestCaseError::fail(format!("{:?} {body}\n{}\n{}", sent.headers, shown(&ours), shown(&theirs))));
            }
            Ok(())
        })
        .unwrap();
    // Else the two ways were hardly compared.
    println!("{} of {} requests took the short way", short.get(), all.get());
    assert!(short.get() * 10 > all.get(), "{short:?} of {all:?}");
}
