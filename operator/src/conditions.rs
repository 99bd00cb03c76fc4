//! Conditions as pure data: setting one keeps its transition time unless its status changes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

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

/// The conditions in the order given, each with the transition time that it had if its status is the same.
pub fn merge(
    before: &[Condition],
    findings: Vec<(&'static str, Finding)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    findings
        .into_iter()
        .map(|(type_, finding)| {
            let last_transition_time = before
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == finding.status.as_str())
                .map_or(Time(now), |condition| condition.last_transition_time.clone());
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
}
