//! The CustomResourceDefinitions, made from the types: what schemars says and Kubernetes does not know is taken out, and what Kubernetes
//! knows of its own types and schemars does not say is put in.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::forms;

/// The core API's own types, which Kubernetes documents. Their field docs would make up nine tenths of the definitions, and a
/// definition above 256 KiB cannot be applied by `kubectl apply` without `--server-side`.
pub(super) const CORE_TYPES: [&str; 17] = [
    "affinity",
    "dns",
    "dnsConfig",
    "egressPorts",
    "egressTo",
    "env",
    "envFrom",
    "hostAliases",
    "imagePullSecrets",
    "ingressFrom",
    "initContainers",
    "seLinuxOptions",
    "sidecars",
    "tolerations",
    "topologySpreadConstraints",
    "volumeMounts",
    "volumes",
];

/// Lists whose items have a key, as Kubernetes has them: two items of one key are refused. (list, keys, most items)
///
/// The bounds are for our rules: the API server refuses one that compares strings of a list without an end.
const KEYED_LISTS: [(&str, &[&str], u32); 10] = [
    ("env", &["name"], 512),
    ("hostAliases", &["ip"], 64),
    ("imagePullSecrets", &["name"], 32),
    ("initContainers", &["name"], 16),
    ("ports", &["containerPort", "protocol"], 64),
    ("sidecars", &["name"], 16),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], 16),
    ("volumeDevices", &["devicePath"], 64),
    ("volumeMounts", &["mountPath"], 64),
    ("volumes", &["name"], 64),
];

/// What points at an object by name: what no object can be called points nowhere, and the kubelet waits for it for ever.
const REFERENCES: [&str; 6] = ["configMap", "configMapKeyRef", "configMapRef", "secret", "secretKeyRef", "secretRef"];

/// Quantities of the core API's types, and maps of them.
const QUANTITIES: [&str; 4] = ["divisor", "limits", "requests", "sizeLimit"];

/// Fields of the core API's types that take one of some words: a message of the API server's names them all.
const WORDS: [(&str, &[&str]); 8] = [
    ("imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("mountPropagation", &["None", "HostToContainer", "Bidirectional"]),
    ("nodeAffinityPolicy", &["Honor", "Ignore"]),
    ("nodeTaintsPolicy", &["Honor", "Ignore"]),
    ("protocol", &["TCP", "UDP", "SCTP"]),
    ("scheme", &["HTTP", "HTTPS"]),
    ("terminationMessagePolicy", &["File", "FallbackToLogsOnError"]),
    ("whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
];

/// The definition as Kubernetes wants it.
pub(super) fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a definition is JSON");
    visit(&mut value, &mut |schema| {
        drop_unknown_format(schema);
        bound_words(schema);
        bound_values(schema);
        bound_number(schema);
        for (name, property) in properties(schema) {
            if CORE_TYPES.contains(&name.as_str()) {
                // The doc of the field itself is ours, and stays.
                children(property).for_each(|child| visit(child, &mut drop_doc));
            }
            key_list(name, property);
            bound_items(name, property);
            bound_sources(name, property);
            bound_resources(name, property);
            bound_block(name, property);
            bound_reference(name, property);
            bound_quantity(name, property);
        }
    });
    visit(&mut value, &mut forms::say);
    for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
        // What nobody has looked at yet is not done: without it kstatus reads it as Current.
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    }
    serde_json::from_value(value).expect("a definition that was tidied is a definition")
}

/// Formats of unsigned integers.
fn drop_unknown_format(schema: &mut Value) {
    if let Value::Object(map) = schema
        && map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"))
    {
        map.remove("format");
    }
}

fn drop_doc(schema: &mut Value) {
    if let Value::Object(map) = schema
        && map.get("description").is_some_and(Value::is_string)
    {
        map.remove("description");
    }
}

fn key_list(name: &str, list: &mut Value) {
    let Some((_, keys, most)) = KEYED_LISTS.iter().find(|(list, _, _)| *list == name) else { return };
    let Some(items) = list.get_mut("items").filter(|items| keys.iter().all(|key| !items["properties"][*key].is_null())) else {
        return;
    };
    if let Some(protocol) = items.pointer_mut("/properties/protocol") {
        protocol["default"] = json!("TCP");
    }
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(keys);
    list["maxItems"] = json!(most);
}

