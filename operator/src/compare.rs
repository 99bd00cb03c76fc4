//! What server-side apply would find out, without the request: whether a live object holds everything that we want of it. Pure.
//!
//! Together with the hash of the whole desired object (which notices what we no longer say). Three things make it more than a
//! comparison: others may own what stands beside ours, unless it is in a list or map that is replaced as a whole; Kubernetes leaves
//! out empty values; and it rewrites quantities.

use serde_json::{Map, Value, json};

/// Lists that are merged by key, and their keys. Every other list is replaced as a whole, and so are the `ports` of an EndpointSlice, which
/// stand in no other field.
/// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>
const KEYED: [(&str, &[&str]); 10] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("ownerReferences", &["uid"]),
    ("ports", &["port", "containerPort", "protocol"]),
];

/// Maps that are replaced as a whole.
const ATOMIC: [&str; 9] = [
    "selector",
    "labelSelector",
    "podSelector",
    "nodeSelector",
    "secretKeyRef",
    "configMapKeyRef",
    "fieldRef",
    "resourceFieldRef",
    "affinity",
];

/// Fields of which none is not the same as false or 0: Kubernetes, or the image, would say something else.
const PRESENT: [&str; 8] = [
    "automountServiceAccountToken",
    "allowPrivilegeEscalation",
    "enableServiceLinks",
    "replicas",
    "terminationGracePeriodSeconds",
    "runAsUser",
    "runAsGroup",
    "fsGroup",
];

/// What Kubernetes adds by itself within lists and maps that are replaced as a whole.
const DEFAULTS: [Filled; 3] =
    [("apiVersion", || "v1".into()), ("expirationSeconds", || 3_600.into()), ("divisor", || "0".into())];

/// A field, and what Kubernetes writes into it.
type Filled = (&'static str, fn() -> Value);

/// Whose values are quantities.
const QUANTITIES: [&str; 3] = ["requests", "limits", "sizeLimit"];

/// Something that we want and the live object does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as people write it: `spec.template.spec.containers[mcp].image`.
    pub path: String,
    /// The same as managed fields name it, key by key. A list or map that is replaced as a whole is one key.
    pub keys: Vec<String>,
    /// It is not there at all.
    pub missing: bool,
}

/// Everything that we want and the live object does not hold, in the order of its fields. Empty: it holds all of it.
pub fn differences(live: &Value, desired: &Value) -> Vec<Difference> {
    let (root, mut found) = (Place { before: None, step: Step::Root, whole: false, quantity: false }, Vec::new());
    let (Value::Object(live), Value::Object(desired)) = (live, desired) else { return vec![root.differs(live.is_null())] };
    for (key, desired) in desired.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")) {
        field(&root, key, live.get(key), desired, &mut found);
    }
    found
}

/// Whether these managed fields name the field, or a whole that it is part of.
pub fn names(fields: &Value, keys: &[String]) -> bool {
    let mut at = fields;
    for (depth, key) in keys.iter().enumerate() {
        match at.get(key) {
            Some(inner) => at = inner,
            None => return depth > 0 && at.as_object().is_some_and(Map::is_empty),
        }
    }
    true
}

/// The strategic merge patch that puts the list of `desired` which these keys (of an element of it) lead to in the place of what is there.
/// None: they lead to no list.
/// <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>
pub fn replacing(desired: &Value, keys: &[String]) -> Option<Value> {
    let (key, rest) = keys.split_first()?;
    if let Some(name) = key.strip_prefix("f:") {
        return Some(json!({ name: replacing(desired.get(name)?, rest)? }));
    }
    let list = desired.as_array()?;
    if rest.is_empty() {
        let whole = std::iter::once(json!({"$patch": "replace"})).chain(list.iter().cloned());
        return Some(whole.collect());
    }
    let Value::Object(mut element) = serde_json::from_str(key.strip_prefix("k:")?).ok()? else { return None };
    let desired = list.iter().find(|desired| element.iter().all(|(key, value)| desired.get(key) == Some(value)))?;
    let Value::Object(inner) = replacing(desired, rest)? else { return None };
    element.extend(inner);
    Some(json!([element]))
}

/// Where we are. Nearly every object holds everything: it is put in words only where one does not.
struct Place<'a> {
    before: Option<&'a Place<'a>>,
    step: Step<'a>,
    /// Within what is replaced as a whole, nothing may stand beside ours.
    whole: bool,
    quantity: bool,
}

