//! What the system says of a process: its memory, and the time that it spent.

use std::{fs, path::Path, time::Duration};

/// What a process has spent, all its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time on a processor.
    pub processor: Duration,
    /// How often a thread slept and was woken.
    pub wakes: u64,
}

impl Spent {
    /// What `pid` has spent so far; `None` where the system does not say.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let threads = tasks.filter_map(|task| Self::of_thread(&task.ok()?.path()));
        Some(threads.fold(Self::default(), |all, thread| all.and(&thread)))
    }

    fn of_thread(task: &Path) -> Option<Self> {
        let schedule = fs::read_to_string(task.join("schedstat")).ok()?;
        let processor = Duration::from_nanos(schedule.split(' ').next()?.parse().ok()?);
        let status = fs::read_to_string(task.join("status")).ok()?;
        let wakes = field(&status, "voluntary_ctxt_switches:")?.parse().ok()?;
        Some(Self { processor, wakes })
    }

    /// What both have spent.
    #[must_use]
    pub const fn and(self, other: &Self) -> Self {
        Self {
            processor: self.processor.saturating_add(other.processor),
            wakes: self.wakes.saturating_add(other.wakes),
        }
    }

    /// What was spent since `before`.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            processor: self.processor.saturating_sub(before.processor),
            wakes: self.wakes.saturating_sub(before.wakes),
        }
    }
}

/// The most memory that a process has held, in KiB; `None` where the system does not say.
#[must_use]
pub fn peak_rss_kib(pid: u32) -> Option<u64> {
    field_kib(pid, "VmHWM:")
}

/// The memory that a process holds now, in KiB; `None` where the system does not say.
#[must_use]
pub fn rss_kib(pid: u32) -> Option<u64> {
    field_kib(pid, "VmRSS:")
}

fn field_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, name)?.trim_end_matches("kB").trim().parse().ok()
}

/// The value of the line that begins with `name`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_spent_time() {
        let pid = std::process::id();
        assert!(rss_kib(pid).unwrap() > 0 && peak_rss_kib(pid).unwrap() > 0);
        assert!(Spent::of(pid).unwrap().processor > Duration::ZERO);
    }

    #[test]
    fn what_was_spent_is_summed_and_compared() {
        let spent = |millis, wakes| Spent { processor: Duration::from_millis(millis), wakes };
        assert_eq!(spent(10, 7).since(&spent(4, 2)), spent(6, 5));
        assert_eq!(spent(4, 2).and(&spent(6, 5)), spent(10, 7));
    }
}
