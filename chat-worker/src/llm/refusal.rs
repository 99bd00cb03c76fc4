//! What an API's refusal says about the tools of a request, and what is remembered of it. Pure. A definition that was refused once
//! is not sent again; that the API takes no more than so many tools is not asked twice.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

use fancy_regex::Regex;

use super::{
    ModelError,
    offer::{Offer, Projected, Room},
};

/// Definitions that are remembered. A server that invents new ones all the time is asked about again.
const MAX_REMEMBERED: usize = 1_000;

/// The place of a tool in the request, as both APIs write it: `tools.3.…`, `tools[3].…`.
static PLACE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\btools(?:\.|\[)(\d{1,4})\b").ok());
/// How many there may be.
static MOST: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?:maximum length|maximum of|at most|max(?:imum)? is) (\d{1,4})\b").ok());

/// What was refused.
#[derive(Debug)]
pub enum Refusal {
    /// These tools.
    Tools(Vec<Arc<Projected>>),
    /// So many: it takes this number at most.
    TooMany(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tools(tools) => {
                let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
                write!(f, "{}", names.join(", "))
            }
            Self::TooMany(most) => write!(f, "more than {most} tools"),
        }
    }
}

/// What of the offer a sentence refuses; `None` when it is about something else.
pub fn of(sentence: &str, offer: &Offer) -> Option<Refusal> {
    let number = |regex: &Option<Regex>, text: &str| -> Option<usize> {
        regex.as_ref()?.captures(text).ok()??.get(1)?.as_str().parse().ok()
    };
    let ours = |tool: &&Arc<Projected>| offer.catalogue.iter().any(|spec| spec.name == tool.name);
    if let Some(tool) = number(&PLACE, sentence).and_then(|place| offer.tools.get(place)).filter(ours) {
        return Some(Refusal::Tools(vec![Arc::clone(tool)]));
    }
    let named: Vec<_> = offer.tools.iter().filter(ours).filter(|tool| names(sentence, &tool.name)).cloned().collect();
    if !named.is_empty() {
        return Some(Refusal::Tools(named));
    }
    let most = number(&MOST, sentence).filter(|most| sentence.contains("tools") && *most < offer.tools.len());
    most.map(Refusal::TooMany)
}

/// What is wrong with pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The model takes none.
    None,
    /// It does not take one of these.
    NotThese,
}

/// How APIs say that they cannot use a picture, not that they take none.
const NOT_THESE: [&str; 12] = [
    "base64",
    "could not process",
    "does not match",
    "exceed",
    "dimension",
    "too large",
    "too many",
    "decode",
    "corrupt",
    "invalid image",
    "unsupported image",
    "cannot identify",
];

/// What an error says of the pictures of a request; `None` where it is about something else.
pub fn of_images(error: &ModelError) -> Option<Sight> {
    let ModelError::Status { status: 400 | 404 | 413 | 415 | 422 | 500 | 501, message, .. } = error else { return None };
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    says(&["image", "picture", "multimodal", "mmproj", "vision"])
        .then(|| if says(&NOT_THESE) { Sight::NotThese } else { Sight::None })
}

/// A parameter that servers of Chat Completions do not all know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// The limit of an answer: `max_completion_tokens` came after `max_tokens`, and took its place at OpenAI.
    Limit,
    StreamOptions,
}

/// How servers say that they do not know a parameter, not that its value is wrong.
const DO_NOT_KNOW: [&str; 8] =
    ["unsupported", "not support", "unrecognized", "unrecognised", "unknown", "not permitted", "not allowed", "unexpected"];

/// Which parameter an error says is not known.
pub fn of_parameter(error: &ModelError) -> Option<Parameter> {
    let ModelError::Status { status: 400 | 422, message, .. } = error else { return None };
    let message = message.to_lowercase();
    let says = |words: &str| message.contains(words);
    if !DO_NOT_KNOW.iter().any(|words| says(words)) {
        return None;
    }
    if says("stream_options") {
        return Some(Parameter::StreamOptions);
    }
    (says("max_tokens") || says("max_completion_tokens")).then_some(Parameter::Limit)
}

/// Whether the sentence holds the name, and not only one that begins or ends like it.
fn names(sentence: &str, name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    sentence.match_indices(name).any(|(at, _)| {
        !sentence[..at].chars().next_back().is_some_and(part) && !sentence[at + name.len()..].chars().next().is_some_and(part)
    })
}