/// How we came there.
enum Step<'a> {
    Root,
    Field(&'a str),
    /// An element of a list that is merged by these keys.
    Keyed(&'static [&'static str], &'a Value),
    /// One of a list that is replaced as a whole.
    Index(usize),
}

impl<'a> Place<'a> {
    fn field(&'a self, key: &'a str) -> Self {
        Self {
            before: Some(self),
            step: Step::Field(key),
            whole: self.whole || ATOMIC.contains(&key),
            quantity: self.quantity || QUANTITIES.contains(&key),
        }
    }

    fn element(&'a self, step: Step<'a>) -> Self {
        let whole = self.whole || matches!(step, Step::Index(_));
        Self { before: Some(self), step, whole, quantity: self.quantity }
    }

    fn differs(&self, missing: bool) -> Difference {
        Difference { path: self.path(), keys: self.keys(), missing }
    }

    fn path(&self) -> String {
        let before = self.before.map(Self::path).unwrap_or_default();
        match self.step {
            Step::Root => before,
            Step::Field(key) if before.is_empty() => key.to_owned(),
            Step::Field(key) => format!("{before}.{key}"),
            Step::Keyed(keys, element) => {
                let name = keys.iter().find_map(|key| element.get(key)).map(ToString::to_string).unwrap_or_default();
                format!("{before}[{}]", name.trim_matches('"'))
            }
            Step::Index(index) => format!("{before}[{index}]"),
        }
    }

    /// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/#System> (`fieldsV1`)
    fn keys(&self) -> Vec<String> {
        let mut before = self.before.map(Self::keys).unwrap_or_default();
        match self.step {
            Step::Field(key) => before.push(format!("f:{key}")),
            Step::Keyed(keys, element) => {
                let key = keys.iter().filter_map(|key| Some(((*key).to_owned(), element.get(key)?.clone())));
                before.push(format!("k:{}", Value::Object(key.collect())));
            }
            Step::Root | Step::Index(_) => {}
        }
        before
    }
}

fn field(place: &Place<'_>, key: &str, live: Option<&Value>, desired: &Value, found: &mut Vec<Difference>) {
    let place = place.field(key);
    match (live, desired) {
        (None, desired) if PRESENT.contains(&key) || !is_empty(desired) => found.push(place.differs(true)),
        (None, _) => {}
        (Some(Value::Array(live)), Value::Array(desired)) => list(&place, key, live, desired, found),
        (Some(live), desired) => value(&place, live, desired, found),
    }
}

fn value(place: &Place<'_>, live: &Value, desired: &Value, found: &mut Vec<Difference>) {
    let holds = match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            for (key, desired) in desired {
                field(place, key, live.get(key), desired, found);
            }
            if place.whole {
                let mut beside = live.iter().filter(|(key, value)| !desired.contains_key(*key) && !is_default(key, value));
                found.extend(beside.next().map(|(key, _)| place.field(key).differs(false)));
            }
            return;
        }
        (Value::String(live), Value::String(desired)) => live == desired || place.quantity && same_quantity(live, desired),
        _ => live == desired,
    };
    if !holds {
        found.push(place.differs(false));
    }
}

fn list(place: &Place<'_>, key: &str, live: &[Value], desired: &[Value], found: &mut Vec<Difference>) {
    let of_slice = key == "ports" && place.before.is_some_and(|before| matches!(before.step, Step::Root));
    let keys = KEYED.iter().find(|(name, _)| *name == key && !place.whole && !of_slice).map(|(_, keys)| *keys);
    let Some(keys) = keys else {
        if live.len() != desired.len() {
            return found.push(place.differs(false));
        }
        for (index, (live, desired)) in live.iter().zip(desired).enumerate() {
            value(&place.element(Step::Index(index)), live, desired, found);
        }
        return;
    };
    for desired in desired {
        let place = place.element(Step::Keyed(keys, desired));
        match live.iter().find(|live| keys.iter().all(|key| live.get(key) == desired.get(key))) {
            Some(live) => value(&place, live, desired, found),
            None => found.push(place.differs(true)),
        }
    }
}

fn is_default(key: &str, value: &Value) -> bool {
    is_empty(value) || DEFAULTS.iter().any(|(name, default)| *name == key && *value == default())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(true) => false,
    }
}

/// Whether the quantity is at least as much as the other. None when one of them is no quantity.
pub fn at_least(quantity: &str, other: &str) -> Option<bool> {
    Some(milli(quantity)? >= milli(other)?)
}

