//! The ConfigMap with the accepted tools: what a changed list is told apart from, also by the next operator.

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::metadata;
use crate::{
    mcp_server::{contract, validate::ValidatedServer},
    names::Component,
};

/// None while nothing is accepted, or only a digest is known.
pub(super) fn build(server: &ValidatedServer) -> Option<ConfigMap> {
    let accepted = server.tools.accepted.as_ref().filter(|accepted| contract::is_known(accepted))?;
    Some(ConfigMap {
        metadata: ObjectMeta { name: Some(Component::tools_name(&server.name)), ..metadata(server) },
        data: Some(contract::write(accepted)),
        ..ConfigMap::default()
    })
}
