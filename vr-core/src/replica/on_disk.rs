//! A state that outlived the process on the state machine's own disk: used, or not
//! (PROTOCOL.md "State on disk").

use crate::{
    execution::work::Work,
    model::{
        companion::{Persisted, StateOnDisk},
        types::OpNumber,
    },
    replica::{
        Replica,
        io::{Discarded, Event, Fatal, Output},
    },
    state::status::Status,
};

impl Replica {
    /// At the start: what was found on disk, if the state machine has one.
    ///
    /// In a group that is known it is proof that what it contains is committed, if the log has that.
    pub(in crate::replica) fn recall_state(&mut self, found: Option<StateOnDisk>) {
        let state = match found {
            None => return,
            Some(StateOnDisk::Empty) => None,
            Some(StateOnDisk::Unreadable) => {
                let reason = Discarded::Unreadable;
                self.out.push_back(Output::Event(Event::StateDiscarded { reason }));
                None
            }
            Some(StateOnDisk::At(state)) => Some(state),
        };
        self.progress.find(state);
        if self.certificate().is_none() {
            return;
        }
        self.tell_executor();
        let Some(state) = state else { return };
        if let Some(reason) = self.is_of_no_use(&state) {
            self.discard_state(reason);
        } else if self.log.checksum_of(state.op_number) == Some(state.checksum) {
            self.advance_commit(state.op_number);
        }
    }

    /// Decides what becomes of the state that was on disk, as soon as that can be known; false before,
    /// and then nothing is to be executed.
    pub(in crate::replica) fn settle_state(&mut self) -> bool {
        if self.progress.is_settled() {
            return true;
        }
        if matches!(self.status, Status::Blank(_)) {
            return false;
        }
        self.tell_executor();
        let Some(state) = self.progress.found() else { return true };
        if let Some(reason) = self.is_of_no_use(&state) {
            self.discard_state(reason);
            self.restore_base();
            return true;
        }
        if self.commit_number < state.op_number {
            return false;
        }
        self.resume_state(&state);
        !self.stopped
    }

    /// Whether the state that was on disk is as good as that of a checkpoint that came from others; if
    /// not, it is of no use any more.
    pub(in crate::replica) fn keeps_state(&mut self) -> bool {
        let Some(state) = self.progress.found() else { return false };
        let Some(reason) = self.is_of_no_use(&state) else { return true };
        let reason = Event::StateDiscarded { reason };
        self.out.push_back(Output::Event(reason));
        self.progress.forget_found();
        false
    }

    /// Tells the executor which group its state belongs to from now on, once.
    fn tell_executor(&mut self) {
        if self.progress.take_telling() {
            let certificate = self.certificate;
            self.out.push_back(Output::Execute(Work::Belong { certificate }));
        }
    }

    fn is_of_no_use(&self, state: &Persisted) -> Option<Discarded> {
        let ours = (self.group, self.certificate);
        let base = self.log.base().op_number;
        if (state.group, state.certificate) != ours {
            return Some(Discarded::OtherGroup);
        }
        let op_number = state.op_number;
        (op_number < base).then_some(Discarded::Behind { op_number, base })
    }

    /// The state on disk is of no use: execution begins with nothing, or with a checkpoint.
    fn discard_state(&mut self, reason: Discarded) {
        self.progress.forget_found();
        self.out.push_back(Output::Event(Event::StateDiscarded { reason }));
        self.out.push_back(Output::Execute(Work::Discard));
    }

    /// Lets the executor begin with the checkpoint that the log starts after, if there is one.
    fn restore_base(&mut self) {
        let checkpoint = self.checkpoints.held();
        if self.log.base().op_number > OpNumber::ZERO {
            self.progress.jump(checkpoint.op_number);
            self.out.push_back(Output::Execute(Work::Restore { checkpoint }));
        }
    }

    /// The log has come as far as the state on disk, which must be of the same history: execution goes
    /// on behind it.
    fn resume_state(&mut self, state: &Persisted) {
        let op_number = state.op_number;
        let theirs = self.log.checksum_of(op_number).unwrap_or_default();
        if theirs != state.checksum {
            let what = "another history in the state that was on disk";
            let (peer, ours) = (self.me, state.checksum);
            self.fatal(Fatal::Diverged { peer, op_number, what, ours, theirs });
            return;
        }
        let (ops_max, bytes_max) =
            (u64::from(self.config.checkpoint_ops), self.config.checkpoint_bytes);
        let mut next = self.checkpoints.due().max(self.log.base().op_number).next();
        while let Some(header) = self.log.header(next).filter(|_| next <= op_number) {
            // The next checkpoint is due where it is due for everybody else.
            let _due = self.checkpoints.is_due(header, ops_max, bytes_max);
            next = next.next();
        }
        self.progress.forget_found();
        self.progress.jump(op_number);
        self.out.push_back(Output::Event(Event::StateResumed { op_number }));
        self.out.push_back(Output::Execute(Work::Resume));
    }
}