fn same_quantity(left: &str, right: &str) -> bool {
    matches!((milli(left), milli(right)), (Some(left), Some(right)) if left == right)
}

/// A quantity in thousandths, rounded up as Kubernetes does. None when it is no quantity.
fn milli(text: &str) -> Option<i128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    // How many thousandths, and what they are divided by.
    let (scale, divisor): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| (-9..=18).contains(power))?;
            let ten = 10_i128.pow(power.unsigned_abs());
            if power < 0 { (1_000, ten) } else { (1_000 * ten, 1) }
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let base = 10_i128.pow(u32::try_from(fraction.len()).ok()?) * divisor;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some(digits.checked_mul(scale)?.checked_add(base - 1)? / base)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::equal(json!({"a": 1}), json!({"a": 1}), None)]
    #[case::defaults_stand_beside(json!({"a": 1, "b": 2}), json!({"a": 1}), None)]
    #[case::differs(json!({"a": 2}), json!({"a": 1}), Some("a"))]
    #[case::missing(json!({}), json!({"a": 1}), Some("a"))]
    #[case::missing_equals_empty(json!({}), json!({"a": "", "b": [], "c": {"d": 0}, "e": false}), None)]
    #[case::what_is_true_by_default_is_not_empty(
        json!({"spec": {}}), json!({"spec": {"automountServiceAccountToken": false}}), Some("spec.automountServiceAccountToken"))]
    #[case::root_is_not_nobody(json!({"securityContext": {}}), json!({"securityContext": {"runAsUser": 0}}), Some("securityContext.runAsUser"))]
    #[case::quantities_by_value(
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}}), json!({"limits": {"cpu": "0.5", "memory": "1024Mi"}}), None)]
    #[case::quantities_differ(json!({"limits": {"cpu": "500m"}}), json!({"limits": {"cpu": "0.6"}}), Some("limits.cpu"))]
    #[case::what_looks_like_a_quantity_and_is_none(
        json!({"env": [{"name": "A", "value": "1000m"}]}), json!({"env": [{"name": "A", "value": "1"}]}), Some("env[A].value"))]
    #[case::an_element_beside_others(
        json!({"containers": [{"name": "sidecar"}, {"name": "a", "x": 1, "y": 2}]}), json!({"containers": [{"name": "a", "x": 1}]}), None)]
    #[case::an_element_changed(
        json!({"containers": [{"name": "a", "x": 2}]}), json!({"containers": [{"name": "a", "x": 1}]}), Some("containers[a].x"))]
    #[case::an_element_gone(json!({"volumes": []}), json!({"volumes": [{"name": "a"}]}), Some("volumes[a]"))]
    #[case::ports_of_a_service_beside_others(
        json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}]}}), json!({"spec": {"ports": [{"port": 1, "name": "a"}]}}), None)]
    #[case::ports_of_a_slice_are_all_of_them(json!({"ports": [{"port": 1}, {"port": 2}]}), json!({"ports": [{"port": 1}]}), Some("ports"))]
    #[case::ports_of_a_slice_may_have_one_number(
        json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}), json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}), None)]
    #[case::scalars_in_order(json!({"args": ["a", "b"]}), json!({"args": ["b", "a"]}), Some("args[0]"))]
    #[case::scalars_all(json!({"args": ["a", "b"]}), json!({"args": ["a"]}), Some("args"))]
    #[case::nothing_stands_beside_a_selector(
        json!({"spec": {"selector": {"app": "a", "version": "v2"}}}), json!({"spec": {"selector": {"app": "a"}}}), Some("spec.selector.version"))]
    #[case::nothing_stands_beside_a_node_selector(
        json!({"nodeSelector": {"a": "b", "c": "d"}}), json!({"nodeSelector": {"a": "b"}}), Some("nodeSelector.c"))]
    #[case::nothing_stands_beside_tolerations(
        json!({"tolerations": [{"key": "a"}, {"key": "b"}]}), json!({"tolerations": [{"key": "a"}]}), Some("tolerations"))]
    #[case::nothing_is_added_to_a_toleration(
        json!({"tolerations": [{"key": "a", "operator": "Exists"}]}), json!({"tolerations": [{"key": "a"}]}), Some("tolerations[0].operator"))]
    #[case::nothing_stands_beside_env_from(
        json!({"envFrom": [{"prefix": "A"}, {"prefix": "B"}]}), json!({"envFrom": [{"prefix": "A"}]}), Some("envFrom"))]
    #[case::nothing_stands_beside_readiness_gates(
        json!({"readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]}), json!({"readinessGates": [{"conditionType": "a"}]}), Some("readinessGates"))]
    #[case::what_kubernetes_adds_to_a_whole(
        json!({"fieldRef": {"fieldPath": "a", "apiVersion": "v1"}}), json!({"fieldRef": {"fieldPath": "a"}}), None)]
    #[case::the_kind_is_known(json!({"a": 1}), json!({"kind": "K", "apiVersion": "v1", "a": 1}), None)]
    fn the_first_difference_is_named(#[case] live: Value, #[case] desired: Value, #[case] expected: Option<&str>) {
        let found = differences(&live, &desired);
        assert_eq!(found.first().map(|found| found.path.as_str()), expected);
    }

    #[test]
    fn a_list_that_lacks_an_element_can_be_replaced_whole() {
        let container = |port: u16| json!({"name": "a", "ports": [{"name": "http", "containerPort": port}]});
        let (live, ours) = (json!({"spec": {"containers": [container(1)]}}), json!({"spec": {"containers": [container(2)]}}));
        let found = differences(&live, &ours);
        assert_eq!(found[0].path, "spec.containers[a].ports[2]");
        let ports = json!([{"$patch": "replace"}, {"name": "http", "containerPort": 2}]);
        assert_eq!(replacing(&ours, &found[0].keys), Some(json!({"spec": {"containers": [{"name": "a", "ports": ports}]}})));
        assert_eq!(replacing(&ours, &["f:spec".to_owned()]), None, "no list");
    }

    #[test]
    fn every_difference_is_named_with_its_keys_in_managed_fields() {
        let live = json!({"spec": {"containers": [{"name": "a", "image": "theirs"}], "args": ["x"], "replicas": 2}});
        let image = json!({"name": "a", "image": "ours", "tty": true});
        let ours = json!({"spec": {"containers": [image, {"name": "b"}], "args": ["y"], "replicas": 2}});
        let found = differences(&live, &ours);
        let told: Vec<_> = found.iter().map(|found| (found.path.as_str(), found.missing)).collect();
        let containers = [("spec.containers[a].image", false), ("spec.containers[a].tty", true), ("spec.containers[b]", true)];
        assert_eq!(told, [[("spec.args[0]", false)].as_slice(), &containers].concat());
        assert_eq!(found[0].keys, ["f:spec", "f:args"]);
        assert_eq!(found[1].keys, ["f:spec", "f:containers", r#"k:{"name":"a"}"#, "f:image"]);
        let theirs = json!({"f:spec": {"f:args": {}, "f:containers": {r#"k:{"name":"a"}"#: {".": {}, "f:image": {}}}}});
        let named: Vec<_> = found.iter().map(|found| names(&theirs, &found.keys)).collect();
        assert_eq!(named, [true, true, false, false]);
        let whole = ["f:spec", "f:args", "f:more"].map(str::to_owned);
        assert!(names(&theirs, &whole) && !names(&json!({}), &whole), "it is part of a whole");
    }

    #[rstest]
    #[case("1", Some(1_000))]
    #[case("100m", Some(100))]
    #[case("0.1", Some(100))]
    #[case("1.5Gi", Some(1_610_612_736_000))]
    #[case("1e3", Some(1_000_000))]
    #[case("+1e+3", Some(1_000_000))]
    #[case("1000000000000000000", Some(1_000_000_000_000_000_000_000))]
    #[case("1E", Some(1_000_000_000_000_000_000_000))]
    #[case("9999999999999999999999999Ei", None)]
    #[case("banana", None)]
    #[case("", None)]
    #[case(".", None)]
    fn quantities_have_values(#[case] text: &str, #[case] expected: Option<i128>) {
        assert_eq!(milli(text), expected);
    }

    #[test]
    fn a_quantity_is_at_least_another() {
        assert_eq!(at_least("8Gi", "3Gi"), Some(true));
        assert_eq!(at_least("1Gi", "1024Mi"), Some(true));
        assert_eq!(at_least("1000Mi", "1Gi"), Some(false));
        assert_eq!(at_least("much", "1Gi"), None);
        assert_eq!(at_least(".5", "500000001n"), Some(false));
        assert_eq!(at_least("100m", "100000u"), Some(true));
        assert_eq!(at_least("5e-1", "500m"), Some(true));
        assert_eq!(at_least("5.", "5001m"), Some(false));
    }
}
