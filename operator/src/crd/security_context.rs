//! Who the pods run as: the pod's and the container's security context in one, with a way to leave a choice to the cluster.

use k8s_openapi::api::core::v1::SELinuxOptions;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A field with a default of ours, which a null leaves to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// Not set: ours.
    #[default]
    Default,
    /// Null: the cluster's, or the image's.
    Unset,
    /// This.
    Set(T),
}

impl<T> Setting<T> {
    /// The field of the pod, where `ours` is the default.
    pub fn or(self, ours: T) -> Option<T> {
        match self {
            Self::Default => Some(ours),
            Self::Unset => None,
            Self::Set(value) => Some(value),
        }
    }

    const fn is_default(&self) -> bool {
        matches!(self, Self::Default)
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default | Self::Unset => serializer.serialize_none(),
            Self::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Unset, Self::Set))
    }
}

/// Who the pods run as, and what they may write: the fields of a pod's and a container's security context in one.
///
/// A field that is not set has the default named with it. A null leaves it to the cluster (its admission, or the image), as OpenShift
/// wants it for users and groups; an empty securityContext (`{}`) leaves user and groups to it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.runAsUser) || self.runAsUser != 0 || (has(self.runAsNonRoot) && !self.runAsNonRoot)")
        .message("securityContext.runAsUser 0 is root, and runAsNonRoot (true when not set) refuses root: set runAsNonRoot: false, too, or another user")
)]
pub struct SecurityContext {
    /// The uid of every process (default: 1000).
    #[serde(default, skip_serializing_if = "Setting::is_default")]
    #[schemars(schema_with = "id")]
    pub run_as_user: Setting<i64>,
    /// The primary gid of every process (default: 1000; the image's where runAsUser is null). No container starts with a group and
    /// without a user: where runAsUser is null and this is set, the cluster's admission has to set the user, as OpenShift's does.
    #[serde(default, skip_serializing_if = "Setting::is_default")]
    #[schemars(schema_with = "id")]
    pub run_as_group: Setting<i64>,
    /// The group that volumes are made writable for (default: 1000).
    #[serde(default, skip_serializing_if = "Setting::is_default")]
    #[schemars(schema_with = "id")]
    pub fs_group: Setting<i64>,
    /// Further groups of every process (default: none).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 0, max = 2_147_483_647_i64)))]
    pub supplemental_groups: Vec<i64>,
    /// Refuse to start a container as root (default: true). The Pod Security Standard `restricted` wants it true.
    #[serde(default, skip_serializing_if = "Setting::is_default")]
    #[schemars(schema_with = "boolean")]
    pub run_as_non_root: Setting<bool>,
    /// The image's files cannot be written, but volumes can (default: true). With it come a writable /tmp, and a writable HOME
    /// at /home/mcp for an McpServer.
    #[serde(default, skip_serializing_if = "Setting::is_default")]
    #[schemars(schema_with = "boolean")]
    pub read_only_root_filesystem: Setting<bool>,
    /// The SELinux label of the pods (default: the container runtime's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
}

impl SecurityContext {
    /// With what an empty one means said field by field.
    pub fn resolved(self) -> Self {
        if self == Self::default() {
            return Self { run_as_user: Setting::Unset, run_as_group: Setting::Unset, fs_group: Setting::Unset, ..self };
        }
        // A group without a user is refused by container runtimes: who leaves the user to the image leaves it the user's group, too.
        if self.run_as_user == Setting::Unset && self.run_as_group == Setting::Default {
            return Self { run_as_group: Setting::Unset, ..self };
        }
        self
    }
}

fn id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "nullable": true, "minimum": 0, "maximum": 2_147_483_647_i64})
}

fn boolean(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean", "nullable": true})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> SecurityContext {
        serde_json::from_value(value).expect("a security context")
    }

    #[test]
    fn null_is_told_apart_from_nothing_and_survives_being_written() {
        let context = json!({"runAsUser": null, "fsGroup": 0});
        let read = read(context.clone());
        assert_eq!((read.run_as_user, read.run_as_group, read.fs_group), (Setting::Unset, Setting::Default, Setting::Set(0)));
        assert_eq!(serde_json::to_value(&read).expect("JSON"), context);
    }

    #[test]
    fn an_empty_context_leaves_users_and_groups_to_the_cluster_and_nothing_else() {
        let empty = read(json!({})).resolved();
        assert_eq!((empty.run_as_user.or(1), empty.run_as_group.or(1), empty.fs_group.or(1)), (None, None, None));
        assert_eq!((empty.run_as_non_root.or(true), empty.read_only_root_filesystem.or(true)), (Some(true), Some(true)));
        let image = read(json!({"runAsUser": null})).resolved();
        assert_eq!((image.run_as_user.or(1), image.run_as_group.or(1), image.fs_group.or(1)), (None, None, Some(1)));
        let group = read(json!({"runAsUser": null, "runAsGroup": 7})).resolved();
        assert_eq!(group.run_as_group.or(1), Some(7), "it is said");
        let user = read(json!({"runAsUser": 5})).resolved();
        assert_eq!((user.run_as_user.or(1), user.fs_group.or(1)), (Some(5), Some(1)));
    }
}
