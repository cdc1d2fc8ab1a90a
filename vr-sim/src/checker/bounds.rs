//! O11: nothing that grows with what others do outgrows the limit that the configuration names.

use vr_core::{model::types::ReplicaId, replica::io::Queue};

use crate::checker::{Verdict, Violation};

/// How often the limit fits into what a replica may hold of this: its log may be twice as long where
/// it came to a view with one that begins before those of the others, until it holds a later
/// checkpoint.
fn share(limit: &str) -> u64 {
    if matches!(limit, "log_ops_max" | "log_bytes_max") { 2 } else { 1 }
}

/// Compares what `replica` holds with what it may hold.
///
/// # Errors
/// When one of the queues is longer than its limit.
pub fn check(replica: ReplicaId, queues: &[Queue]) -> Verdict {
    let outgrown = |queue: &&Queue| queue.used > share(queue.limit).saturating_mul(queue.used_max);
    match queues.iter().find(outgrown) {
        None => Ok(()),
        Some(Queue { limit, used, used_max }) => Err(Violation::new(
            "O11",
            "every queue keeps within its limit",
            format!("r{replica} holds {used} of what {limit} limits to {used_max}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_no_violation_and_an_overfull_one_is() {
        let queue = |used| Queue { limit: "reads_max", used, used_max: 4 };
        assert_eq!(check(ReplicaId(1), &[queue(0), queue(4)]), Ok(()));
        let violation = check(ReplicaId(1), &[queue(4), queue(5)]).unwrap_err();
        assert_eq!(violation.oracle, "O11");
        assert!(violation.found.contains("reads_max"), "{violation}");
    }
}
