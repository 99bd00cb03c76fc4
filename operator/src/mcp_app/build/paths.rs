//! Where the chat worker finds its files. Directories, not single files: Kubernetes renews only those in a running pod.

pub(super) const CONFIG_DIR: &str = "/app/config";
/// The file's name, and so the key in the ConfigMap.
pub(super) const FILE: &str = "mcp.json";
pub(super) const KEY_DIR: &str = "/app/secrets/model";
pub(super) const KEY_FILE: &str = "api-key";
pub(super) const TOKEN_DIR: &str = "/app/secrets/access";
pub(super) const TOKEN_FILE: &str = "token";
