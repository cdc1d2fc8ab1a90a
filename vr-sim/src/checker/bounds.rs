//! O11: nothing that grows with what others do outgrows the limit that the configuration names.

use vr_core::{model::types::ReplicaId, replica::io::Queue};

use crate::checker::{Verdict, Violation};

/// Compares what `replica` holds with what it may hold.
///
/// # Errors
/// When one of the queues is longer than its limit.
pub fn check(replica: ReplicaId, queues: &[Queue]) -> Verdict {
    match queues.iter().find(|queue| queue.used > queue.used_max) {
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
