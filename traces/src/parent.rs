//! Whose trace a request continues, and how whoever is called next is told.

use http::{HeaderMap, HeaderName};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// What a request says of the trace that it belongs to. What its message says comes before what the HTTP request says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parent<'a> {
    /// Of the HTTP request, where there is one.
    pub headers: Option<&'a HeaderMap>,
    /// `traceparent` and `tracestate` of the message's `_meta`.
    pub meta: Option<(&'a str, Option<&'a str>)>,
}

impl Parent<'_> {
    /// As the parent of a span; without a span where it says nothing that can be read.
    pub fn context(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }
}

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match (key, self.meta) {
            ("traceparent", Some((parent, _))) => Some(parent),
            // A state belongs to the parent that it came with.
            ("tracestate", Some((_, state))) => state,
            _ => self.headers?.get(key)?.to_str().ok(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.into_iter().flat_map(HeaderMap::keys).map(HeaderName::as_str).collect()
    }
}

/// What whoever is called in this context is told of its trace: `traceparent`, and `tracestate` where there is one.
pub fn members(context: &Context) -> Vec<(&'static str, String)> {
    let mut members = Members(Vec::new());
    TraceContextPropagator::new().inject_context(context, &mut members);
    members.0
}

struct Members(Vec<(&'static str, String)>);

impl Injector for Members {
    fn set(&mut self, key: &str, value: String) {
        let key = ["traceparent", "tracestate"].into_iter().find(|known| *known == key);
        self.0.extend(key.filter(|_| !value.is_empty()).map(|key| (key, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_parent_in_the_message_goes_before_that_of_the_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "of-header".parse().unwrap());
        headers.insert("tracestate", "state=header".parse().unwrap());
        let seen = |meta| {
            let parent = Parent { headers: Some(&headers), meta };
            (parent.get("traceparent").map(str::to_owned), parent.get("tracestate").map(str::to_owned))
        };
        assert_eq!(seen(None), (Some("of-header".into()), Some("state=header".into())));
        assert_eq!(seen(Some(("of-meta", None))), (Some("of-meta".into()), None));
    }

    #[test]
    fn a_trace_goes_on_as_it_came() {
        let parent = Parent { headers: None, meta: Some((PARENT, Some("vendor=1"))) };
        assert_eq!(members(&parent.context()), [("traceparent", PARENT.to_owned()), ("tracestate", "vendor=1".to_owned())]);
        assert_eq!(members(&Parent { headers: None, meta: Some(("junk", None)) }.context()), []);
    }
}
