//! Where clients find a server. Pure.
//!
//! The path is the one at which the pods in service answer, and not yet the one of an edit whose pods have still to come in.

use url::Url;

use super::validate::{Source, ValidatedServer};
use crate::probe::{PodHealth, ServerHealth};

/// The URL. `told` is what was told before.
pub fn of(valid: &ValidatedServer, told: Option<&str>, health: Option<&ServerHealth>) -> String {
    match &valid.source {
        Source::Remote(remote) => remote.url.to_string(),
        Source::Container(container) => {
            let told = told.and_then(|told| Url::parse(told).ok());
            let path = path(&container.source.path, told.as_ref().map(Url::path), health.map(|health| &*health.pods));
            format!("http://{}{path}", valid.host(container))
        }
    }
}

/// Of the paths of the pods in service, or of all pods where none is, the one that was told; else the first. Without pods the spec's, and what
/// was told while nothing is known of them.
fn path<'a>(spec: &'a str, told: Option<&'a str>, pods: Option<&'a [PodHealth]>) -> &'a str {
    let Some(pods) = pods else { return told.unwrap_or(spec) };
    let any_serves = pods.iter().any(|pod| pod.in_service);
    let asked = pods.iter().filter(|pod| pod.in_service || !any_serves).filter_map(|pod| pod.asked.as_deref());
    let mut paths = asked.map(|asked| asked.path.as_str());
    paths.clone().find(|path| Some(*path) == told).or_else(|| paths.next()).unwrap_or(spec)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::*;
    use crate::probe::template::Template;

    fn pod(path: &str, in_service: bool) -> PodHealth {
        let asked = Template { port: 1, path: path.into(), tool_call: None, digest: None };
        PodHealth { in_service, asked: Some(Arc::new(asked)), ..PodHealth::default() }
    }

    #[rstest]
    #[case::at_first("/new", None, Some(vec![]), "/new")]
    #[case::of_an_edit_that_does_not_come_in("/new", Some("/old"), Some(vec![("/old", true), ("/new", false)]), "/old")]
    #[case::while_both_serve("/new", Some("/old"), Some(vec![("/new", true), ("/old", true)]), "/old")]
    #[case::once_the_new_ones_serve_alone("/new", Some("/old"), Some(vec![("/old", false), ("/new", true)]), "/new")]
    #[case::while_none_serves("/new", Some("/old"), Some(vec![("/new", false), ("/old", false)]), "/old")]
    #[case::when_the_old_ones_are_gone("/new", Some("/old"), Some(vec![("/new", false)]), "/new")]
    #[case::scaled_to_none("/new", Some("/old"), Some(vec![]), "/new")]
    #[case::after_a_restart("/new", Some("/old"), None, "/old")]
    fn the_path_is_the_one_at_which_pods_in_service_answer(
        #[case] spec: &str,
        #[case] told: Option<&str>,
        #[case] pods: Option<Vec<(&str, bool)>>,
        #[case] expected: &str,
    ) {
        let pods = pods.map(|pods| pods.into_iter().map(|(at, in_service)| pod(at, in_service)).collect::<Vec<_>>());
        assert_eq!(path(spec, told, pods.as_deref()), expected);
    }
}
