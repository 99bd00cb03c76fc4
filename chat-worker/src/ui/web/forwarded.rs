//! Notes in each request who asks. Whom to believe is the door's rule.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::Response,
};
use http_server::forwarded::caller;

use super::state::Web;

/// Notes the caller in the request.
pub async fn note(
    State(web): State<Arc<Web>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = caller(peer.ip(), request.headers(), &web.app.settings.trusted_proxies);
    request.extensions_mut().insert(caller);
    next.run(request).await
}
