//! Who may read /fleet and /metrics: whom the API server says they are, and whom it says may (TokenReview, SubjectAccessReview).

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::http::{HeaderMap, StatusCode, header};
use clap::ValueEnum;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, time::Instant};

/// How long an answer of the API server counts.
const KEPT: Duration = Duration::from_secs(1);
/// How long the API server has to give one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers kept at most: so many callers in one second are not asked for one by one.
const MOST_KEPT: usize = 1_024;

/// What is read only by those who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Authenticate {
    /// /fleet. /metrics is open to whoever reaches the port.
    Fleet,
    /// /fleet and /metrics.
    All,
    /// Nothing: for development, or where a NetworkPolicy says who reaches the port.
    None,
}

impl Authenticate {
    fn covers(self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Fleet => path == "/fleet",
            Self::None => false,
        }
    }
}

/// A refusal, as HTTP has it.
pub type Refusal = (StatusCode, String);

/// Asks the API server, and remembers its answers for a moment.
#[derive(Clone)]
pub struct Access {
    client: Client,
    authenticate: Authenticate,
    /// By digest of token and path: no token is kept.
    kept: Arc<Mutex<HashMap<[u8; 32], Answer>>>,
}

/// What the API server said, and when.
type Answer = (Instant, Result<(), Refusal>);

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("authenticate", &self.authenticate).finish_non_exhaustive()
    }
}

impl Access {
    /// By this API server.
    pub fn new(client: Client, authenticate: Authenticate) -> Self {
        Self { client, authenticate, kept: Arc::default() }
    }

    /// Whether the caller may read the path.
    pub async fn may_get(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.authenticate.covers(path) {
            return Ok(());
        }
        let token = bearer(headers).ok_or_else(|| {
            let text = format!("{path} wants the token of a user or ServiceAccount who may get the nonResourceURL {path}: Authorization: Bearer …");
            (StatusCode::UNAUTHORIZED, text)
        })?;
        let key = Sha256::new().chain_update(path).chain_update([0]).chain_update(token).finalize().into();
        let mut kept = self.kept.lock().await;
        if let Some((asked, answer)) = kept.get(&key)
            && asked.elapsed() < KEPT
        {
            return answer.clone();
        }
        drop(kept);
        let asked = tokio::time::timeout(PATIENCE, self.ask(path, token)).await;
        let answer = asked.unwrap_or_else(|_| Err(unavailable("it did not answer in time")));
        kept = self.kept.lock().await;
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (asked, _)| asked.elapsed() < KEPT);
        }
        if kept.len() < MOST_KEPT {
            kept.insert(key, (Instant::now(), answer.clone()));
        }
        drop(kept);
        answer
    }

    async fn ask(&self, path: &str, token: &str) -> Result<(), Refusal> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await.map_err(|error| unavailable(&why(&error)))?;
        let status = reviewed.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).unwrap_or_default();
        if user.username.is_none() {
            return Err((StatusCode::UNAUTHORIZED, "the API server does not know this token".into()));
        }
        let name = user.username.clone().unwrap_or_default();
        let review = SubjectAccessReview { spec: may_get(path, user), ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await.map_err(|error| unavailable(&why(&error)))?;
        if reviewed.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        Err((StatusCode::FORBIDDEN, format!("{name} may not get the nonResourceURL {path}: a ClusterRole must say so")))
    }
}

fn may_get(path: &str, user: UserInfo) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        non_resource_attributes: Some(NonResourceAttributes { path: Some(path.to_owned()), verb: Some("get".into()) }),
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: user.extra,
        ..SubjectAccessReviewSpec::default()
    }
}

fn unavailable(why: &str) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, format!("the API server could not be asked who may read this: {why}"))
}

fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_header_alone_and_in_any_case() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc"), Some("abc".into()));
        assert_eq!(with("bearer  abc "), Some("abc".into()));
        assert_eq!(with("Basic abc"), None);
        assert_eq!(with("Bearer "), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn metrics_stay_plain_unless_all_is_asked_for() {
        let covered = |authenticate: Authenticate| ["/fleet", "/metrics"].map(|path| authenticate.covers(path));
        assert_eq!(covered(Authenticate::Fleet), [true, false]);
        assert_eq!(covered(Authenticate::All), [true, true]);
        assert_eq!(covered(Authenticate::None), [false, false]);
    }
}
