//! Odd schemas of the world, told to both APIs: none may be refused, and nothing that a tool needs may be lost.

use rstest::rstest;
use serde_json::json;

use super::*;

/// Room for everything.
pub fn room(dialect: Dialect) -> Room {
    Room { dialect, tools: None, bytes: usize::MAX, description: None, search: Search::Auto }
}

pub fn specs(server: &str, tools: &[Value]) -> Vec<Arc<ToolSpec>> {
    let spec =
        |tool: &Value| Arc::new(ToolSpec::new(server, &serde_json::from_value(tool.clone()).expect("a tool")).expect("fits"));
    tools.iter().map(spec).collect()
}

/// What is offered of these tools of the server `s`.
pub fn of_tools(tools: &[Value], dialect: Dialect) -> Offer {
    Offer::choose(specs("s", tools), room(dialect), &BTreeMap::new())
}

fn offered(schema: &Value, dialect: Dialect) -> (Value, Arc<Projected>) {
    let offer = of_tools(&[json!({"name": "t", "description": "d", "inputSchema": schema})], dialect);
    assert!(offer.left_out.is_empty(), "{:?}", offer.left_out);
    (serde_json::from_str(offer.tools[0].schema.get()).expect("JSON"), Arc::clone(&offer.tools[0]))
}

/// What the API would say.
fn refusal(tool: &Projected, dialect: Dialect) -> Result<(), String> {
    match dialect {
        Dialect::Messages => model_standin::rules::tools(&json!({"tools": [{"name": tool.name, "input_schema": tool.schema}]})),
        Dialect::Completions => {
            let function = json!({"name": tool.name, "parameters": tool.schema});
            model_standin::rules::functions(&json!({"tools": [{"type": "function", "function": function}]}))
        }
    }
}

