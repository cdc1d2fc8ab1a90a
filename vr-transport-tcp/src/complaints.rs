//! What an operator should know and would otherwise have to guess; bounded, and not repeated.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tracing::warn;

/// How long the same complaint is not made again.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Complaints that nobody has read yet, and those that were made lately.
#[derive(Debug)]
pub(crate) struct Complaints {
    unread: VecDeque<String>,
    recent: VecDeque<(Instant, String)>,
    max: usize,
}

impl Complaints {
    pub(crate) fn new(max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        Self { unread: VecDeque::new(), recent: VecDeque::new(), max }
    }

    /// Keeps and logs `reason`, unless the same was said within half a minute.
    pub(crate) fn push(&mut self, now: Instant, reason: String) {
        self.recent.retain(|(told, _)| now.saturating_duration_since(*told) < REPEAT_INTERVAL);
        if self.recent.iter().any(|(_, told)| *told == reason) {
            return;
        }
        warn!(reason, "the transport complains");
        if self.recent.len() == self.max {
            self.recent.pop_front();
        }
        if self.unread.len() == self.max {
            self.unread.pop_front();
        }
        self.recent.push_back((now, reason.clone()));
        self.unread.push_back(reason);
    }

    /// What was not read before, newest last.
    pub(crate) fn take(&mut self) -> Vec<String> {
        self.unread.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_is_not_repeated_at_once() {
        let mut complaints = Complaints::new(8);
        let now = Instant::now();
        complaints.push(now, "a".into());
        complaints.push(now, "a".into());
        assert_eq!(complaints.take(), ["a"]);
        complaints.push(now, "a".into());
        assert_eq!(complaints.take(), Vec::<String>::new());
        complaints.push(now + REPEAT_INTERVAL, "a".into());
        assert_eq!(complaints.take(), ["a"]);
    }

    #[test]
    fn the_oldest_unread_complaint_goes_first() {
        let mut complaints = Complaints::new(2);
        for reason in ["a", "b", "c"] {
            complaints.push(Instant::now(), reason.into());
        }
        assert_eq!(complaints.take(), ["b", "c"]);
    }
}
