//! `Reconciling` and `Stalled` of either kind, as kstatus (Flux and others) reads them, and what `Ready` says of both. Pure.
//! <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>
//!
//! Of the two at most one is True: whoever reads them takes the first that is.

use crate::{
    claims,
    conditions::Finding,
    crd::reason::{self, condition},
    pod_trouble::Trouble,
    problem::Problem,
    requeue::Class,
    rollout::{Progress, Rollout},
};

/// What keeps a pod from running, and only a person can mend: the kubelet tries the same again for ever.
const FOR_PEOPLE: [&str; 3] = ["InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"];

/// What both are decided from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The object is to be left alone.
    pub paused: bool,
    /// What stands in the way of the spec.
    pub problems: &'a [Problem],
    /// How far the pods are. None: there are none to roll.
    pub rollout: Option<&'a Rollout>,
    /// What keeps a pod that is not in service from running.
    pub trouble: Option<&'a Trouble>,
    /// That pod never ran, and has had `spec.progressDeadlineSeconds` for it.
    pub overdue: bool,
    /// A pod is still to come that is wanted: it is not made yet, or has not answered since it was.
    pub to_come: bool,
    /// What a pod met that runs and is not in service: the reason of its verdict, and a sentence.
    pub unwell: Option<&'a (&'static str, String)>,
    /// Why the prober keeps new pods out, where an edit by a person lets them in: a reason, and a sentence.
    pub held: Option<(&'static str, &'a str)>,
}

