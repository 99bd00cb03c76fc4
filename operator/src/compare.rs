//! What server-side apply would find out, without the request: whether a live object holds everything that we want of it. Pure.
//!
//! Together with the hash of the whole desired object (which notices what we no longer say). Three things make it more than a
//! comparison: others may own what stands beside ours, unless it is in a list or map that is replaced as a whole; Kubernetes leaves
//! out empty values; and it rewrites quantities.

use serde_json::Value;

/// Lists that are merged by key, and their keys. Every other list is replaced as a whole.
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

/// Where the live object first lacks something that we want, as people write it: `spec.template.spec.containers[mcp].image`. None:
/// everything holds.
pub fn difference(live: &Value, desired: &Value) -> Option<String> {
    let (Value::Object(live), Value::Object(desired)) = (live, desired) else { return Some(String::new()) };
    let parts = desired.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"));
    parts.into_iter().find_map(|(key, desired)| field(&Place::root(), key, live.get(key), desired))
}

/// Where we are.
#[derive(Clone)]
struct Place {
    path: String,
    /// Within what is replaced as a whole, nothing may stand beside ours.
    whole: bool,
    quantity: bool,
}

impl Place {
    const fn root() -> Self {
        Self { path: String::new(), whole: false, quantity: false }
    }

    fn field(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            path: format!("{}{dot}{key}", self.path),
            whole: self.whole || ATOMIC.contains(&key),
            quantity: self.quantity || QUANTITIES.contains(&key),
        }
    }

    fn element(&self, name: &str, whole: bool) -> Self {
        Self { path: format!("{}[{name}]", self.path), whole: self.whole || whole, ..*self }
    }
}

fn field(place: &Place, key: &str, live: Option<&Value>, desired: &Value) -> Option<String> {
    let place = place.field(key);
    match (live, desired) {
        (None, desired) => (PRESENT.contains(&key) || !is_empty(desired)).then_some(place.path),
        (Some(Value::Array(live)), Value::Array(desired)) => list(&place, key, live, desired),
        (Some(live), desired) => value(&place, live, desired),
    }
}

fn value(place: &Place, live: &Value, desired: &Value) -> Option<String> {
    let holds = match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let ours = desired.iter().find_map(|(key, desired)| field(place, key, live.get(key), desired));
            let beside = || {
                let mut beside = live.iter().filter(|(key, value)| !desired.contains_key(*key) && !is_default(key, value));
                beside.next().map(|(key, _)| place.field(key).path)
            };
            return ours.or_else(|| place.whole.then(beside).flatten());
        }
        (Value::String(live), Value::String(desired)) => live == desired || place.quantity && same_quantity(live, desired),
        _ => live == desired,
    };
    (!holds).then(|| place.path.clone())
}

fn list(place: &Place, key: &str, live: &[Value], desired: &[Value]) -> Option<String> {
    let keys = KEYED.iter().find(|(name, _)| *name == key && !place.whole).map(|(_, keys)| *keys);
    let Some(keys) = keys else {
        if live.len() != desired.len() {
            return Some(place.path.clone());
        }
        let mut pairs = live.iter().zip(desired).enumerate();
        return pairs.find_map(|(index, (live, desired))| value(&place.element(&index.to_string(), true), live, desired));
    };
    desired.iter().find_map(|desired| {
        let name = keys.iter().find_map(|key| desired.get(key)).map(|name| name.to_string().trim_matches('"').to_owned());
        let place = place.element(&name.unwrap_or_default(), false);
        match live.iter().find(|live| keys.iter().all(|key| live.get(key) == desired.get(key))) {
            Some(live) => value(&place, live, desired),
            None => Some(place.path),
        }
    })
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
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let scale: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        "Ei" => 1_000 << 60,
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?.parse::<u32>().ok().filter(|power| *power <= 18)?;
            1_000 * 10_i128.pow(power)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || number.len() > 15 || fraction.len() > 9 {
        return None;
    }
    let base = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some((digits * scale + base - 1) / base)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

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
        assert_eq!(difference(&live, &desired).as_deref(), expected);
    }

    #[rstest]
    #[case("1", Some(1_000))]
    #[case("100m", Some(100))]
    #[case("0.1", Some(100))]
    #[case("1.5Gi", Some(1_610_612_736_000))]
    #[case("1e3", Some(1_000_000))]
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
    }
}