/// A schema, and the names of arguments that the model must still be told of.
#[allow(clippy::too_many_lines, reason = "a table is as long as it is")]
fn odd_schemas() -> Vec<(Value, &'static [&'static str])> {
    let a = || json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let inside = |place: Value| json!({"type": "object", "properties": {"x": place}});
    vec![
        // What is no object, or says nothing.
        (json!({}), &[]),
        (json!({"type": "object"}), &[]),
        (json!({"type": "string"}), &[]),
        (json!({"type": "array", "items": {"type": "string"}}), &[]),
        (json!({"type": ["object", "null"], "properties": a()}), &["a", "b"]),
        (json!({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}), &["a"]),
        (json!({"type": null, "properties": a()}), &["a", "b"]),
        (json!({"properties": null}), &[]),
        (json!({"properties": 5}), &[]),
        (json!({"properties": []}), &[]),
        (json!({"type": "object", "properties": {"a": 5, "b": null, "c": "string", "d": [1]}}), &["a", "b", "c", "d"]),
        (json!({"type": "object", "properties": {"a": true, "b": {}}}), &["a", "b"]),
        (json!({"type": "object", "properties": a(), "required": "a"}), &["a"]),
        (json!({"type": "object", "properties": a(), "required": null}), &["a"]),
        (json!({"type": "object", "properties": a(), "required": ["a", "a", 5, "gone"]}), &["a"]),
        (json!({"type": "object", "properties": {"a": {"type": "string", "required": true}}}), &["a"]),
        (json!({"type": "object", "properties": {"a": {"type": "string", "required": false}}}), &["a"]),
        (json!({"type": "object", "additionalProperties": "no", "properties": a()}), &["a"]),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#", "id": "x", "type": "object", "properties": a()}), &["a"]),
        (json!({"type": "object", "properties": a(), "title": 5, "description": null, "examples": {"a": 1}}), &["a"]),
        // Alternatives at the root.
        (json!({"type": "object", "properties": a(), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}), &["a", "b"]),
        (
            json!({"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]}),
            &["a", "b"],
        ),
        (json!({"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}}]}), &["a", "b"]),
        (json!({"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "null"}]}), &["a"]),
        (json!({"anyOf": []}), &[]),
        (json!({"anyOf": {"properties": {"a": {}}}}), &["a"]),
        (json!({"allOf": [{"anyOf": [{"properties": {"a": {}}}, {"oneOf": [{"properties": {"b": {}}}]}]}]}), &["a", "b"]),
        (json!({"type": "object", "properties": a(), "not": {"required": ["a", "b"]}}), &["a", "b"]),
        (json!({"type": "object", "properties": a(), "enum": [{"a": "x"}]}), &["a"]),
        (
            json!({"type": "object", "if": {"properties": {"a": {"const": 1}}}, "then": {"properties": {"b": {}}},
                "else": {"properties": {"c": {}}}, "properties": {"a": {}}}),
            &["a", "b", "c"],
        ),
        (
            json!({"type": "object", "properties": a(), "dependencies": {"a": ["b"], "b": {"properties": {"c": {}}}}}),
            &["a", "b", "c"],
        ),
        (json!({"type": "object", "properties": a(), "extends": {"properties": {"c": {}}}}), &["a", "b", "c"]),
        (json!({"oneOf": [{"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": "b"}}}]}), &["kind"]),
        // Earlier drafts.
        (inside(json!({"type": "integer", "minimum": 0, "exclusiveMinimum": true})), &["x"]),
        (inside(json!({"type": "integer", "maximum": 9, "exclusiveMaximum": false})), &["x"]),
        (inside(json!({"type": "integer", "exclusiveMinimum": true})), &["x"]),
        (inside(json!({"type": "array", "items": [{"type": "string"}, {"type": "number"}]})), &["x"]),
        (inside(json!({"type": "array", "items": [{"type": "string"}], "additionalItems": false})), &["x"]),
        (inside(json!({"type": "array", "items": []})), &["x"]),
        (inside(json!({"type": "array"})), &["x"]),
        (inside(json!({"type": "array", "items": null})), &["x"]),
        (inside(json!({"type": "array", "items": true})), &["x"]),
        (inside(json!({"type": "array", "items": "string"})), &["x"]),
        (inside(json!({"type": ["array", "string"]})), &["x"]),
        (inside(json!({"type": "object"})), &["x"]),
        (inside(json!({"type": "object", "additionalProperties": {"type": "array"}})), &["x"]),
        (inside(json!({"type": "number", "divisibleBy": 0.5})), &["x"]),
        (inside(json!({"type": [{"type": "string"}, {"type": "null"}]})), &["x"]),
        (inside(json!({"disallow": "string", "type": "any"})), &["x"]),
        // Words that are not JSON Schema's.
        (inside(json!({"type": "int", "minimum": "5", "maxLength": 5.0, "minLength": -1})), &["x"]),
        (inside(json!({"type": "date"})), &["x"]),
        (inside(json!({"type": ""})), &["x"]),
        (inside(json!({"type": []})), &["x"]),
        (inside(json!({"type": ["string", "string"]})), &["x"]),
        (inside(json!({"type": ["string", "any"]})), &["x"]),
        (inside(json!({"type": "string", "nullable": true, "enum": ["a", "a"]})), &["x"]),
        (inside(json!({"enum": []})), &["x"]),
        (inside(json!({"enum": "a"})), &["x"]),
        (inside(json!({"type": "string", "pattern": "(unclosed"})), &["x"]),
        (inside(json!({"type": "string", "pattern": "^\\p{L}+$"})), &["x"]),
        (inside(json!({"type": "string", "pattern": 5, "format": 5, "default": null})), &["x"]),
        (inside(json!({"type": "number", "multipleOf": 0})), &["x"]),
        (inside(json!({"type": "object", "patternProperties": {"(": {}, "^a": {"type": "array"}}})), &["x"]),
        (inside(json!({"anyOf": "x", "oneOf": [5], "allOf": []})), &["x"]),
        (inside(json!({"type": "array", "uniqueItems": "yes", "minItems": null, "items": {"type": "file"}})), &["x"]),
        (inside(json!({"type": "string", "examples": "a", "deprecated": "no", "readOnly": 1})), &["x"]),
        // References.
        (json!({"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": a()}}}), &["a", "b"]),
        (
            json!({"type": "object", "properties": {"x": {"$ref": "#/definitions/T"}}, "definitions": {"T": {"type": "array"}}}),
            &["x"],
        ),
        (inside(json!({"$ref": "#/definitions/gone"})), &["x"]),
        (inside(json!({"$ref": "http://127.0.0.1:1/other.json"})), &["x"]),
        (inside(json!({"$ref": "#"})), &["x"]),
        (
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": {"type": "object",
                "properties": {"next": {"$ref": "#/$defs/Node"}, "list": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}}}),
            &["x"],
        ),
        (
            json!({"type": "object", "properties": {"x": {"$ref": "#T"}}, "$defs": {"any": {"$anchor": "T", "type": "string"}}}),
            &["x"],
        ),
        (
            json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/a~1b%20c"}}, "$defs": {"a/b c": {"type": "string"}}}),
            &["x"],
        ),
        (inside(json!({"$dynamicRef": "#node"})), &["x"]),
        (json!({"type": "object", "properties": {"$ref": {"type": "string"}, "type": {"type": "string"}}}), &["type"]),
        (
            json!({"$ref": "#/$defs/T", "properties": {"c": {}}, "required": ["c"],
                "$defs": {"T": {"type": "object", "properties": a(), "required": ["a"]}}}),
            &["a", "b", "c"],
        ),
        (
            json!({"allOf": [{"$ref": "#/$defs/T", "properties": {"c": {}}}], "$defs": {"T": {"properties": a()}}}),
            &["a", "b", "c"],
        ),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a", "properties": {"x": {}}}}}),
            &["x"],
        ),
        (
            json!({"type": "object", "properties": {"x": {"$ref": "#/properties/y"}, "y": {"type": ["string", "integer"]}}}),
            &["x", "y"],
        ),
        (inside(json!({"$defs": {"T": {"type": "array"}}, "$ref": "#/properties/x/$defs/T"})), &["x"]),
        (inside(json!({"$ref": 5, "type": "string"})), &["x"]),
        (inside(json!({"$ref": "#/definitions/T", "description": "kept"})), &["x"]),
        // Choices and constants of every kind.
        (inside(json!({"enum": ["a", 1, null, true, {"b": 1}, [2]]})), &["x"]),
        (inside(json!({"const": null})), &["x"]),
        (inside(json!({"const": {"a": [1]}, "default": 1e300})), &["x"]),
        (inside(json!({"oneOf": [{"const": 1, "title": "one"}, {"const": "two"}]})), &["x"]),
        (inside(json!({"type": "object", "required": true, "properties": {"a": {"type": "object", "required": ["b"]}}})), &["x"]),
        (inside(json!({"prefixItems": [{"type": "string"}], "items": false})), &["x"]),
        (inside(json!({"type": "array", "contains": true, "minContains": 1.5, "unevaluatedItems": {"type": "array"}})), &["x"]),
        (inside(json!({"propertyNames": {"pattern": "^\\p{L}"}, "unevaluatedProperties": {"type": "object"}})), &["x"]),
        (
            inside(json!({"type": "string", "format": "uri", "contentSchema": {"type": "array"}, "$comment": 5, "x-order": 1})),
            &["x"],
        ),
        (inside(json!({"if": true, "then": {"type": "array"}, "else": false})), &["x"]),
        (inside(json!({"minimum": "low", "maximum": 1e300, "multipleOf": "0.5", "maxItems": 1.5})), &["x"]),
        (json!({"type": "object", "properties": {"a": false, "b": {}}, "required": ["a"]}), &["b"]),
        (
            json!({"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": true, "type": "object",
                "properties": {"x": {"$recursiveRef": "#"}}}),
            &["x"],
        ),
        (
            json!({"discriminator": {"propertyName": "kind"}, "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
                "$defs": {"A": {"type": "object", "properties": {"kind": {"const": "a"}, "a": {}}, "required": ["kind"]},
                          "B": {"type": "object", "properties": {"kind": {"const": "b"}, "b": {}}, "required": ["kind"]}}}),
            &["kind", "a", "b"],
        ),
        // Names.
        (
            json!({"type": "object", "properties": {"filter[name]": {}, "$top": {}, "a b": {}, "größe": {}, "DateCreated>": {}, "": {}}}),
            &[],
        ),
        (
            json!({"type": "object", "properties": {"a.b": {}, "🦀": {}, "x".repeat(200): {}, "a\nb": {}, "__proto__": {}}}),
            &["a.b", "__proto__"],
        ),
        (
            json!({"type": "object", "properties": {"a": {}}, "dependentRequired": {"a b": ["c d"]}, "patternProperties": {"^x ": {}}}),
            &["a"],
        ),
        (
            inside(json!({"type": "object", "properties": {"filter[name]": {"type": "string"}}, "required": ["filter[name]"]})),
            &["x"],
        ),
        (inside(json!({"type": "array", "items": {"anyOf": [{"properties": {"a:b": {}}}]}})), &["x"]),
    ]
}

