//! What an app needs to get in at remote servers: their Secrets, mounted as files that `mcp.json` points at. The values themselves
//! stay in their Secrets.

use k8s_openapi::api::core::v1::{KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeProjection};

use crate::{
    crd::pod::SecretKeyRef,
    mcp_app::validate::{AppServer, ValidatedApp},
};

/// Where the files are.
pub(super) const DIR: &str = "/app/secrets/servers";
const CA_FILE: &str = "ca.pem";

/// A file with the value of a header.
pub(super) struct HeaderFile<'a> {
    pub(super) name: &'a str,
    pub(super) path: String,
    reference: &'a SecretKeyRef,
}

/// The files with a server's headers, below [`DIR`].
pub(super) fn headers<'a>(name: &'a str, server: &'a AppServer) -> impl Iterator<Item = HeaderFile<'a>> {
    server.headers.iter().enumerate().map(move |(index, header)| HeaderFile {
        name: &header.name,
        path: format!("{name}/header-{index}"),
        reference: &header.secret_key_ref,
    })
}

/// The file with a server's private CA, below [`DIR`].
pub(super) fn ca<'a>(name: &str, server: &'a AppServer) -> Option<(String, &'a SecretKeyRef)> {
    Some((format!("{name}/{CA_FILE}"), server.ca.as_ref()?))
}

/// The volume with all these files. None when no server wants any.
pub(super) fn volume(app: &ValidatedApp) -> Option<Volume> {
    let files = app.servers.iter().flat_map(|(name, server)| {
        let headers = headers(name, server).map(|file| (file.path, file.reference));
        headers.chain(ca(name, server))
    });
    let sources: Vec<_> = files.map(|(path, reference)| projection(path, reference)).collect();
    if sources.is_empty() {
        return None;
    }
    Some(Volume {
        name: "servers".into(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) }),
        ..Volume::default()
    })
}

fn projection(path: String, reference: &SecretKeyRef) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection {
            name: reference.name.clone(),
            items: Some(vec![KeyToPath { key: reference.key.clone(), path, mode: None }]),
            // A Secret that is missing costs that server, and not the app.
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    }
}
