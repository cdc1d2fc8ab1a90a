//! What must hold of this replica's own state after every input; checked in debug builds.

use crate::{
    model::{durable::Trust, message::StatusKind},
    replica::Replica,
    state::status::{Genesis, Role, Status},
};

impl Replica {
    /// The list in the doc of [`Replica`], in the same order. A planted fault is left to the tests.
    pub(in crate::replica) fn assert_invariants(&self) {
        if !cfg!(debug_assertions) || self.stopped || !self.config.mutants().are_none() {
            return;
        }
        let op_number = self.log.op_number();
        assert!(self.commit_number <= op_number, "committed ops are in the log");
        assert!(self.progress.applied <= self.progress.ordered, "applied ops were ordered");
        assert!(self.progress.ordered <= self.commit_number, "ordered ops are committed");
        assert!(self.promise.log_view() <= self.promise.view(), "log view is at most the view");
        assert!(self.promise.view() <= self.view, "no promise beyond the view");
        assert!(self.log.durable_op() <= self.log.handed(), "durable entries were handed over");
        if self.status.kind() == StatusKind::Normal {
            assert!(self.promise.view() == self.view, "normal in a durable view only");
            assert!(self.promise.log_view() == self.view, "normal with the view's log only");
        }
        match &self.status {
            // The node stops as soon as that is durable, and never uses its log again.
            Status::Blank(Genesis { leaving: Some(_), .. }) => {}
            Status::Blank(_) => {
                assert!(op_number == self.log.base().op_number, "a blank replica has no log");
            }
            Status::Normal(Role::Primary(_)) => {
                assert!(self.is_primary(), "only the view's primary leads");
                assert!(self.unbroken, "a primary has not restarted since its view started");
            }
            Status::Normal(Role::Backup(_)) => {
                assert!(!self.is_primary(), "the view's primary does not follow");
            }
            Status::ViewChange(_) => {}
            Status::Recovering(_) => {
                assert!(
                    self.promise.durable().trust == Trust::Lost,
                    "an intact log is not recovered"
                );
                assert!(self.commit_number == self.log.base().op_number, "nothing is known");
            }
        }
    }
}
