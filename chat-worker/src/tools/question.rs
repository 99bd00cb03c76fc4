//! What a server asks the client that called: forms and pages for its user (elicitation), answers of its model (sampling), and its folders
//! (roots). A question passes as it was written: only who does not know such a thing is not asked, and what nobody could make anything of is
//! refused by the name of its field. Pure.

use std::borrow::Cow;

use mcp_wire::{
    json,
    question::{ELICITATION, ROOTS, SAMPLING, takes_time},
};
use rmcp::{
    ErrorData,
    model::{ClientCapabilities, CustomRequest, ErrorCode},
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::pages;

/// The SDK reads these requests by its own types, which know less than what servers write, and refuses by itself what does not fit them. One
/// that it does not know it hands over as it is: a question travels in one of this name, as text.
const IN_A_REQUEST: &str = "mcpfleet.dev/asked";

/// One request of a server to a client.
#[derive(Debug, Clone, Deserialize)]
pub struct Question {
    pub method: String,
    /// As they were written, if there are any.
    #[serde(default)]
    params: Option<Box<RawValue>>,
}

/// What a field has to be.
type Kind = (&'static str, fn(&Value) -> bool);
const TEXT: Kind = ("no string", Value::is_string);
const OBJECT: Kind = ("no object", Value::is_object);
const ARRAY: Kind = ("no array", Value::is_array);

impl Question {
    /// The one that came in a request of the SDK's, if it is one.
    pub fn within(request: &CustomRequest) -> Option<Self> {
        let params = request.params.as_ref().filter(|_| request.method == IN_A_REQUEST)?;
        let written = RawValue::from_string(params["written"].as_str()?.to_owned()).ok()?;
        Some(Self { method: params["method"].as_str()?.to_owned(), params: Some(written) })
    }

    /// Its parameters. Where a server left them out, there is nothing in them, which says the same.
    pub fn params(&self) -> &str {
        self.params.as_deref().map(RawValue::get).filter(|written| *written != "null").unwrap_or("{}")
    }

    /// Whether a person may have to think about it.
    pub fn takes_time(&self) -> bool {
        takes_time(&self.method)
    }

    /// The id of the page that it asks to open: by it the server tells when that is done.
    pub fn page(&self) -> Option<String> {
        pages::id(&Value::Object(self.fields()?)).map(str::to_owned)
    }

    /// Why a client that can so much is not asked.
    pub fn refusal(&self, can: &ClientCapabilities) -> Option<ErrorData> {
        let invalid = |told: String| Some(ErrorData::invalid_params(told, None));
        let Some(fields) = self.fields() else {
            return invalid(format!("{} cannot be passed on: its params are no object", self.method));
        };
        let by_url = fields.get("mode").is_some_and(|mode| mode == "url");
        let (known, needs): (bool, &[(&str, Kind)]) = match self.method.as_str() {
            SAMPLING => (can.sampling.is_some(), &[("messages", ARRAY)]),
            ROOTS => (can.roots.is_some(), &[]),
            ELICITATION if by_url => {
                (can.elicitation.as_ref().is_some_and(|can| can.url.is_some()), &[("message", TEXT), ("url", TEXT)])
            }
            ELICITATION => {
                // Without either, a form is meant, as in the first revision that had it.
                let forms = can.elicitation.as_ref().is_some_and(|can| can.form.is_some() || can.url.is_none());
                (forms, &[("message", TEXT), ("requestedSchema", OBJECT)])
            }
            _ => (false, &[]),
        };
        if !known {
            return Some(nobody());
        }
        for (field, (otherwise, fits)) in needs {
            let fault = match fields.get(*field) {
                None => "missing",
                Some(value) if !fits(value) => otherwise,
                Some(_) => continue,
            };
            return invalid(format!("{} cannot be passed on: its \"{field}\" is {fault}", self.method));
        }
        let tools = ["tools", "toolChoice"].into_iter().find(|field| self.method == SAMPLING && fields.contains_key(*field));
        match tools {
            Some(field) if can.sampling.as_ref().is_none_or(|can| can.tools.is_none()) => {
                invalid(format!("the client does not take tools with {SAMPLING}: ask without \"{field}\""))
            }
            _ => None,
        }
    }

    fn fields(&self) -> Option<Map<String, Value>> {
        json::parse(self.params()).ok()
    }
}

/// The error of a question that has nobody to answer it.
pub fn nobody() -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "whoever made this call cannot be asked", None)
}

