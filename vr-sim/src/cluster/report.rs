//! What a failed scenario prints: every replica in a line, what is pending, the end of the trace.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use vr_core::Members;

use crate::{
    cluster::{
        Cluster,
        client::{CallId, Service},
    },
    executor::lock,
    options::GroupOptions,
    trace::{
        About,
        event::Event,
        output::{TraceFile, write_trace},
    },
};

/// Lines of the trace in a report.
const TRACE_LINES: usize = 60;

/// The line above a group's trace.
pub(crate) fn about(options: &GroupOptions, members: &Members) -> About {
    let (replicas, durability) = (options.replicas, options.durability);
    About {
        title: format!("seed {}, {replicas} replicas, {durability:?}", options.seed),
        replicas: members.as_slice().iter().map(|member| member.id).collect(),
    }
}

impl<S: Service> Cluster<S> {
    /// Stops everything with the state of everything.
    pub(crate) fn fail(&self, why: &str) -> ! {
        self.record(Event::Failed(why.to_owned()));
        panic!("{why}\n{}", self.report());
    }

    /// Keeps the whole trace from now on, for [`write_trace`](Self::write_trace).
    pub fn keep_trace(&mut self) {
        let about = about(&self.options, &self.addresses);
        lock(&self.witness).trace.keep_all(about);
    }

    /// Keeps the whole trace from now on, and writes it to a file when the group is dropped, also
    /// when that is by a panic; [`write_trace`](Self::write_trace) says how.
    pub fn trace_to(&mut self, path: impl Into<PathBuf>) {
        self.keep_trace();
        self.trace_file = Some(TraceFile::new(path.into(), Arc::clone(&self.witness)));
    }

    /// Writes what is kept of the trace to a file: as a page for a browser if its name ends in
    /// `.html`, as text otherwise. That is everything since [`keep_trace`](Self::keep_trace), or
    /// [`GroupOptions::trace`]; without these, only the last events, and less of each.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_trace(&self, path: impl AsRef<Path>) -> io::Result<()> {
        write_trace(&lock(&self.witness).trace, path.as_ref())
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
