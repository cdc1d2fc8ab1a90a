//! Coming back: what a replica is when it starts, decided from what storage holds.

use core::time::Duration;

use crate::{
    model::{
        certificate::{CertificateHash, Inheritance},
        config::Config,
        durable::{CheckpointId, Durability, Identity, Superblock, Trust},
        mutants::Mutant,
        time::Now,
        types::{OpNumber, RequestId},
    },
    ports::storage::{Anchor, WriteBatch},
    replica::{
        Boot, Replica,
        io::{Event, Output},
    },
    state::{
        admitted::Admitted,
        checkpoints::Checkpoints,
        clock::LogClock,
        doubts::Doubts,
        forwards::Forwards,
        leases::Grants,
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

/// What a replica of this mode knows after a start: a disk that holds no log makes every start the
/// loss of it, and without a disk a start is a new life.
fn remembered(config: &Config, identity: &Identity, superblock: Superblock) -> Superblock {
    match superblock.durability {
        Durability::Full if config.mutant(Mutant::LossForgotten) => {
            Superblock { trust: Trust::Intact, ..superblock }
        }
        Durability::Full => superblock,
        Durability::ViewOnly if superblock.certificate.is_none() => superblock,
        Durability::ViewOnly => Superblock { trust: Trust::Lost, ..superblock },
        Durability::Diskless => Superblock::blank(identity),
    }
}

/// What a life before this one may have granted: as long as the disk knows of, or, if the disk has
/// forgotten it too, as long as it would have been with the limits of today.
fn forgotten_grants(now: Now, config: &Config, superblock: &Superblock) -> Grants {
    let lease = match config.mutant(Mutant::LeaseForgotten) {
        false => superblock.lease.max(config.lease),
        true => Duration::ZERO,
    };
    Grants::forgotten(now.monotonic, lease, config.clock_drift_ppm_max)
}

/// The checkpoint that the log starts after, and whether that is `genesis` because the disk names
/// one although it belongs to no group.
fn start_of_log(superblock: &Superblock, genesis: CheckpointId) -> (bool, CheckpointId) {
    let strayed = superblock.certificate.is_none() && superblock.checkpoint != genesis;
    (strayed, if strayed { genesis } else { superblock.checkpoint })
}

impl Replica {
    /// A replica as its storage remembers it: blank, without its log, with an incomplete one, or
    /// with an intact one.
    ///
    /// A replica whose log is lost asks the group for it; with an intact log, a backup of a view
    /// that had started goes on as a slow backup; whoever was primary leaves
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
        let Boot { config, identity, recovered, state, seed } = boot;
        let superblock = remembered(&config, &identity, recovered.superblock.clone());
        let genesis = Superblock::blank(&identity).checkpoint;
        let membership = identity.members;
        let index = membership.index_of(identity.replica);
        let (strayed, checkpoint) = start_of_log(&superblock, genesis);
        let base = Anchor::after(&checkpoint);
        let evidence = superblock.certificate.is_some() && superblock.trust == Trust::Intact;
        let repair = if evidence { Repair::of(&recovered) } else { Repair::default() };
        let headers = if evidence { recovered.headers.as_slice() } else { &[] };
        let log = match (superblock.durability, repair.holes()) {
            (Durability::ViewOnly | Durability::Diskless, _) => Log::volatile(base),
            (Durability::Full, Some(holes)) => Log::recovered(base, &holes.prefix()),
            (Durability::Full, None) => Log::recovered(base, headers),
        };
        let leftover = !strayed && !evidence && recovered.head().op_number > base.op_number;
        let certificate = superblock.certificate.as_ref();
        let certificate = certificate.map_or(CertificateHash::NONE, |it| it.to_hash());
        let grants = forgotten_grants(now, &config, &superblock);
        let mut prng = Prng::new(seed);
        // An answer to a question of an earlier life must not pass for one of this life.
        let questions = RequestId(prng.next() >> 1);
        let mut replica = Self {
            group: identity.group,
            me: identity.replica,
            index: index.expect("the builder checked the membership"),
            certificate,
            view: superblock.view,
            commit_number: base.op_number,
            unbroken: false,
            status: Status::Blank(Genesis::default()),
            doubts: Doubts::default(),
            clock: LogClock::new(now, log.time()),
            log,
            promise: Promise::recovered(superblock),
            install: None,
            checkpoints: Checkpoints::new(checkpoint),
            incoming: None,
            repair,
            peers: Peers::new(membership.len(), config.ping_interval.saturating_mul(2)),
            suspicions: Suspicions::new(membership.len()),
            failed_views: 0,
            admitted: Admitted::default(),
            forwards: Forwards::default(),
            routes: Routes::default(),
            reads: Reads::default(),
            grants,
            progress: Progress::new(base.op_number),
            timers: Timers::default(),
            prng,
            writes: Writes::default(),
            questions,
            out: std::collections::VecDeque::new(),
            drained: false,
            ignored: 0,
            stopped: false,
            membership,
            config,
        };
        replica.recall_execution(now, state, strayed);
        if leftover {
            replica.cut_leftover_log(now, base.op_number);
        }
        replica.forget_damage(now, &recovered);
        replica.arm_scrub(now);
        replica.recall_force();
        replica.rejoin(now);
        replica.stop_if_superseded();
        replica
    }

    /// What storage still has of a log that is no evidence makes room for the one to come; the
    /// superblock says already that it does not count.
    fn cut_leftover_log(&mut self, now: Now, base: OpNumber) {
        let id = self.writes.next(now.monotonic);
        let batch = WriteBatch { cut: Some(base), ..WriteBatch::default() };
        self.persist(id, batch);
    }

    /// Says again what may be missing, lest it be forgotten.
    fn recall_force(&mut self) {
        let forced = self.certificate().and_then(|certificate| certificate.forced().last());
        let Some(&Inheritance { epoch, op_number, .. }) = forced else { return };
        self.out.push_back(Output::Event(Event::RestartedByForce { epoch, op_number }));
    }

    /// The first step after a start.
    fn rejoin(&mut self, now: Now) {
        if self.certificate().is_none() {
            self.begin_genesis(now);
        } else if self.promise.durable().trust == Trust::Lost {
            self.begin_recovery(now);
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