#[rstest]
#[case(Dialect::Messages)]
#[case(Dialect::Completions)]
fn no_odd_schema_is_refused_and_no_argument_is_lost(#[case] dialect: Dialect) {
    let schemas = odd_schemas();
    assert!(schemas.len() >= 60);
    for (schema, arguments) in schemas {
        let (mended, tool) = offered(&schema, dialect);
        assert_eq!(refusal(&tool, dialect), Ok(()), "{schema}\nbecame\n{mended}");
        for name in arguments {
            assert!(mended["properties"].get(name).is_some(), "{name} of {schema}\nis lost in\n{mended}");
        }
    }
}

#[test]
fn the_stand_in_refuses_what_the_apis_refuse() {
    let raw = |schema: &Value| {
        let schema = to_raw_value(schema).expect("JSON");
        Projected { name: "t".into(), description: String::new(), schema, renamed: Renamed::new() }
    };
    let root = json!({"type": "object", "properties": {}, "anyOf": [{}]});
    let tuple = json!({"type": "object", "properties": {"a": {"type": "array", "items": [{}]}}});
    let flag = json!({"type": "object", "properties": {"a": {"exclusiveMinimum": true}}});
    for schema in [&root, &tuple, &flag, &json!({"type": "string"})] {
        assert!(refusal(&raw(schema), Dialect::Messages).is_err(), "{schema}");
        assert!(refusal(&raw(schema), Dialect::Completions).is_err(), "{schema}");
    }
    assert!(refusal(&raw(&json!({"type": "object", "properties": {"$top": {}}})), Dialect::Messages).is_err());
    assert!(refusal(&raw(&json!({"type": "object"})), Dialect::Completions).is_err());
}

