//! Conditions as pure data: setting one keeps its transition time unless its status changes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use mcp_wire::mask::Mask;

/// The status of a condition. <https://kubernetes.io/docs/reference/using-api/api-concepts/>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl Status {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Words that Kubernetes says in turn of one and the same: that it waits before it tries again, and what it meets when it tries. Who waits
/// is told of, and stays so: each change would be a write, and an Event.
const IN_TURN: [(&str, &str); 2] = [("ImagePullBackOff", "ErrImagePull"), ("CrashLoopBackOff", "RunContainerError")];

/// What is to be said about one condition type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub status: Status,
    /// A documented reason (`crd::reason`).
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(status: impl Into<Status>, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: status.into(), reason: reason.into(), message: message.into() }
    }
}

impl Finding {
    /// What a condition says.
    pub fn of(condition: &Condition) -> Self {
        let status = match condition.status.as_str() {
            "True" => Status::True,
            "False" => Status::False,
            _ => Status::Unknown,
        };
        Self::new(status, &condition.reason, &condition.message)
    }
}

/// The conditions in the order given, each with the transition time that it had if its status is the same, and with its words of before
/// if the new ones say the same of the same pod in the other word for it.
pub fn merge(
    before: &[Condition],
    findings: Vec<(&'static str, Finding)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|(type_, finding)| {
            let told = find(before, type_).filter(|told| told.status == finding.status.as_str());
            let last_transition_time = told.map_or(Time(now), |told| told.last_transition_time.clone());
            let finding = told.filter(|told| is_in_turn(told, &finding)).map_or(finding, Finding::of);
            Condition {
                type_: type_.into(),
                status: finding.status.as_str().into(),
                reason: finding.reason,
                message: finding.message,
                observed_generation: generation,
                last_transition_time,
            }
        })
        .collect()
}

/// The same conditions, with each sentence as `mask` leaves it.
pub fn masked(conditions: Vec<Condition>, mask: &Mask) -> Vec<Condition> {
    conditions.into_iter().map(|told| Condition { message: mask.apply(told.message), ..told }).collect()
}

/// Whether it is what was said, of the same pod, in the other word for it.
fn is_in_turn(told: &Condition, finding: &Finding) -> bool {
    IN_TURN.contains(&(&*told.reason, &*finding.reason))
        && told.message.split(&*told.reason).next() == finding.message.split(&*finding.reason).next()
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let finding = |status, reason: &str| vec![("Ready", Finding::new(status, reason, ""))];
        let first = merge(&[], finding(Status::False, "Starting"), Some(1), at(10));
        let second = merge(&first, finding(Status::False, "Timeout"), Some(2), at(20));
        let third = merge(&second, finding(Status::True, "Available"), Some(2), at(30));
        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].reason, "Timeout");
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn one_that_waits_stays_so_while_the_same_pod_tries_again() {
        let say = |before: &[Condition], status, reason: &str, message: &str| {
            merge(before, vec![("Ready", Finding::new(status, reason, message))], Some(1), at(0))
        };
        let waits = say(&[], Status::False, "ImagePullBackOff", "pod x: ImagePullBackOff: no such tag");
        let tries = say(&waits, Status::False, "ErrImagePull", "pod x: ErrImagePull: no such tag");
        assert_eq!((&*tries[0].reason, &*tries[0].message), ("ImagePullBackOff", "pod x: ImagePullBackOff: no such tag"));
        for (status, reason, message) in [
            (Status::False, "ErrImagePull", "pod y: ErrImagePull: no such tag"),
            (Status::False, "RunContainerError", "pod x: RunContainerError: no"),
            (Status::True, "ErrImagePull", "pod x: ErrImagePull: no such tag"),
        ] {
            assert_eq!(say(&waits, status, reason, message)[0].reason, reason, "{message}");
        }
        let first = say(&[], Status::False, "ErrImagePull", "pod x: ErrImagePull: no such tag");
        assert_eq!(first[0].reason, "ErrImagePull", "nobody waits yet");
    }
}
