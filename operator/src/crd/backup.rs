//! The part of the API that says how the data of a server is kept: `storage.backup` and what came of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;

/// A backup at times: the CronJob `<name>-mcp-backup`, whose pods run where the volume is.
///
/// One at once: `kubectl create job --from=cronjob/<name>-mcp-backup now`. docs/backups.md says how to get the data back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// When, in UTC, as cron has it: minute, hour, day of the month, month, day of the week; or @hourly, @daily and the like. For
    /// example "30 3 * * *".
    #[x_kube(validation = Rule::new("self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|([-0-9A-Za-z*/,?]+ +){4}[-0-9A-Za-z*/,?]+)$')").message("schedule must have the five fields of cron (minute, hour, day of the month, month, day of the week), or be @hourly, @daily, @weekly, @monthly or @yearly, for example 30 3 * * *"))]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// How many backups of this server are kept there; its oldest beyond are removed, once a new one is whole (default: 7).
    #[serde(default = "keep")]
    #[schemars(range(min = 1, max = 1_000))]
    pub keep: u16,
    /// Where backups go: into a folder of the server's own there, so that several servers may name one place.
    pub to: Place,
    /// The image that makes them (default: the server's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[^\\\\s]+$')").message("image must name a container image, for example ghcr.io/mcpfleet/sandbox-server:0.1.0"))]
    #[schemars(length(max = 1_024))]
    pub image: Option<String>,
    /// The command that makes one, for servers other than sandbox-server (default: `sandbox-server backup` of the database that the
    /// server's arguments name by --db). The volume is at its usual place, the server's environment is there, and BACKUP_TO (a folder,
    /// or s3://BUCKET/PREFIX) and BACKUP_KEEP say what is wanted; for a bucket there are AWS_ENDPOINT_URL, AWS_REGION and the
    /// credentials, too. Anything but exit code 0 is a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub command: Vec<String>,
}

/// Where backups go: to a claim, or to a bucket.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.claim) != has(self.s3)").message("set exactly one of backup.to.claim (a PersistentVolumeClaim) and backup.to.s3 (a bucket)"))]
pub struct Place {
    /// A PersistentVolumeClaim of this namespace, other than the server's own. The backups are in its folder SERVER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::SUBDOMAIN))]
    pub claim: Option<String>,
    /// A bucket of a server that speaks S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// A bucket of a server that speaks S3.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// The bucket.
    #[schemars(length(min = 3, max = 63), extend("pattern" = forms::BUCKET))]
    pub bucket: String,
    /// What the names of the backups begin with, for example backups/production: one for each cluster. NAMESPACE/SERVER follows (default:
    /// nothing before that).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), extend("pattern" = forms::PREFIX))]
    pub prefix: Option<String>,
    /// Where the server is, for example http://minio.storage.svc:9000 (default: AWS's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = super::url_rule("/?").message("endpoint must be an http:// or https:// URL of a host and port alone, for example http://minio.storage.svc:9000"))]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// The region (default: us-east-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("pattern" = forms::REGION))]
    pub region: Option<String>,
    /// The Secret with the credentials, under the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where there
    /// is one (default: those that the pods' ServiceAccount, or their environment, have).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}

/// A Secret in the namespace of the object.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), extend("pattern" = forms::SUBDOMAIN))]
    pub name: String,
}

/// What came of the backups.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// When the last one ended, well or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// When the last good one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// The size of the last good one, in bytes; absent where its program does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Why the last one failed, or why the pod of one does not run; absent when neither is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

const fn keep() -> u16 {
    7
}