/// What Kubernetes refuses in the pods, refused before there are any; and the lengths that our rules need.
fn bound_items(name: &str, list: &mut Value) {
    let Some(items) = list.get_mut("items").filter(|items| items["type"] == "object") else { return };
    if name == "egressPorts" {
        items["required"] = json!(["port"]);
    }
    let bounds: &[(&str, Value)] = &match name {
        "env" => [("name", json!({"minLength": 1, "maxLength": 1024, "pattern": forms::VARIABLE}))].to_vec(),
        "imagePullSecrets" => [("name", json!({"minLength": 1, "maxLength": 253, "pattern": forms::SUBDOMAIN}))].to_vec(),
        "initContainers" | "sidecars" | "volumes" => [("name", json!({"maxLength": 63, "pattern": forms::LABEL}))].to_vec(),
        "volumeMounts" => [
            ("name", json!({"maxLength": 63})),
            ("mountPath", json!({"minLength": 1, "maxLength": 1024, "pattern": forms::MOUNT_PATH})),
        ]
        .to_vec(),
        _ => return,
    };
    if name == "volumeMounts" {
        let rule = "!has(self.subPath) || !has(self.subPathExpr) || self.subPath == '' || self.subPathExpr == ''";
        let message = "each of volumeMounts takes subPath or subPathExpr, not both";
        items["x-kubernetes-validations"] = json!([{"rule": rule, "message": message}]);
    }
    if name == "volumes" {
        // Its name, and one source.
        items["maxProperties"] = json!(2);
    }
    for (field, more) in bounds {
        if let (Some(Value::Object(field)), Value::Object(more)) = (items.pointer_mut(&format!("/properties/{field}")), more) {
            field.extend(more.clone());
        }
    }
    if matches!(name, "initContainers" | "sidecars") {
        items["required"] = json!(["image", "name"]);
        items["properties"]["image"]["minLength"] = json!(1);
        // Kubernetes drops any other one without a word.
        items["properties"]["restartPolicy"]["enum"] = json!(["Always"]);
    }
}

/// A variable has one value, from one place.
fn bound_sources(name: &str, list: &mut Value) {
    if name == "envFrom" && list["items"]["type"] == "object" {
        list["maxItems"] = json!(64);
        one_of(&mut list["items"], "each of envFrom", &["prefix"]);
    }
    if name == "env" && list["items"]["type"] == "object" {
        let rule = "!has(self.valueFrom) || !has(self.value) || self.value == ''";
        let message = "each of env takes value or valueFrom, not both";
        list["items"]["x-kubernetes-validations"] = json!([{"rule": rule, "message": message}]);
        one_of(&mut list["items"]["properties"]["valueFrom"], "valueFrom", &[]);
    }
}

/// Exactly one of its fields is given, beside some that are always there.
fn one_of(schema: &mut Value, who: &str, besides: &[&str]) {
    let fields: Vec<String> =
        properties(schema).map(|(name, _)| name.clone()).filter(|name| !besides.contains(&&**name)).collect();
    // A sum costs the API server less than a list: what rules may cost is bounded.
    let given: Vec<String> = fields.iter().map(|name| format!("(has(self.{name}) ? 1 : 0)")).collect();
    let (rule, message) = (format!("{} == 1", given.join(" + ")), format!("{who} takes exactly one of {}", fields.join(", ")));
    schema["x-kubernetes-validations"] = json!([{"rule": rule, "message": message}]);
}

/// Fields that take one of some words.
fn bound_words(schema: &mut Value) {
    let has = |schema: &Value, name: &str| !schema["properties"][name].is_null();
    let (of_nodes, tolerates) = (has(schema, "matchFields"), has(schema, "tolerationSeconds"));
    for (name, property) in properties(schema) {
        if name == "matchExpressions"
            && let Some(operator) = property.pointer_mut("/items/properties/operator")
        {
            let words = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
            operator["enum"] = json!(if of_nodes { &words[..] } else { &words[..4] });
        }
        // A toleration may leave either out by an empty text.
        let words = match name.as_str() {
            "effect" if tolerates => &["", "NoSchedule", "PreferNoSchedule", "NoExecute"][..],
            "operator" if tolerates => &["", "Exists", "Equal"],
            name => WORDS.iter().find(|(field, _)| *field == name).map(|(_, words)| *words).unwrap_or_default(),
        };
        if !words.is_empty() && property["type"] == "string" && property.get("enum").is_none() {
            property["enum"] = json!(words);
        }
    }
}