/// What an API has refused so far.
#[derive(Debug, Default)]
pub struct Refused {
    /// The hash of each definition, and the reason.
    pub tools: BTreeMap<String, String>,
    most: Option<usize>,
}

impl Refused {
    pub fn note(&mut self, refusal: &Refusal, sentence: &str, offer: &Offer) {
        match refusal {
            Refusal::Tools(tools) => {
                if self.tools.len() + tools.len() > MAX_REMEMBERED {
                    self.tools.clear();
                }
                for spec in tools.iter().filter_map(|tool| offer.catalogue.iter().find(|spec| spec.name == tool.name)) {
                    self.tools.insert(spec.hash.clone(), format!("the model API refused it: {sentence}"));
                }
            }
            Refusal::TooMany(most) => self.most = Some(*most),
        }
    }

    /// The room that there is, as far as it is known by now.
    pub fn room(&self, room: Room) -> Room {
        let tools = [room.tools, self.most].into_iter().flatten().min();
        Room { tools, ..room }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::llm::offer::{Dialect, tests::of_tools};

    #[rstest]
    #[case::anthropic(
        "tools.1.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12",
        Some("s__b")
    )]
    #[case::openai_place("Invalid 'tools[0].function.description': string too long.", Some("s__a"))]
    #[case::openai_name("Invalid schema for function 's__b': array schema missing items.", Some("s__b"))]
    #[case::name_inside_another("Invalid schema for function 's__bb'", None)]
    #[case::something_else("max_tokens: must be at least 1", None)]
    #[case::beyond("tools.17.name: too odd", None)]
    fn the_tool_that_is_named_is_known(#[case] sentence: &str, #[case] expected: Option<&str>) {
        let offer =
            of_tools(&[json!({"name": "a", "inputSchema": {}}), json!({"name": "b", "inputSchema": {}})], Dialect::Messages);
        let named = match of(sentence, &offer) {
            Some(Refusal::Tools(tools)) => tools.first().map(|tool| tool.name.clone()),
            _ => None,
        };
        assert_eq!(named.as_deref(), expected);
    }

    #[rstest]
    #[case("messages.1.content.0.tool_result.content.1.image.source.base64: invalid base64 data", Some(Sight::NotThese))]
    #[case("Could not process image", Some(Sight::NotThese))]
    #[case("messages.0: image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes", Some(Sight::NotThese))]
    #[case("You uploaded an unsupported image. Please make sure your image is valid.", Some(Sight::NotThese))]
    #[case("Invalid content type. image_url is only supported by certain models.", Some(Sight::None))]
    #[case("image input is not supported - hint: you may need to provide the mmproj", Some(Sight::None))]
    #[case("At most 0 image(s) may be provided in one prompt.", Some(Sight::None))]
    #[case("max_tokens: must be at least 1", None)]
    fn a_picture_that_is_no_good_is_told_from_a_model_that_sees_none(#[case] sentence: &str, #[case] expected: Option<Sight>) {
        let error = ModelError::Status { status: 400, kind: None, message: sentence.to_owned(), retry_after: None };
        assert_eq!(of_images(&error), expected);
    }

    #[test]
    fn how_many_there_may_be_is_learned() {
        let tools: Vec<_> = (0..5).map(|n| json!({"name": format!("t{n}"), "inputSchema": {}})).collect();
        let offer = of_tools(&tools, Dialect::Completions);
        let sentence =
            "Invalid 'tools': array too long. Expected an array with maximum length 3, but got an array with length 5 instead.";
        assert!(matches!(of(sentence, &offer), Some(Refusal::TooMany(3))));
    }

    #[test]
    fn a_parameter_that_is_not_known_is_told_from_one_that_is_wrong() {
        let of = |message: &str| {
            of_parameter(&ModelError::Status { status: 400, kind: None, message: message.into(), retry_after: None })
        };
        for (message, parameter) in [
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                Some(Parameter::Limit),
            ),
            ("Unknown field max_completion_tokens", Some(Parameter::Limit)),
            ("Unrecognized request argument supplied: stream_options", Some(Parameter::StreamOptions)),
            ("stream_options: Extra inputs are not permitted", Some(Parameter::StreamOptions)),
            ("max_tokens is too large: 99999. This model supports at most 4096 completion tokens", None),
            ("max_tokens: must be greater than 0", None),
            ("Unsupported value: 'messages[0].role'", None),
        ] {
            assert_eq!(of(message), parameter, "{message}");
        }
    }
}
