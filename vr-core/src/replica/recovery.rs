//! Coming back: what a replica is when it starts, decided from what storage holds.

use crate::{
    model::{
        certificate::CertificateHash,
        mutants::Mutant,
        time::Now,
        types::{OpNumber, RequestId},
    },
    ports::storage::Anchor,
    replica::{Boot, Replica},
    state::{
        admitted::Admitted,
        clock::LogClock,
        forwards::Forwards,
        log::Log,
        peers::Peers,
        prng::Prng,
        progress::{Progress, Writes},
        promise::Promise,
        reads::Reads,
        repair::Repair,
        routes::Routes,
        status::{Genesis, Status, ViewChange},
        suspicions::Suspicions,
        timers::{Timer, Timers},
    },
};

impl Replica {
    /// A replica with an intact log, or a blank one, or one whose log is incomplete.
    ///
    /// A backup of a view that had started goes on as a slow backup; whoever was primary leaves
    /// its view, because it may have said things that its disk does not remember; between two
    /// views the promise is repeated.
    ///
    /// # Panics
    /// If the identity is not a member of its own group.
    ///
    /// # Source
    /// VRR §4.3, second paragraph (state on disk); PROTOCOL.md "Recovery".
    #[must_use]
    pub fn new(now: Now, boot: Boot) -> Self {
        let Boot { config, identity, recovered, seed } = boot;
        let membership = identity.members;
        let index =
            membership.index_of(identity.replica).expect("the builder checked the membership");
        let repair = Repair::of(&recovered);
        let superblock = recovered.superblock.clone();
        let checkpoint = superblock.checkpoint;
        let base = Anchor { op_number: checkpoint.op_number, checksum: checkpoint.checksum };
        let log = match repair.holes() {
            None => Log::recovered(base, &recovered.headers),
            Some(holes) => Log::recovered(base, &holes.prefix()),
        };
        let certificate = superblock.certificate.as_ref();
        let certificate = certificate.map_or(CertificateHash::NONE, |it| it.to_hash());
        let mut prng = Prng::new(seed);
        // An answer to a question of an earlier life must not pass for one of this life.
        let questions = RequestId(prng.next() >> 1);
        let mut replica = Self {
            group: identity.group,
            me: identity.replica,
            index,
            certificate,
            view: superblock.view,
            commit_number: base.op_number,
            unbroken: false,
            status: Status::Blank(Genesis::default()),
            clock: LogClock::new(now, log.time()),
            log,
            promise: Promise::recovered(superblock),
            install: None,
            repair,
            peers: Peers::new(membership.len(), config.ping_interval.saturating_mul(2)),
            suspicions: Suspicions::new(membership.len()),
            failed_views: 0,
            admitted: Admitted::default(),
            forwards: Forwards::default(),
            routes: Routes::default(),
            reads: Reads::default(),
            progress: Progress::new(base.op_number),
            timers: Timers::default(),
            prng,
            writes: Writes::default(),
            questions,
            out: std::collections::VecDeque::new(),
            ignored: 0,
            stopped: false,
            membership,
            config,
        };
        replica.forget_damage(now, &recovered);
        replica.arm_scrub(now);
        replica.rejoin(now);
        replica
    }

    /// The first step after a start.
    fn rejoin(&mut self, now: Now) {
        if self.certificate().is_none() {
            self.begin_genesis(now);
        } else if self.is_incomplete() {
            self.begin_repair(now);
        } else if self.is_primary()
            && self.promise.log_view() == self.view
            && self.mutant(Mutant::RestartedPrimaryResumes)
        {
            self.become_primary(now, OpNumber::ZERO);
        } else if self.is_primary() {
            self.enter_view(now, self.view.next(), false);
        } else if self.promise.log_view() == self.view {
            self.become_backup(now, OpNumber::ZERO);
        } else {
            self.status = Status::ViewChange(ViewChange {
                say_due: true,
                nonce: self.prng.nonce(),
                ..ViewChange::default()
            });
            self.arm_view_change(now);
            self.timers.arm(Timer::Ping, now.monotonic + self.config.ping_interval);
        }
    }

    /// The log, which had holes, is whole again. Meanwhile this replica may have promised to other
    /// views.
    pub(in crate::replica) fn rejoin_whole(&mut self, now: Now) {
        if self.promise.log_view() == self.view && !self.is_primary() {
            self.become_backup(now, OpNumber::ZERO);
        } else if self.promise.log_view() == self.view {
            self.enter_view(now, self.view.next(), false);
        } else if let Status::ViewChange(change) = &mut self.status {
            change.say_due = true;
            self.arm_view_change(now);
        }
    }
}
