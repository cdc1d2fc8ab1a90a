//! What a failed scenario prints: every replica in a line, what is pending, the end of the trace.

use crate::{
    cluster::{
        Cluster,
        client::{CallId, Service},
    },
    executor::lock,
};

/// Lines of the trace in a report.
const TRACE_LINES: usize = 60;

impl<S: Service> Cluster<S> {
    /// Stops everything with the state of everything.
    pub(crate) fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}", self.report());
    }

    /// The state of everything, and the end of the trace.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("seed {}, time {}\n", self.options.seed, self.now());
        for member in &self.members {
            text.push_str(&self.describe(member.id));
            text.push('\n');
        }
        let pending: Vec<CallId> = self.pending();
        text.push_str(&format!("pending calls: {pending:?}\n"));
        text.push_str("the last events:\n");
        text.push_str(&lock(&self.witness).trace.tail(TRACE_LINES));
        text
    }

    fn describe(&self, replica: vr_core::ReplicaId) -> String {
        let paused = if self.executor.is_paused(replica.into()) { " (paused)" } else { "" };
        if let Some(why) = self.stop_reason(replica) {
            return format!("r{replica}: stopped: {why}");
        }
        let Some(s) = self.status_if_running(replica) else {
            return format!("r{replica}: down");
        };
        format!(
            "r{replica}{paused}: {:?} view {} (durable {}, log {}) op {} (durable {}) commit {} applied {}{}; {}",
            s.status,
            s.view,
            s.durable_view,
            s.log_view,
            s.op_number,
            s.durable_op_number,
            s.commit_number,
            s.applied,
            if s.serving { ", serves" } else { "" },
            self.explanation(replica),
        )
    }
}