/// A message as the SDK hands over all that is in it.
pub fn in_a_request(message: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Asks<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
        #[serde(borrow)]
        method: Cow<'a, str>,
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Asks<'_>>(message) {
        Ok(Asks { id, method, params }) if matches!(&*method, ELICITATION | SAMPLING | ROOTS) => {
            let params = json!({"method": method, "written": params.map_or("null", RawValue::get)});
            Cow::Owned(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{IN_A_REQUEST}","params":{params}}}"#))
        }
        _ => Cow::Borrowed(message),
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ServerJsonRpcMessage, ServerNotification, ServerRequest};
    use rstest::rstest;

    use super::*;

    fn question(method: &str, params: &Value) -> Question {
        serde_json::from_str(&json!({"method": method, "params": params}).to_string()).expect("a question")
    }

    fn refusal(can: Value, method: &str, params: &Value) -> Option<(i32, String)> {
        let can = serde_json::from_value(can).expect("capabilities");
        question(method, params).refusal(&can).map(|error| (error.code.0, error.message.into_owned()))
    }

    #[test]
    fn a_question_travels_as_it_was_written() {
        let params = r#"{"z":1.50,"a":12345678901234567890123,"text":"\"ü\""}"#;
        let sent = format!(r#"{{"jsonrpc":"2.0","method":"elicitation/create","id":"7","params":{params}}}"#);
        let carried: Value = serde_json::from_str(&in_a_request(&sent)).expect("JSON");
        assert_eq!(carried["id"], "7");
        let request = CustomRequest::new(carried["method"].as_str().expect("a method"), Some(carried["params"].clone()));
        let question = Question::within(&request).expect("a question");
        assert_eq!((&*question.method, question.params()), (ELICITATION, params));
        for other in [r#"{"id":1,"method":"ping"}"#, r#"{"method":"elicitation/create"}"#, "[]", "x"] {
            assert!(matches!(in_a_request(other), Cow::Borrowed(_)), "{other}");
        }
        assert!(Question::within(&CustomRequest::new(ELICITATION, Some(json!({})))).is_none());
    }

    #[rstest]
    #[case::a_form_is_meant_without_either(json!({"elicitation": {}}), "form", true)]
    #[case::forms(json!({"elicitation": {"form": {}}}), "form", true)]
    #[case::pages_only(json!({"elicitation": {"url": {}}}), "form", false)]
    #[case::pages(json!({"elicitation": {"url": {}}}), "url", true)]
    #[case::forms_only(json!({"elicitation": {"form": {}}}), "url", false)]
    #[case::nothing(json!({}), "form", false)]
    fn who_cannot_answer_is_not_asked(#[case] can: Value, #[case] mode: &str, #[case] asked: bool) {
        let params = json!({"mode": mode, "message": "m", "url": "https://a.example", "requestedSchema": {}});
        assert_eq!(refusal(can, ELICITATION, &params).map(|(code, _)| code), (!asked).then_some(-32601));
    }

    #[test]
    fn what_nobody_could_make_anything_of_is_refused_by_its_field() {
        let can = || json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}});
        let told =
            |method: &str, params: &Value| refusal(can(), method, params).map(|(code, told)| (code, told.replace('"', "")));
        let invalid = |told: &str| Some((-32602, told.to_owned()));
        assert_eq!(told(ELICITATION, &json!({"message": "m", "requestedSchema": {"properties": {"a": {"enum": []}}}})), None);
        assert_eq!(
            told(ELICITATION, &json!({"message": "m"})),
            invalid("elicitation/create cannot be passed on: its requestedSchema is missing")
        );
        assert_eq!(
            told(ELICITATION, &json!({"message": 1, "requestedSchema": {}})),
            invalid("elicitation/create cannot be passed on: its message is no string")
        );
        assert_eq!(told(SAMPLING, &json!([])), invalid("sampling/createMessage cannot be passed on: its params are no object"));
        assert_eq!(
            told(SAMPLING, &json!({"messages": [], "toolChoice": {}})),
            invalid("the client does not take tools with sampling/createMessage: ask without toolChoice")
        );
        assert_eq!(told("roots/list", &json!({})).map(|(code, _)| code), Some(-32601));
    }

    #[test]
    fn what_a_server_says_without_params_is_read() {
        for method in [
            "ping",
            "notifications/tools/list_changed",
            "notifications/resources/list_changed",
            "notifications/prompts/list_changed",
        ] {
            for params in ["", r#","params":{}"#, r#","params":{"_meta":{"a":1}}"#, r#","params":null"#] {
                let id = if method == "ping" { r#","id":1"# } else { "" };
                let sent = format!(r#"{{"jsonrpc":"2.0"{id},"method":"{method}"{params}}}"#);
                let read: ServerJsonRpcMessage = json::parse(&in_a_request(&sent)).expect("a message");
                let is_known = match &read {
                    ServerJsonRpcMessage::Request(request) => matches!(request.request, ServerRequest::PingRequest(_)),
                    ServerJsonRpcMessage::Notification(told) => {
                        !matches!(told.notification, ServerNotification::CustomNotification(_))
                    }
                    _ => false,
                };
                assert!(is_known, "{sent}: {read:?}");
            }
        }
    }

    #[test]
    fn a_question_whose_params_may_be_left_out_needs_none() {
        let can: ClientCapabilities = serde_json::from_value(json!({"roots": {}, "sampling": {}})).expect("capabilities");
        for sent in [r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#, r#"{"id":1,"method":"roots/list","params":null}"#] {
            let carried: Value = serde_json::from_str(&in_a_request(sent)).expect("JSON");
            let request = CustomRequest::new(IN_A_REQUEST, Some(carried["params"].clone()));
            for question in [Question::within(&request), serde_json::from_str(sent).ok()] {
                let question = question.expect("a question");
                assert_eq!((question.params(), question.refusal(&can), question.takes_time()), ("{}", None, false), "{sent}");
            }
        }
        let question: Question = serde_json::from_str(r#"{"method":"sampling/createMessage"}"#).expect("a question");
        let told = question.refusal(&can).expect("nobody could say anything to that").message;
        assert_eq!(told.replace('"', ""), "sampling/createMessage cannot be passed on: its messages is missing");
    }
}
