//! The forms that texts of a spec must have, each with its sentence. A `pattern` of a schema is repeated as it is to whoever does not fit
//! it, so that the definitions say a form by a rule of CEL, whose message is the sentence.

use kube::core::Rule;
use serde_json::{Value, json};

/// A DNS subdomain, as the names of most objects must be.
pub const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// The name of a StorageClass, or none.
pub const STORAGE_CLASS: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";

/// A DNS label, as the names of volumes and containers must be.
pub const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The value of a label.
pub const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// The name of a variable of the environment.
pub const VARIABLE: &str = "^[^=]+$";

/// A key of a Secret or a ConfigMap.
pub const KEY: &str = "^[-._a-zA-Z0-9]+$";

/// Where a volume is mounted: one way to write a folder, but for a '/' at its ends, and never the root, at which no container starts.
pub const MOUNT_PATH: &str = r"^/?([^/.:][^/:]*|\.[^/.:][^/:]*|\.\.[^/:]+)(/([^/.:][^/:]*|\.[^/.:][^/:]*|\.\.[^/:]+))*/?$";

/// A path inside of something: not from the root, and never above where it begins. (An empty one is none.)
pub const INSIDE: &str = r"^(([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+|\.)(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+|\.)?)*)?$";

/// A network, for example 10.0.0.0/8 or fd00::/8. The API server looks closer at that of a NetworkPolicy.
pub const CIDR: &str = "^((25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(\\.(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})){3}/(3[0-2]|[12]?[0-9])|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[0-9]{1,2}))$";

/// An address, or a network.
pub const ADDRESS: &str = r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$";

/// A host, without scheme and path.
pub const HOST: &str = r"^[^\s,/@]+$";

/// A bucket of S3.
pub const BUCKET: &str = "^[a-z0-9][-a-z0-9.]*[a-z0-9]$";

/// What the names of a bucket's objects begin with. "." and ".." are no names: stores and proxies before them read them as ways.
pub const PREFIX: &str =
    r"^(\.?[-A-Za-z0-9_][-A-Za-z0-9_.]*|\.\.[-A-Za-z0-9_.]+)(/(\.?[-A-Za-z0-9_][-A-Za-z0-9_.]*|\.\.[-A-Za-z0-9_.]+))*$";

/// A region of S3.
pub const REGION: &str = "^[-a-z0-9]+$";

/// A backup: NAME, SERVER/NAME or NAMESPACE/SERVER/NAME.
pub const BACKUP: &str = "^([A-Za-z0-9][-A-Za-z0-9_.]*/){0,2}[A-Za-z0-9][-A-Za-z0-9_.]*$";

/// A SHA-256.
pub const DIGEST: &str = "^[0-9a-f]{64}$";

/// What a quantity looks like.
pub const QUANTITY: &str = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)((n|u|m|k|M|G|T|P|E|[KMGTPE]i)?|[eE][-+]?[0-9]+)$";

/// What is said to whoever does not fit a form. The field's path stands before it.
const SENTENCES: [(&str, &str); 17] = [
    (
        SUBDOMAIN,
        "it must be the name of an object of Kubernetes: lowercase letters, digits, '-' and '.', with a letter or a digit at both ends and on both sides of each '.'",
    ),
    (
        STORAGE_CLASS,
        "it must be the name of a StorageClass, or empty: lowercase letters, digits, '-' and '.', with a letter or a digit at both ends and on both sides of each '.'",
    ),
    (LABEL, "it must be lowercase letters, digits and '-', with a letter or a digit at both ends"),
    (
        LABEL_VALUE,
        "the value of a label must be letters, digits, '-', '_' and '.', with a letter or a digit at both ends, or empty",
    ),
    (VARIABLE, "the name of a variable has no '=': what follows it belongs into value"),
    (KEY, "a key must be letters, digits, '-', '_' and '.'"),
    (MOUNT_PATH, "a volume is mounted at a folder below the root, for example /data, without ':', '//', '.' or '..' in the way"),
    (INSIDE, "it must be a path inside the volume, for example data/files: without a '/' before it, and without '..'"),
    (CIDR, "it must be a network, for example 10.0.0.0/8 or fd00::/8; a single address is 10.1.2.3/32"),
    (ADDRESS, "it must be an address or a network, for example 10.1.2.3 or 10.0.0.0/8"),
    (HOST, "it must be a host alone, for example chat.example.com: without a scheme, a user, a path, a comma or a space"),
    (BUCKET, "it must be the name of a bucket: lowercase letters, digits, '-' and '.', with a letter or a digit at both ends"),
    (
        PREFIX,
        "it must be names with a '/' between them, for example backups/production: letters, digits, '-', '_' and '.', without a '/' at an end, and without '.' or '..' alone between two",
    ),
    (REGION, "it must be the name of a region, for example eu-central-1: lowercase letters, digits and '-'"),
    (
        BACKUP,
        "it must be latest or the NAME of a backup, SERVER/NAME, or NAMESPACE/SERVER/NAME: letters, digits, '-', '_' and '.', and no more than two '/'",
    ),
    (
        DIGEST,
        "it must be the digest of a list of tools, as status.tools.digest and the condition ToolsAccepted show it: 64 of 0-9 and a-f",
    ),
    (
        QUANTITY,
        "it must be a quantity, for example 500m, 2 or 1Gi: a number with nothing, n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei behind it",
    ),
];

/// Says the form of a text by a rule. Not where texts have no longest length: an API server refuses a rule whose cost has no end.
pub(super) fn say(schema: &mut Value) {
    let Value::Object(text) = schema else { return };
    let or_number = text.get("x-kubernetes-int-or-string").is_some();
    if !text.contains_key("maxLength") || !(or_number || text.get("type").is_some_and(|kind| kind == "string")) {
        return;
    }
    let form = text.get("pattern").and_then(|form| SENTENCES.iter().find(|(pattern, _)| form == pattern));
    let Some((pattern, sentence)) = form else { return };
    let what = if or_number { "string(self)" } else { "self" };
    let rule = Rule::new(format!("{what}.matches(r'{pattern}')")).message(*sentence);
    text.remove("pattern");
    // No form that is longer than nothing takes an empty text: that is one fault, and one sentence.
    if text.get("minLength").is_some_and(|least| least == 1) {
        text.remove("minLength");
    }
    let rules = text.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    rules.as_array_mut().expect("rules are a list").push(json!(rule));
}
