//! The Secret with the access token that we made: only while the spec names none of its own.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::metadata;
use crate::mcp_app::{
    observe::TOKEN_KEY,
    validate::{Token, ValidatedApp},
};

pub(super) fn build(app: &ValidatedApp) -> Option<Secret> {
    let Token::Ours(token) = &app.token else { return None };
    Some(Secret {
        metadata: metadata(app),
        data: Some(BTreeMap::from([(TOKEN_KEY.into(), ByteString(token.clone().into_bytes()))])),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}