/// Numbers and texts of the core API's types that have bounds, where this is one of them.
fn bound_values(schema: &mut Value) {
    let of_file = !schema["properties"]["key"].is_null();
    for (name, property) in properties(schema) {
        let bounds = match (name.as_str(), property["type"].as_str()) {
            ("containerPort", Some("integer")) => json!({"minimum": 1, "maximum": 65535}),
            // 0777, and no more.
            ("defaultMode" | "mode", Some("integer")) => json!({"minimum": 0, "maximum": 511}),
            ("expirationSeconds", Some("integer")) => json!({"minimum": 600}),
            ("maxSkew" | "minDomains", Some("integer")) => json!({"minimum": 1}),
            ("weight", Some("integer")) => json!({"minimum": 1, "maximum": 100}),
            ("topologyKey", Some("string")) => json!({"minLength": 1}),
            ("subPath" | "subPathExpr", Some("string")) => json!({"maxLength": 1024, "pattern": forms::INSIDE}),
            ("path", Some("string")) if of_file => json!({"pattern": forms::INSIDE}),
            _ => continue,
        };
        let (Value::Object(property), Value::Object(bounds)) = (property, bounds) else { continue };
        property.extend(bounds);
    }
}

/// Numbers that our types can hold: a larger one would hide its whole object from us, and all the others with it.
fn bound_number(schema: &mut Value) {
    // Quantities have a pattern, or a rule, and are texts to us.
    let is_looked_at = ["pattern", "x-kubernetes-validations"].iter().any(|by| schema.get(by).is_some());
    let is_port = schema["x-kubernetes-int-or-string"] == true && !is_looked_at;
    if let Value::Object(map) = schema
        && (is_port || map.get("format").is_some_and(|format| format == "int32"))
    {
        map.entry("minimum").or_insert_with(|| json!(i32::MIN));
        map.entry("maximum").or_insert_with(|| json!(i32::MAX));
    }
}

/// What is asked for is no more than what may be had.
fn bound_resources(name: &str, resources: &mut Value) {
    // Those of the server's own container are of a type of ours, with names of their own.
    if name != "resources" || resources.pointer("/properties/requests/additionalProperties").is_none() {
        return;
    }
    for map in ["requests", "limits"] {
        let map = &mut resources["properties"][map];
        map["maxProperties"] = json!(16);
    }
    let rule = "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)";
    let message = "resources.requests must not be more than resources.limits: raise the limit, or lower the request";
    resources["x-kubernetes-validations"] = json!([{"rule": rule, "message": message}]);
}

/// The networks of a NetworkPolicyPeer.
fn bound_block(name: &str, block: &mut Value) {
    if name == "ipBlock"
        && let Some(Value::Object(cidr)) = block.pointer_mut("/properties/cidr")
    {
        cidr.insert("pattern".into(), json!(forms::CIDR));
        cidr.insert("maxLength".into(), json!(64));
    }
}

/// What names an object names one that there can be. By a pattern: these stand in lists of lists, where a rule would cost too much.
fn bound_reference(name: &str, field: &mut Value) {
    let text = match name {
        "claimName" | "secretName" => Some(field),
        _ if REFERENCES.contains(&name) => field.pointer_mut("/properties/name"),
        _ => None,
    };
    let Some(text) = text else { return };
    if text["type"] == "string" && text.get("minLength").is_none() {
        text["minLength"] = json!(1);
        text["pattern"] = json!(forms::SUBDOMAIN);
    }
}

/// What is to be a quantity is one.
fn bound_quantity(name: &str, field: &mut Value) {
    if !QUANTITIES.contains(&name) {
        return;
    }
    let of_map = field.get("additionalProperties").is_some();
    let quantity = if of_map { &mut field["additionalProperties"] } else { field };
    if quantity["x-kubernetes-int-or-string"] == true {
        quantity["pattern"] = json!(forms::QUANTITY);
        // A divisor stands in lists without an end, where no rule can say what is wrong with it.
        if name != "divisor" {
            quantity["maxLength"] = json!(32);
        }
    }
}

/// Shows every value of the document to the function, from the outside in.
fn visit(value: &mut Value, see: &mut impl FnMut(&mut Value)) {
    see(value);
    for child in children(value) {
        visit(child, see);
    }
}

fn properties(schema: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(|properties| properties.iter_mut())
}

fn children(value: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values_mut()),
        Value::Array(items) => Box::new(items.iter_mut()),
        _ => Box::new(std::iter::empty()),
    }
}
