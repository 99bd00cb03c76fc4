//! Which `Host` and `Origin` a request may carry: the rule of the door that all our programs share.

pub use http_server::host::{AllowedOrigin, HostPattern, host_allowed, origin_allowed};
