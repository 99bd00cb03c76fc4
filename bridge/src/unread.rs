//! Answers that wait to be read by the clients that asked. Each is bounded, and so are the calls in flight, but a call is over when its answer
//! is there: without a bound over all, clients that call and do not read would fill the memory.

use bytes::Bytes;
use metrics_text::IntGauge;

/// Bytes that may wait before further calls are refused.
const ROOM: i64 = 128 << 20;

/// Shorter answers are not counted: there are no more of them than connections.
const SHORT: usize = 64 << 10;

/// Counted for as long as any of it waits.
struct Counted {
    answer: Vec<u8>,
    gauge: IntGauge,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.sub(length(&self.answer));
    }
}

fn length(answer: &[u8]) -> i64 {
    i64::try_from(answer.len()).unwrap_or(i64::MAX)
}

/// An answer on its way to its client.
pub fn counted(answer: Vec<u8>, gauge: &IntGauge) -> Bytes {
    if answer.len() < SHORT {
        return Bytes::from(answer);
    }
    gauge.add(length(&answer));
    Bytes::from_owner(Counted { answer, gauge: gauge.clone() })
}

/// Whether there is no room for more.
pub fn is_full(gauge: &IntGauge) -> bool {
    gauge.get() >= ROOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_nobody_has_any_of_it() {
        let gauge = IntGauge::new("unread", "unread").unwrap();
        let short = counted(vec![0; SHORT - 1], &gauge);
        assert_eq!((short.len(), gauge.get()), (SHORT - 1, 0));
        let long = counted(vec![0; 1 << 20], &gauge);
        let rest = long.slice(10..);
        drop(long);
        assert_eq!(gauge.get(), 1 << 20);
        drop(rest);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn there_is_an_end_to_what_may_wait() {
        let gauge = IntGauge::new("unread", "unread").unwrap();
        gauge.set(ROOM - 1);
        assert!(!is_full(&gauge));
        let _more = counted(vec![0; SHORT], &gauge);
        assert!(is_full(&gauge));
    }
}
