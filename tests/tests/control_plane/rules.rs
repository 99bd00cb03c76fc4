//! Every rule of the definitions refuses something, with its own sentence: none is dead, and none says another's.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, PostParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use mcpfleet_tests::cluster::{Space, with_space};
use operator::crd;
use serde::Deserialize;
use serde_json::{Value, json};

/// A document that is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default = "server")]
    kind: String,
    #[serde(default = "name")]
    name: String,
    /// The spec that is there already.
    before: Option<Value>,
    spec: Value,
    says: String,
}

fn server() -> String {
    "McpServer".into()
}

fn name() -> String {
    "s".into()
}

/// What a schema has whose words are in the refusals that it makes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Words {
    /// Of a CEL rule.
    Message(String),
    Pattern(String),
    Enum(BTreeSet<String>),
}

impl Words {
    fn are_in(&self, refusal: &str) -> bool {
        match self {
            Self::Message(words) => refusal.contains(words.as_str()),
            Self::Pattern(pattern) => refusal.contains(&format!("should match '{pattern}'")),
            Self::Enum(values) => refusal.split("supported values: ").skip(1).any(|list| {
                let said: BTreeSet<_> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
                said == *values
            }),
        }
    }

    /// Those of a schema and of all below it.
    fn of(schema: &Value, words: &mut BTreeSet<Self>) {
        match schema {
            Value::Object(fields) => {
                let texts = |field: &str| fields.get(field).and_then(Value::as_array).into_iter().flatten();
                words.extend(
                    texts("x-kubernetes-validations").filter_map(|rule| Some(Self::Message(rule["message"].as_str()?.into()))),
                );
                words.extend(fields.get("pattern").and_then(Value::as_str).map(|pattern| Self::Pattern(pattern.into())));
                let values: BTreeSet<_> = texts("enum").filter_map(|value| Some(value.as_str()?.to_owned())).collect();
                words.extend((!values.is_empty()).then_some(Self::Enum(values)));
                fields.values().for_each(|below| Self::of(below, words));
            }
            Value::Array(schemas) => schemas.iter().for_each(|below| Self::of(below, words)),
            _ => {}
        }
    }
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    let mut schema = json!(definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema);
    schema["properties"]["status"].take();
    schema
}

/// The sentence with which the API server refuses it; nothing is stored but what was there before.
async fn refusal(space: &Space, case: &Case) -> String {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mcpfleet.dev", "v1alpha1", &case.kind));
    let api = Api::<DynamicObject>::namespaced_with(space.client.clone(), &space.name, &resource);
    let object = |spec: &Value| DynamicObject::new(&case.name, &resource).data(json!({"spec": spec}));
    let answer = if let Some(before) = &case.before {
        let there = api.create(&PostParams::default(), &object(before)).await.unwrap();
        let mut after = object(&case.spec);
        after.metadata.resource_version = there.metadata.resource_version;
        let answer = api.replace(&case.name, &PostParams::default(), &after).await;
        api.delete(&case.name, &DeleteParams::default()).await.unwrap();
        answer
    } else {
        api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object(&case.spec)).await
    };
    match answer {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("{} was not refused: {other:?}", case.spec),
    }
}

#[tokio::test]
async fn every_rule_of_the_definitions_refuses_something_with_its_own_sentence() {
    with_space(|space| async move {
        let cases: Vec<Case> = serde_yaml::from_str(include_str!("../../manifests/refused.yaml"))?;
        let mut refusals = Vec::new();
        for case in &cases {
            let sentence = refusal(&space, case).await;
            assert!(sentence.contains(&case.says), "{}: {sentence}", case.spec);
            refusals.push(sentence);
        }
        let mut dead = Vec::new();
        for definition in crd::definitions() {
            let kind = &definition.spec.names.kind;
            let mut words = BTreeSet::new();
            Words::of(&schema(&definition), &mut words);
            assert!(words.len() > 30, "{kind}: {words:?}");
            dead.extend(words.into_iter().filter(|words| !refusals.iter().any(|refusal| words.are_in(refusal))));
        }
        assert!(dead.is_empty(), "no document of refused.yaml meets {dead:#?}");
        Ok(())
    })
    .await;
}