impl Inputs<'_> {
    /// Both conditions.
    pub fn findings(&self) -> [(&'static str, Finding); 2] {
        let stalled = self.stalled();
        let nothing = || match self.trouble {
            Some(trouble) => {
                let message = "its pods may yet come up; what is wrong with them is told by Ready and Healthy";
                Finding::new(false, &trouble.reason, message)
            }
            None => match Problem::contested(self.problems) {
                Some(contested) => Finding::new(false, contested.reason, contested.message),
                None => Finding::new(false, reason::AVAILABLE, "nothing stands in the way"),
            },
        };
        [(condition::RECONCILING, self.reconciling(stalled.as_ref())), (condition::STALLED, stalled.unwrap_or_else(nothing))]
    }

    /// What a client meets, with what stands in the way of the spec in its message. Of what is left alone that is said first.
    pub fn ready(&self, met: Finding) -> Finding {
        let met = match self.aside(&met) {
            Some(aside) => Finding { message: format!("{}; {aside}", met.message), ..met },
            None => met,
        };
        if self.paused {
            let message = format!("left alone, as the annotation mcpfleet.dev/paused says; {}", met.message);
            return Finding { reason: reason::PAUSED.into(), message, ..met };
        }
        met
    }

    /// What stands in the way of the spec, and is not said yet.
    fn aside(&self, met: &Finding) -> Option<String> {
        let unsaid = |is_told: fn(Class) -> bool| {
            let unsaid = |problem: &&Problem| is_told(problem.class) && !met.message.contains(&problem.message);
            Problem::all(self.problems.iter().filter(unsaid)).map(|problem| problem.message)
        };
        let by_rollout = |stalled: &Finding| stalled.reason != met.reason && !met.message.contains(&stalled.message);
        let stalled = match self.stalled() {
            Some(_) if self.problems.iter().any(|problem| problem.class.is_obstacle()) => unsaid(Class::is_obstacle),
            stalled => stalled.filter(by_rollout).map(|stalled| stalled.message),
        };
        stalled.or_else(|| unsaid(|class| class == Class::Contested))
    }

    /// What a person, or another object, must do something about. None: nothing.
    pub fn stalled(&self) -> Option<Finding> {
        if self.paused {
            return None;
        }
        if let Some(obstacle) = Problem::obstacle(self.problems) {
            return Some(Finding::new(true, obstacle.reason, obstacle.message));
        }
        let rollout = self.rollout?;
        if let Some((reason, message)) = &rollout.refused {
            return Some(Finding::new(true, reason, message));
        }
        let of_pod = |trouble: &Trouble| Finding::new(true, &trouble.reason, &trouble.message);
        let for_people = |trouble: &&Trouble| FOR_PEOPLE.contains(&trouble.reason.as_str()) || claims::is_missing(trouble);
        if let Some(trouble) = self.trouble.filter(for_people) {
            return Some(of_pod(trouble));
        }
        if self.is_done(rollout) {
            return None;
        }
        if let Some((reason, held)) = self.held {
            return Some(Finding::new(true, reason, held));
        }
        match &rollout.progress {
            Progress::Late(message) => {
                let late = || match self.unwell {
                    // That it is on its way is no reason why it is late.
                    Some((reason::STARTING, why)) => {
                        Finding::new(true, reason::PROGRESS_DEADLINE_EXCEEDED, format!("{message}; {why}"))
                    }
                    Some((reason, why)) => Finding::new(true, *reason, format!("{message}; {why}")),
                    None => Finding::new(true, reason::PROGRESS_DEADLINE_EXCEEDED, message),
                };
                Some(self.trouble.map_or_else(late, of_pod))
            }
            // A Deployment counts the time of a new template alone: not that of pods it was scaled up to.
            Progress::Done if self.overdue => self.trouble.map(of_pod),
            Progress::Done | Progress::UnderWay => None,
        }
    }

    /// Every pod of the spec is there, or was. A Deployment that was done once says so for ever, also of pods that it was scaled up to, or
    /// was switched on for, and that never ran.
    fn is_done(&self, rollout: &Rollout) -> bool {
        rollout.is_done() && !self.to_come && self.trouble.is_none_or(|trouble| trouble.ran)
    }

    fn reconciling(&self, stalled: Option<&Finding>) -> Finding {
        if self.paused {
            return Finding::new(false, reason::PAUSED, "the annotation mcpfleet.dev/paused leaves the object alone");
        }
        if let Some(stalled) = stalled {
            return Finding::new(false, &stalled.reason, "waiting for what Stalled says");
        }
        if let Some(problem) = Problem::transient(self.problems) {
            return Finding::new(true, problem.reason, problem.message);
        }
        let is_done = self.rollout.is_none_or(|rollout| self.is_done(rollout));
        // It is no obstacle: whoever changes what we write may have to, and the pods are there.
        if let Some(contested) = Problem::contested(self.problems).filter(|_| is_done) {
            return Finding::new(false, contested.reason, contested.message);
        }
        match self.rollout {
            Some(_) if !is_done => {
                let pods = "pods are being made or replaced";
                match (self.trouble, self.unwell) {
                    (Some(trouble), _) => Finding::new(true, &trouble.reason, format!("{pods}; {}", trouble.message)),
                    (None, Some((_, why))) => Finding::new(true, reason::ROLLING_OUT, format!("{pods}; {why}")),
                    (None, None) => Finding::new(true, reason::ROLLING_OUT, pods),
                }
            }
            Some(_) => Finding::new(false, reason::AVAILABLE, "the pods are those of the spec"),
            None => Finding::new(false, reason::AVAILABLE, "there is nothing to roll out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{conditions::Status, fixtures};

    fn rollout(progress: Progress) -> Rollout {
        Rollout { progress, refused: None, replicas: 1, ready: 1 }
    }

    /// What crashes has run.
    fn trouble(reason: &str) -> Trouble {
        Trouble { ran: reason == "CrashLoopBackOff", ..fixtures::trouble(reason, "pod a: why") }
    }

    fn problem(class: Class) -> Vec<Problem> {
        vec![Problem { class, reason: reason::APPLY_FAILED, message: "refused".into() }]
    }

    /// (Reconciling's reason where it is True, Stalled's where it is).
    fn told(inputs: &Inputs<'_>) -> (Option<String>, Option<String>) {
        let [(_, reconciling), (_, stalled)] = inputs.findings();
        assert!(!reconciling.message.is_empty() && !stalled.message.is_empty());
        let reason = |finding: Finding| (finding.status == Status::True).then_some(finding.reason);
        (reason(reconciling), reason(stalled))
    }

    const REST: Inputs<'static> = Inputs {
        paused: false,
        problems: &[],
        rollout: None,
        trouble: None,
        overdue: false,
        to_come: false,
        unwell: None,
        held: None,
    };

    #[rstest]
    #[case::done(Progress::Done, None, None, (None, None))]
    #[case::under_way(Progress::UnderWay, None, None, (Some("RollingOut"), None))]
    #[case::a_pod_that_may_come_up_yet(Progress::UnderWay, Some("ImagePullBackOff"), None, (Some("ImagePullBackOff"), None))]
    #[case::a_pod_that_cannot(Progress::UnderWay, Some("InvalidImageName"), None, (None, Some("InvalidImageName")))]
    #[case::late(Progress::Late("late".into()), None, None, (None, Some("ProgressDeadlineExceeded")))]
    #[case::late_by_a_pod(Progress::Late("late".into()), Some("CrashLoopBackOff"), None, (None, Some("CrashLoopBackOff")))]
    #[case::held_by_the_contract(Progress::UnderWay, None, Some("other tools"), (None, Some("ToolsChanged")))]
    #[case::a_crash_after_the_rollout(Progress::Done, Some("CrashLoopBackOff"), None, (None, None))]
    #[case::a_pod_that_it_was_scaled_up_to(Progress::Done, Some("ImagePullBackOff"), None, (Some("ImagePullBackOff"), None))]
    #[case::a_secret_that_went_after_the_rollout(
        Progress::Done, Some("CreateContainerConfigError"), None, (None, Some("CreateContainerConfigError")))]
    fn a_rollout_is_told(
        #[case] progress: Progress,
        #[case] reason: Option<&str>,
        #[case] held: Option<&str>,
        #[case] expected: (Option<&str>, Option<&str>),
    ) {
        let (rollout, trouble) = (rollout(progress), reason.map(trouble));
        let held = held.map(|held| (reason::TOOLS_CHANGED, held));
        let inputs = Inputs { rollout: Some(&rollout), trouble: trouble.as_ref(), held, ..REST };
        let (reconciling, stalled) = told(&inputs);
        assert_eq!((reconciling.as_deref(), stalled.as_deref()), expected);
        assert_eq!(told(&Inputs { paused: true, ..inputs }), (None, None), "paused");
    }

    #[test]
    fn a_claim_that_somebody_has_to_make_stalls() {
        let said = "pod a: Unschedulable: 0/1 nodes are available: persistentvolumeclaim \"own\" not found";
        let (rollout, waits) = (rollout(Progress::UnderWay), fixtures::trouble(reason::UNSCHEDULABLE, said));
        let inputs = Inputs { rollout: Some(&rollout), trouble: Some(&waits), ..REST };
        assert_eq!(told(&inputs), (None, Some("Unschedulable".into())));
    }

    #[test]
    fn a_version_that_does_not_answer_is_told_while_it_rolls_out_and_when_it_is_late() {
        let unwell = ("ConnectionFailed", "pod a: connection refused".to_owned());
        let mut rollout = rollout(Progress::UnderWay);
        let [(_, reconciling), _] = Inputs { rollout: Some(&rollout), unwell: Some(&unwell), ..REST }.findings();
        assert_eq!((&*reconciling.reason, reconciling.message.ends_with("; pod a: connection refused")), ("RollingOut", true));
        rollout.progress = Progress::Late("timed out".into());
        let stalled = Inputs { rollout: Some(&rollout), unwell: Some(&unwell), ..REST }.stalled().expect("it stalls");
        assert_eq!((&*stalled.reason, &*stalled.message), ("ConnectionFailed", "timed out; pod a: connection refused"));
        let installs = (reason::STARTING, "pod a: its init container install is running".to_owned());
        let stalled = Inputs { rollout: Some(&rollout), unwell: Some(&installs), ..REST }.stalled().expect("it stalls");
        let why = "timed out; pod a: its init container install is running";
        assert_eq!((&*stalled.reason, &*stalled.message), ("ProgressDeadlineExceeded", why));
    }

    #[test]
    fn a_pod_that_is_to_come_is_work_under_way_however_done_the_deployment_is() {
        let rollout = rollout(Progress::Done);
        let inputs = Inputs { rollout: Some(&rollout), to_come: true, ..REST };
        assert_eq!(told(&inputs), (Some("RollingOut".into()), None));
    }

    #[test]
    fn what_others_change_as_we_write_it_is_told_and_no_obstacle() {
        let (done, under_way) = (rollout(Progress::Done), rollout(Progress::UnderWay));
        let problems = problem(Class::Contested);
        let inputs = Inputs { problems: &problems, rollout: Some(&done), ..REST };
        for (_, finding) in inputs.findings() {
            assert_eq!((finding.status, &*finding.reason, &*finding.message), (Status::False, "ApplyFailed", "refused"));
        }
        assert_eq!(told(&Inputs { rollout: Some(&under_way), ..inputs }), (Some("RollingOut".into()), None));
    }

    #[test]
    fn ready_says_each_sentence_once_and_of_what_is_left_alone_that_first() {
        let of = |class, message: &str| Problem { class, reason: reason::SECRET_NOT_FOUND, message: message.into() };
        let problems = [of(Class::Waiting, "one"), of(Class::Contested, "three"), of(Class::Rejected, "two")];
        let inputs = Inputs { problems: &problems, ..REST };
        let ready = |inputs: &Inputs<'_>, reason: &str, message: &str| {
            let told = inputs.ready(Finding::new(true, reason, message));
            format!("{}: {}", told.reason, told.message)
        };
        assert_eq!(ready(&inputs, reason::AVAILABLE, "serves"), "Available: serves; one; two");
        assert_eq!(ready(&inputs, reason::SECRET_NOT_FOUND, "two"), "SecretNotFound: two; one");
        assert_eq!(ready(&inputs, reason::SECRET_NOT_FOUND, "one; two"), "SecretNotFound: one; two; three");
        let contested = Inputs { problems: &problems[1..2], ..REST };
        assert_eq!(ready(&contested, reason::AVAILABLE, "serves"), "Available: serves; three");
        let paused = "Paused: left alone, as the annotation mcpfleet.dev/paused says; serves; three";
        assert_eq!(ready(&Inputs { paused: true, ..inputs }, reason::AVAILABLE, "serves"), paused);
        let rollout = rollout(Progress::UnderWay);
        let held = Some((reason::FORCED, "held Open, and new pods out"));
        let held = Inputs { rollout: Some(&rollout), held, ..REST };
        assert_eq!(ready(&held, reason::FORCED, "held Open"), "Forced: held Open");
        assert_eq!(ready(&held, reason::AVAILABLE, "serves"), "Available: serves; held Open, and new pods out");
    }

    #[test]
    fn pods_that_kubernetes_refuses_stall() {
        let refused = Some(("FailedCreate".to_owned(), "failed quota".to_owned()));
        let rollout = Rollout { refused, ..rollout(Progress::UnderWay) };
        let inputs = Inputs { rollout: Some(&rollout), ..REST };
        assert_eq!(told(&inputs), (None, Some("FailedCreate".into())));
    }

    #[rstest]
    #[case(Class::Transient, (Some("ApplyFailed"), None))]
    #[case(Class::Away, (Some("ApplyFailed"), None))]
    #[case(Class::Waiting, (None, Some("ApplyFailed")))]
    #[case(Class::Rejected, (None, Some("ApplyFailed")))]
    #[case(Class::Contested, (None, None))]
    fn what_must_be_mended_stalls_and_what_is_tried_again_does_not(
        #[case] class: Class,
        #[case] expected: (Option<&str>, Option<&str>),
    ) {
        let problems = problem(class);
        let (reconciling, stalled) = told(&Inputs { problems: &problems, ..REST });
        assert_eq!((reconciling.as_deref(), stalled.as_deref()), expected);
    }
}
