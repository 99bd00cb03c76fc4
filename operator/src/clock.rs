//! The only caller of the wall clock. Everything that decides takes `now` as an argument.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// The time now, cut to whole seconds: what Kubernetes keeps in a status, so that what we computed and what we read back are equal.
pub fn now() -> Timestamp {
    let exact = now_exact();
    Timestamp::from_second(exact.as_second()).unwrap_or(exact)
}

/// The time now, with fractions of a second, for logs and schedules.
#[allow(clippy::disallowed_methods, reason = "this file owns the wall clock")]
pub fn now_exact() -> Timestamp {
    Timestamp::now()
}

/// A timestamp as Kubernetes writes it.
pub const fn time(timestamp: Timestamp) -> Time {
    Time(timestamp)
}