#[test]
fn a_good_schema_is_told_as_it_is() {
    let good = json!({"type": "object", "required": ["city"], "additionalProperties": false, "properties": {
        "city": {"type": "string", "description": "Where", "minLength": 1, "pattern": "^[A-Z]"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 3},
        "units": {"enum": ["metric", "imperial"]},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
        "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}}});
    assert_eq!(offered(&good, Dialect::Messages).0, good);
    assert_eq!(offered(&good, Dialect::Completions).0, good);
}

#[test]
fn what_is_translated_means_what_it_meant() {
    let place = |schema: Value| offered(&json!({"properties": {"x": schema}}), Dialect::Messages).0["properties"]["x"].clone();
    assert_eq!(place(json!({"minimum": 3, "exclusiveMinimum": true})), json!({"exclusiveMinimum": 3}));
    assert_eq!(
        place(json!({"items": [{"type": "string"}], "additionalItems": false})),
        json!({"prefixItems": [{"type": "string"}], "items": {}, "maxItems": 1})
    );
    assert_eq!(place(json!({"type": "string", "nullable": true})), json!({"type": ["string", "null"]}));
    let root = |schema: Value| offered(&schema, Dialect::Completions);
    let (mended, tool) =
        root(json!({"type": "object", "properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    assert!(mended["required"].is_null());
    assert_eq!(tool.description, "d\n\nGive exactly one of these sets of arguments: a | b.");
    let (mended, _) = root(json!({"anyOf": [{"properties": {"kind": {"const": "a"}}, "required": ["kind", "x"]},
                                            {"properties": {"kind": {"const": "b"}}, "required": ["kind"]}]}));
    assert_eq!((&mended["properties"]["kind"], &mended["required"]), (&json!({"enum": ["a", "b"]}), &json!(["kind"])));
    let (mended, _) = root(json!({"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}], "required": ["b"]}));
    assert_eq!(mended["required"], json!(["b", "a"]));
    let (mended, _) =
        root(json!({"$defs": {"T": {"type": "object", "properties": {"x": {"type": "integer"}}}}, "$ref": "#/$defs/T"}));
    assert_eq!(mended["properties"]["x"], json!({"type": "integer"}));
    let (mended, _) = root(json!({"$ref": "#/$defs/T", "properties": {"x": {"type": "string"}, "y": {}}, "required": ["y"],
        "$defs": {"T": {"type": "object", "properties": {"x": {}, "z": {}}, "required": ["z", "y"]}}}));
    assert_eq!((&mended["properties"]["x"], &mended["required"]), (&json!({"type": "string"}), &json!(["y", "z"])));
}

#[test]
fn a_schema_that_is_nested_deeper_than_parsers_read_is_offered_in_part_and_found_without_its_schema() {
    let deep = (0..200).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"in": inner}}));
    let tool = json!({"name": "t", "inputSchema": deep});
    let offer = of_tools(std::slice::from_ref(&tool), Dialect::Messages);
    assert_eq!((offer.tools.len(), offer.left_out.len()), (1, 0), "{:?}", offer.left_out);
    let specs = specs("s", &[tool]);
    let found = search::find(specs.iter(), &json!({"query": "t"}));
    assert_eq!(found["tools"][0]["input_schema"]["type"], "object", "{found}");
}

#[test]
fn a_schema_that_grows_without_end_is_bounded_and_one_that_is_too_large_loses_words_first() {
    let doubling = |level: usize| json!({"properties": {"l": {"$ref": format!("#/$defs/d{}", level + 1)}, "r": {"$ref": format!("#/$defs/d{}", level + 1)}}});
    let defs: serde_json::Map<String, Value> = (0..40).map(|level| (format!("d{level}"), doubling(level))).collect();
    let bomb = json!({"name": "t", "inputSchema": {"$ref": "#/$defs/d0", "$defs": defs}});
    let offer = of_tools(&[bomb], Dialect::Messages);
    assert_eq!(offer.tools.len() + offer.left_out.len(), 1);
    assert!(offer.tools.iter().all(|tool| tool.schema.get().len() <= MAX_SCHEMA));

    let wordy: serde_json::Map<String, Value> =
        (0..100).map(|index| (format!("p{index}"), json!({"type": "string", "description": "x".repeat(1_000)}))).collect();
    let (mended, _) = offered(&json!({"properties": wordy}), Dialect::Messages);
    assert_eq!(mended["properties"]["p7"], json!({"type": "string"}));

    let many: serde_json::Map<String, Value> =
        (0..5_000).map(|index| (format!("property_{index}"), json!({"type": "string"}))).collect();
    let offer = of_tools(&[json!({"name": "t", "inputSchema": {"properties": many}})], Dialect::Messages);
    assert!(offer.tools.is_empty() && offer.left_out[0].reason.contains("larger than 64 KiB"), "{:?}", offer.left_out);
}

#[test]
fn more_tools_than_fit_are_chosen_fairly_and_the_others_can_be_found() {
    let tools = |count: usize| (0..count).map(|n| json!({"name": format!("t{n}"), "inputSchema": {}})).collect::<Vec<_>>();
    let mut catalogue = specs("big", &tools(151));
    catalogue.extend(specs("small", &tools(3)));
    let count = |offer: &Offer, server: &str| offer.tools.iter().filter(|tool| tool.name.starts_with(server)).count();
    let room = |search: Search| Room { tools: Some(128), search, ..room(Dialect::Completions) };
    let offer = Offer::choose(catalogue.clone(), room(Search::Auto), &BTreeMap::new());
    assert_eq!((offer.tools.len(), count(&offer, "small__"), count(&offer, "big__")), (128, 3, 123));
    assert!(offer.get(search::FIND).is_some() && offer.get(search::CALL).is_some());
    assert_eq!(offer.left_out.len(), 28);
    let offer = Offer::choose(catalogue.clone(), room(Search::Never), &BTreeMap::new());
    assert_eq!((offer.tools.len(), count(&offer, "small__"), offer.left_out.len()), (128, 3, 26));
    let offer = Offer::choose(catalogue.clone(), room(Search::Always), &BTreeMap::new());
    assert_eq!(offer.tools.len(), search::TOOLS);
    let few = Offer::choose(specs("small", &tools(3)), room(Search::Auto), &BTreeMap::new());
    assert_eq!((few.tools.len(), few.left_out.len()), (3, 0));
}

#[test]
fn what_the_api_has_refused_is_left_out_with_its_reason() {
    let catalogue = specs("s", &[json!({"name": "good", "inputSchema": {}}), json!({"name": "bad", "inputSchema": {}})]);
    let refused = BTreeMap::from([(catalogue[1].hash.clone(), "no".to_owned())]);
    let offer = Offer::choose(catalogue, room(Dialect::Messages), &refused);
    assert_eq!((offer.tools[0].name.as_str(), offer.left_out[0].reason.as_str()), ("s__good", "no"));
}
