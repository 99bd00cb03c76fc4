//! The way to the collector for programs that have hyper's client anyway, and no other.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

use crate::{Error, Target};

/// What a collector may say; it is only shown in an error.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// See the file. The SDK's thread is none of the runtime's, on which connections live.
#[derive(Debug)]
pub struct Collector {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    runtime: Handle,
}

impl Collector {
    /// On the runtime that this is called in. An error: it is not `http://`.
    pub fn new(target: &Target) -> Result<Self, Error> {
        if !target.endpoint.starts_with("http://") {
            let address = target.endpoint.parse::<Uri>().ok().filter(|address| address.authority().is_some());
            return Err(Error::Scheme(
                address.map_or_else(|| "what is no address".to_owned(), |address| without_user(&address).to_string()),
            ));
        }
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Ok(Self { client, timeout: target.timeout, runtime: Handle::current() })
    }
}

impl HttpClient for Collector {
    // By hand what the macro of the trait's crate would write.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let mut request = request.map(Full::new);
        *request.uri_mut() = without_user(request.uri());
        let answer = self.client.request(request);
        let exchange = async move {
            let (parts, body) = answer.await?.into_parts();
            Ok(Response::from_parts(parts, Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes()))
        };
        let timeout = self.timeout;
        let sent = self.runtime.spawn(async move { tokio::time::timeout(timeout, exchange).await });
        Box::pin(async move { sent.await?? })
    }
}

/// An address without the user and the password that may stand in it: hyper makes nothing of them, and writes them down at DEBUG.
fn without_user(uri: &Uri) -> Uri {
    let bare = || {
        let (_, host) = uri.authority()?.as_str().rsplit_once('@')?;
        let mut parts = uri.clone().into_parts();
        parts.authority = Some(host.parse().ok()?);
        Uri::from_parts(parts).ok()
    };
    bare().unwrap_or_else(|| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_sent_is_told_without_its_password() {
        let refused = |endpoint: &str| {
            let target = Target { endpoint: endpoint.to_owned(), timeout: Duration::ZERO };
            Collector::new(&target).unwrap_err().to_string()
        };
        assert!(refused("https://user:swordfish@collector:4318/v1").contains("not to https://collector:4318/v1;"));
        for odd in ["https://user:sword fish@collector", "//user:swordfish@collector"] {
            assert!(!refused(odd).contains("sword"), "{odd}");
        }
    }
}
