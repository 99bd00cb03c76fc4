//! What stands in the way of a spec, of either kind: its class, its reason, its sentence. Pure.

use kube::ResourceExt;

use crate::{crd::reason, inputs, names, requeue::Class, ssa};

/// Why a pass could not reach the spec, for the status and the requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What has to happen.
    pub class: Class,
    /// A documented reason.
    pub reason: &'static str,
    /// What to change, for people.
    pub message: String,
}

impl Problem {
    /// All of them as one: the first one's reason, every sentence once.
    pub fn all<'a>(problems: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut problems = problems.into_iter();
        let mut all = problems.next()?.clone();
        for problem in problems.filter(|problem| !problem.message.is_empty()) {
            if !all.message.contains(&problem.message) {
                all.message = format!("{}; {}", all.message, problem.message);
            }
        }
        Some(all)
    }

    /// What a person, or another object, must do something about. All of it.
    pub fn obstacle(problems: &[Self]) -> Option<Self> {
        Self::all(problems.iter().filter(|problem| problem.class.is_obstacle()))
    }

    /// What does not stay as we write it. All of it.
    pub fn contested(problems: &[Self]) -> Option<Self> {
        Self::all(problems.iter().filter(|problem| problem.class == Class::Contested))
    }

    /// What will be tried again soon. All of it.
    pub fn transient(problems: &[Self]) -> Option<Self> {
        Self::all(problems.iter().filter(|problem| problem.class.is_transient()))
    }

    /// The class that decides when the object is looked at again: the soonest.
    pub fn class(problems: &[Self]) -> Option<Class> {
        Class::soonest(problems.iter().map(|problem| problem.class))
    }

    /// What the API server did not let us read.
    pub fn unreadable(error: &inputs::Error) -> Self {
        let class = if error.is_away() { Class::Away } else { Class::Transient };
        Self { class, reason: reason::APPLY_FAILED, message: error.to_string() }
    }

    /// The annotation that pauses says neither `true` nor `false`: whoever wrote it may believe that the object is left alone.
    pub fn unclear_pause(object: &impl ResourceExt) -> Option<Self> {
        let said = object.annotations().get(names::ANNOTATION_PAUSED)?;
        let is_clear = ["true", "false"].iter().any(|value| said.eq_ignore_ascii_case(value));
        let (annotation, said) = (names::ANNOTATION_PAUSED, said.chars().take(32).collect::<String>());
        (!is_clear).then(|| Self {
            class: Class::Waiting,
            reason: reason::INVALID_SPEC,
            message: format!("the annotation {annotation} is {said:?}, which pauses nothing: set it to \"true\", or remove it"),
        })
    }

    /// No client can find its pods, and nobody said why.
    pub fn no_service() -> Self {
        Self { class: Class::Transient, reason: reason::STARTING, message: "its Service is not there: no client finds it".into() }
    }

    /// What could not be applied.
    pub fn not_applied(error: &ssa::Error) -> Self {
        let (class, reason) = match error {
            ssa::Error::NameConflict(_) | ssa::Error::ForeignData(..) => (Class::Waiting, reason::NAME_CONFLICT),
            ssa::Error::DataGoing(_) => (Class::Waiting, reason::CLAIM_TERMINATING),
            ssa::Error::OfPredecessor(_) | ssa::Error::OwnerGoing(..) => (Class::Transient, reason::PREDECESSOR_GOING),
            ssa::Error::Contested { undone: true, .. } => (Class::Waiting, reason::CONTESTED),
            ssa::Error::Contested { undone: false, .. } => (Class::Contested, reason::CONTESTED),
            ssa::Error::Dropped(..) => (Class::Waiting, reason::FIELD_DROPPED),
            error if error.is_away() => (Class::Away, reason::APPLY_FAILED),
            error if error.is_transient() => (Class::Transient, reason::APPLY_FAILED),
            _ => (Class::Waiting, reason::APPLY_FAILED),
        };
        Self { class, reason, message: error.describe() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{child::Key, claims::OtherClass, contests::Contested, fixtures};

    fn problem(class: Class, message: &str) -> Problem {
        Problem { class, reason: reason::APPLY_FAILED, message: message.into() }
    }

    #[test]
    fn every_sentence_is_told_once() {
        let problems = [problem(Class::Waiting, "a"), problem(Class::Rejected, "b"), problem(Class::Waiting, "a")];
        assert_eq!(Problem::all(&problems).expect("some").message, "a; b");
        assert_eq!(Problem::all(&[]), None);
    }

    #[test]
    fn a_pause_that_is_none_is_told() {
        let told = |said: Option<&str>| {
            let server = fixtures::server(|server| {
                let annotations = said.map(|said| (names::ANNOTATION_PAUSED.to_owned(), said.to_owned()));
                server.metadata.annotations = Some(annotations.into_iter().collect());
            });
            Problem::unclear_pause(&server).map(|problem| problem.message)
        };
        for clear in [None, Some("true"), Some("True"), Some("false")] {
            assert_eq!(told(clear), None, "{clear:?}");
        }
        let sentence = r#"the annotation mcpfleet.dev/paused is "yes", which pauses nothing: set it to "true", or remove it"#;
        assert_eq!(told(Some("yes")).as_deref(), Some(sentence));
        assert!(told(Some("")).is_some() && told(Some("1")).is_some());
    }

    #[test]
    fn one_that_says_nothing_adds_nothing() {
        let problems = [problem(Class::Waiting, "a"), problem(Class::Waiting, ""), problem(Class::Waiting, "b")];
        assert_eq!(Problem::all(&problems).expect("some").message, "a; b");
    }

    #[test]
    fn what_could_not_be_applied_waits_for_whoever_can_mend_it() {
        let key = || Key::new("Service", "team", "x");
        let of = |error: &ssa::Error| {
            let Problem { class, reason, message } = Problem::not_applied(error);
            assert_eq!(message, error.describe());
            (class, reason)
        };
        let contested = |undone| ssa::Error::contested(&key(), Contested { what: String::new(), undone });
        assert_eq!(of(&ssa::Error::NameConflict(key())), (Class::Waiting, reason::NAME_CONFLICT));
        assert_eq!(of(&ssa::Error::ForeignData(key(), String::new())), (Class::Waiting, reason::NAME_CONFLICT));
        assert_eq!(of(&ssa::Error::DataGoing(key())), (Class::Waiting, reason::CLAIM_TERMINATING));
        let other = OtherClass { is: "a".into(), wanted: "b".into(), way_out: "c".into() };
        assert_eq!(of(&ssa::Error::OtherClass(key(), Box::new(other))), (Class::Waiting, reason::APPLY_FAILED));
        assert_eq!(of(&ssa::Error::OfPredecessor(key())), (Class::Transient, reason::PREDECESSOR_GOING));
        assert_eq!(of(&contested(true)), (Class::Waiting, reason::CONTESTED));
        assert_eq!(of(&contested(false)), (Class::Contested, reason::CONTESTED));
        assert_eq!(of(&ssa::Error::Dropped(key(), vec!["spec.a".into()])), (Class::Waiting, reason::FIELD_DROPPED));
        let timeout = ssa::Error::Timeout { verb: "apply", kind: "Service".into(), name: "x".into() };
        assert_eq!(of(&timeout), (Class::Away, reason::APPLY_FAILED));
        let request = |source| {
            let source = Box::new(source);
            of(&ssa::Error::Request { verb: "apply", kind: "Service".into(), name: "x".into(), source })
        };
        let refused = |code: u16, message: &str| {
            let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "code": code, "message": message});
            request(kube::Error::Api(serde_json::from_value(status).expect("a status")))
        };
        assert_eq!(refused(422, "invalid"), (Class::Waiting, reason::APPLY_FAILED));
        for (code, message) in [(500, "failed calling webhook"), (409, "conflict"), (429, "too many requests")] {
            assert_eq!(refused(code, message), (Class::Transient, reason::APPLY_FAILED), "{message}");
        }
        for (code, message) in [(500, "etcdserver: leader changed"), (503, "unavailable"), (504, "timeout")] {
            assert_eq!(refused(code, message), (Class::Away, reason::APPLY_FAILED), "{message}");
        }
        assert_eq!(request(kube::Error::Service("connection refused".into())), (Class::Away, reason::APPLY_FAILED));
    }

    #[test]
    fn what_is_tried_again_by_itself_is_no_obstacle() {
        let problems = [problem(Class::Transient, "a"), problem(Class::Contested, "b"), problem(Class::Waiting, "c")];
        assert_eq!(Problem::obstacle(&problems).expect("one").message, "c");
        assert_eq!(Problem::transient(&problems).expect("one").message, "a");
        assert_eq!(Problem::obstacle(&problems[..2]), None);
        assert_eq!(Problem::transient(&[problem(Class::Away, "d")]).expect("one").message, "d");
    }

    #[test]
    fn the_soonest_decides_when_to_look_again() {
        let of = |classes: &[Class]| Problem::class(&classes.iter().map(|class| problem(*class, "")).collect::<Vec<_>>());
        assert_eq!(of(&[Class::Rejected, Class::Transient, Class::Waiting]), Some(Class::Transient));
        assert_eq!(of(&[Class::Transient, Class::Away]), Some(Class::Away));
        assert_eq!(of(&[Class::Rejected, Class::Contested]), Some(Class::Contested));
        assert_eq!(of(&[]), None);
    }
}
