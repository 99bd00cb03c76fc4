//! Asks the pods of McpApps whether their model answers them, and what is left of their budget: the readiness endpoint of the chat
//! worker tells. I/O, but for what the answers of several pods come to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{app_pods::AppPods, http_get, who::Who};

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

/// What an app's pods met when they asked their model, as their readiness endpoint tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelReport {
    /// Whether it answers. None: it has not been asked yet.
    pub reachable: Option<bool>,
    /// Why not, for machines.
    pub reason: String,
    /// Why not, for people.
    pub message: String,
}

/// What an app's pods say, as their readiness endpoint tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppReport {
    /// What they met when they asked their model. None: nothing yet, or there is none.
    pub model: Option<ModelReport>,
    /// How much of its share of the day's budget the pod has used that has used most. None: there is no budget.
    pub budget_percent: Option<u32>,
}

/// What the pods of apps said last.
#[derive(Debug, Default)]
pub struct AppReports(Mutex<HashMap<Who, AppReport>>);

impl AppReports {
    /// What the app's pods said. None: nothing that is known.
    pub fn of(&self, namespace: &str, name: &str) -> Option<AppReport> {
        self.reports().get(&Who::app(namespace, name)).cloned()
    }

    /// Takes up what all pods said. Gives the apps of which something else is to be told now.
    fn take(&self, found: HashMap<Who, AppReport>) -> Vec<Who> {
        let mut reports = self.reports();
        let mut changed: Vec<_> =
            found.iter().filter(|(app, report)| reports.get(app) != Some(report)).map(|(app, _)| app.clone()).collect();
        changed.extend(reports.keys().filter(|app| !found.contains_key(app)).cloned());
        *reports = found;
        changed
    }

    fn reports(&self) -> std::sync::MutexGuard<'_, HashMap<Who, AppReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks all pods again and again, and at once when there are others. Never ends.
pub async fn watch(reports: Arc<AppReports>, pods: Arc<AppPods>, wake: impl Fn(&Who)) {
    loop {
        let asked = stream::iter(pods.running()).map(|(app, address)| async move { (app, ask(address).await) });
        let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
        let mut by_app: HashMap<Who, Vec<AppReport>> = HashMap::new();
        for (app, answer) in answers {
            by_app.entry(app).or_default().extend(answer);
        }
        let found = by_app.into_iter().map(|(app, answers)| (app, together(answers))).collect();
        reports.take(found).iter().for_each(&wake);
        // Either way it is time.
        let _ = timeout(INTERVAL, pods.others_run()).await;
    }
}

/// What the answers of an app's pods come to. Whoever asks a pod that cannot reach the model, or has used up its share of the budget,
/// gets no answer: one such pod is enough.
fn together(answers: Vec<AppReport>) -> AppReport {
    let rank = |report: &ModelReport| match report.reachable {
        Some(false) => 0,
        Some(true) => 1,
        None => 2,
    };
    let budget_percent = answers.iter().filter_map(|answer| answer.budget_percent).max();
    AppReport { model: answers.into_iter().filter_map(|answer| answer.model).min_by_key(rank), budget_percent }
}

#[derive(Deserialize)]
struct Readyz {
    #[serde(default)]
    model: Option<Model>,
    #[serde(default)]
    budget: Option<Budget>,
}

#[derive(Deserialize)]
struct Budget {
    percent: u32,
}

#[derive(Deserialize)]
struct Model {
    reachable: Option<bool>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// What a pod says. None: nothing that can be read.
async fn ask(address: IpAddr) -> Option<AppReport> {
    let (_, body) = timeout(PATIENCE, http_get::get((address, PORT).into(), "/readyz", "localhost", MOST)).await.ok()??;
    read(&body)
}

fn read(body: &[u8]) -> Option<AppReport> {
    let said = serde_json::from_slice::<Readyz>(body).ok()?;
    let model = said.model.map(|model| ModelReport {
        reachable: model.reachable,
        reason: model.reason.filter(|reason| is_reason(reason)).unwrap_or_else(|| "ModelFailed".to_owned()),
        message: model.message.unwrap_or_default().chars().take(512).collect(),
    });
    Some(AppReport { model, budget_percent: said.budget.map(|budget| budget.percent) })
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

    fn report(reachable: Option<bool>) -> AppReport {
        let model = Some(ModelReport { reachable, reason: "ModelRefused".into(), message: "HTTP 401".into() });
        AppReport { model, budget_percent: None }
    }

    #[test]
    fn one_pod_that_cannot_reach_the_model_is_told() {
        let (yes, no, unknown) = (report(Some(true)), report(Some(false)), report(None));
        assert_eq!(together(vec![yes.clone(), no.clone(), unknown.clone()]), no);
        assert_eq!(together(vec![unknown.clone(), yes.clone()]), yes);
        assert_eq!(together(vec![unknown.clone()]), unknown);
        assert_eq!(together(Vec::new()), AppReport::default());
    }

    #[test]
    fn the_pod_that_has_used_most_of_its_share_is_told() {
        let used = |budget_percent| AppReport { budget_percent, ..report(Some(true)) };
        assert_eq!(together(vec![used(Some(3)), used(Some(101)), used(None)]).budget_percent, Some(101));
    }

    #[test]
    fn an_answer_is_read_whatever_else_is_in_it_and_a_gateway_has_no_model() {
        let body =
            br#"{"ready":true,"model":{"reachable":false,"reason":"KeyEmpty","message":"m","since":"2026-01-01T00:00:00Z"}}"#;
        let model = ModelReport { reachable: Some(false), reason: "KeyEmpty".into(), message: "m".into() };
        assert_eq!(read(body), Some(AppReport { model: Some(model), budget_percent: None }));
        assert_eq!(
            read(br#"{"model":{"reachable":null,"reason":"not a reason"}}"#).and_then(|report| report.model?.reason.into()),
            Some("ModelFailed".to_owned())
        );
        let gateway = read(br#"{"model":null,"budget":{"percent":7,"usedUp":false}}"#);
        assert_eq!(gateway, Some(AppReport { model: None, budget_percent: Some(7) }));
        for nothing in ["ok", "", r#"{"model":"m"}"#] {
            assert_eq!(read(nothing.as_bytes()), None, "{nothing}");
        }
    }

    #[test]
    fn an_app_is_woken_when_its_pods_say_something_else() {
        let (models, app) = (AppReports::default(), Who::app("team", "chat"));
        let said = |reachable| HashMap::from([(app.clone(), report(reachable))]);
        assert_eq!(models.take(said(Some(true))), std::slice::from_ref(&app));
        assert!(models.take(said(Some(true))).is_empty());
        assert_eq!(models.take(said(Some(false))), std::slice::from_ref(&app));
        assert_eq!(models.take(HashMap::new()), [app]);
        assert_eq!(models.of("team", "chat"), None);
    }
}
