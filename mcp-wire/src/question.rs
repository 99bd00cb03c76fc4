//! What servers ask of their clients in the middle of a call, and the time that the answers may take.

use std::time::Duration;

/// A form or a page, for a person.
pub const ELICITATION: &str = "elicitation/create";
/// What a model would say, which a person may want to see before it goes.
pub const SAMPLING: &str = "sampling/createMessage";
/// The folders that a client works in.
pub const ROOTS: &str = "roots/list";

/// How long a client may think about a question. The time of the call that it is asked in stands still meanwhile.
pub const THINKING: Duration = Duration::from_mins(5);

/// Whether a client has to think about it. Everything else (`roots/list`, `ping`) its program answers by itself, and at once.
pub fn takes_time(method: &str) -> bool {
    matches!(method, ELICITATION | SAMPLING)
}
