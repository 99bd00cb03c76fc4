//! The Service: port 80, to whatever pods are ready.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata;
use crate::{mcp_app::validate::ValidatedApp, names::Component, workload};

pub(super) fn build(app: &ValidatedApp) -> Service {
    Service {
        metadata: metadata(app),
        spec: Some(ServiceSpec {
            selector: Some(Component::App.selector(&app.name)),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                app_protocol: Some("http".into()),
                protocol: Some("TCP".into()),
                port: 80,
                target_port: Some(IntOrString::String("http".into())),
                ..ServicePort::default()
            }]),
            ..workload::service()
        }),
        status: None,
    }
}
