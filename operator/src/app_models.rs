//! Asks the pods of McpApps whether their model answers them: the readiness endpoint of the chat worker tells. I/O, but for what the
//! answers of several pods come to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{app_pods::AppPods, mcp_app::status::ModelReport, who::Who};

/// How often every pod is asked.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long one has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pods asked at once.
const AT_ONCE: usize = 16;
/// The most of an answer that is read.
const MOST: usize = 64 * 1024;
/// The chat worker's port.
const PORT: u16 = 8080;

/// What is known of the models of apps.
#[derive(Debug, Default)]
pub struct AppModels(Mutex<HashMap<Who, ModelReport>>);

impl AppModels {
    /// What the app's pods met. None: nothing that is known.
    pub fn report(&self, namespace: &str, name: &str) -> Option<ModelReport> {
        self.reports().get(&Who::app(namespace, name)).cloned()
    }

    /// Takes up what all pods said. Gives the apps of which something else is to be told now.
    fn take(&self, found: HashMap<Who, ModelReport>) -> Vec<Who> {
        let mut reports = self.reports();
        let mut changed: Vec<_> =
            found.iter().filter(|(app, report)| reports.get(app) != Some(report)).map(|(app, _)| app.clone()).collect();
        changed.extend(reports.keys().filter(|app| !found.contains_key(app)).cloned());
        *reports = found;
        changed
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, HashMap<Who, ModelReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks all pods again and again, and at once when there are others. Never ends.
pub async fn watch(models: Arc<AppModels>, pods: Arc<AppPods>, wake: impl Fn(&Who)) {
    loop {
        let asked = stream::iter(pods.running()).map(|(app, address)| async move { (app, ask(address).await) });
        let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
        let mut by_app: HashMap<Who, Vec<ModelReport>> = HashMap::new();
        for (app, answer) in answers {
            by_app.entry(app).or_default().extend(answer);
        }
        let found = by_app.into_iter().filter_map(|(app, answers)| Some((app, together(answers)?))).collect();
        models.take(found).iter().for_each(&wake);
        // Either way it is time.
        let _ = timeout(INTERVAL, pods.others_run()).await;
    }
}

/// What the answers of an app's pods come to: whoever asks a pod that cannot reach the model gets no answer, so one is enough.
fn together(answers: Vec<ModelReport>) -> Option<ModelReport> {
    let rank = |report: &ModelReport| match report.reachable {
        Some(false) => 0,
        Some(true) => 1,
        None => 2,
    };
    answers.into_iter().min_by_key(rank)
}

#[derive(Deserialize)]
struct Readyz {
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    reachable: Option<bool>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// What a pod says of its model. None: it does not say, or is a gateway.
async fn ask(address: IpAddr) -> Option<ModelReport> {
    let body = timeout(PATIENCE, get(address)).await.ok()??;
    read(&body)
}

/// The body of /readyz, whatever the status.
async fn get(address: IpAddr) -> Option<Bytes> {
    let stream = TcpStream::connect((address, PORT)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get("/readyz").header(header::HOST, "localhost").body(Empty::<Bytes>::new()).ok()?;
    // It drives what is asked on it, and ends with it.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let reply = sender.send_request(request).await.ok()?;
    Some(Limited::new(reply.into_body(), MOST).collect().await.ok()?.to_bytes())
}

fn read(body: &[u8]) -> Option<ModelReport> {
    let model = serde_json::from_slice::<Readyz>(body).ok()?.model?;
    Some(ModelReport {
        reachable: model.reachable,
        reason: model.reason.filter(|reason| is_reason(reason)).unwrap_or_else(|| "ModelFailed".to_owned()),
        message: model.message.unwrap_or_default().chars().take(512).collect(),
    })
}

/// What a condition's reason may be.
fn is_reason(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.len() <= 64
        && characters.all(|other| other.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reachable: Option<bool>) -> ModelReport {
        ModelReport { reachable, reason: "ModelRefused".into(), message: "HTTP 401".into() }
    }

    #[test]
    fn one_pod_that_cannot_reach_the_model_is_told() {
        let (yes, no, unknown) = (report(Some(true)), report(Some(false)), report(None));
        assert_eq!(together(vec![yes.clone(), no.clone(), unknown.clone()]), Some(no));
        assert_eq!(together(vec![unknown.clone(), yes.clone()]), Some(yes));
        assert_eq!(together(vec![unknown.clone()]), Some(unknown));
        assert_eq!(together(Vec::new()), None);
    }

    #[test]
    fn an_answer_is_read_whatever_else_is_in_it_and_a_gateway_has_no_model() {
        let body =
            br#"{"ready":true,"model":{"reachable":false,"reason":"KeyEmpty","message":"m","since":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(read(body), Some(ModelReport { reachable: Some(false), reason: "KeyEmpty".into(), message: "m".into() }));
        assert_eq!(
            read(br#"{"model":{"reachable":null,"reason":"not a reason"}}"#).map(|report| report.reason),
            Some("ModelFailed".into())
        );
        for nothing in ["ok", "", "{}", r#"{"model":null}"#, r#"{"model":"m"}"#] {
            assert_eq!(read(nothing.as_bytes()), None, "{nothing}");
        }
    }

    #[test]
    fn an_app_is_woken_when_its_pods_say_something_else() {
        let (models, app) = (AppModels::default(), Who::app("team", "chat"));
        let said = |reachable| HashMap::from([(app.clone(), report(reachable))]);
        assert_eq!(models.take(said(Some(true))), std::slice::from_ref(&app));
        assert!(models.take(said(Some(true))).is_empty());
        assert_eq!(models.take(said(Some(false))), std::slice::from_ref(&app));
        assert_eq!(models.take(HashMap::new()), [app]);
        assert_eq!(models.report("team", "chat"), None);
    }
}
