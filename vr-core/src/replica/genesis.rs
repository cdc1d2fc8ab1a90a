//! Founding a group without an operator, and never founding it twice (PROTOCOL.md "Genesis").
//!
//! ```text
//! replica 0            others
//!    | -- Hello ------> |   who are you?
//!    | <--- HelloOk --- |   disk d, no certificate         (all n-1 of them)
//!    | -- Found ------> |   these are the n disks
//!    | <--- FoundOk --- |   that is mine, and I am still blank   (all n-1)
//!    |  certificate durable: normal in view 0
//!    | <--- Hello ----- |
//!    | -- HelloOk ----> |   the certificate; whoever finds its own disk in it adopts it
//! ```

use crate::{
    model::{
        certificate::{Certificate, CertificateHash},
        config,
        durable::Durability,
        founding::{Found, FoundOk, Hello, HelloOk},
        message::Message,
        mutants::Mutant,
        time::Now,
        types::{Epoch, OpNumber, ReplicaSet, View},
    },
    replica::{
        Origin, Replica,
        ignored::Ignored,
        io::{Event, Output},
    },
    state::{
        status::{Genesis, Status},
        timers::Timer,
    },
};

/// Questions of one founding round before it starts over.
const ROUND_QUESTIONS_MAX: u32 = 4;

impl Replica {
    pub(in crate::replica) fn begin_genesis(&mut self, now: Now) {
        let nonce = self.prng.nonce();
        self.status = Status::Blank(Genesis { nonce, ..Genesis::default() });
        self.timers.arm(Timer::Hello, now.monotonic);
        self.found_if_agreed(now);
    }

    /// G2: asks everybody, with back-off; the founder repeats the round that it is in.
    pub(in crate::replica) fn on_hello_timer(&mut self, now: Now) {
        let fresh = self.prng.nonce();
        let disk = self.promise.wanted().disk;
        let Status::Blank(genesis) = &mut self.status else { return };
        if genesis.adopting || genesis.leaving.is_some() {
            return;
        }
        if genesis.agreed.is_some() && genesis.asked >= ROUND_QUESTIONS_MAX {
            genesis.agreed = None;
            genesis.disks.clear();
            genesis.nonce = fresh;
            genesis.asked = 0;
        }
        let nonce = genesis.nonce;
        let message = if genesis.agreed.is_some() {
            let mut disks: Vec<_> = genesis.disks.iter().map(|(id, disk)| (*id, *disk)).collect();
            disks.push((self.me, disk));
            disks.sort();
            Message::Found(Found { nonce, disks })
        } else {
            Message::Hello(Hello { nonce, durability: self.promise.durable().durability })
        };
        let doublings = genesis.asked.min(8);
        genesis.asked += 1;
        let pause = self.config.retry_interval.saturating_mul(2_u32.pow(doublings));
        let pause = self.prng.jitter(pause.min(self.config.hello_interval_max), 10);
        self.timers.arm(Timer::Hello, now.monotonic + pause);
        self.broadcast(&message);
    }

    /// G2: everyone answers, in any status.
    pub(in crate::replica) fn on_hello(&mut self, from: Origin, m: &Hello) -> Result<(), Ignored> {
        self.require_same_mode(from, m.durability)?;
        self.tell_certificate(from, Some(m.nonce));
        Ok(())
    }

    /// The mode belongs to the group: an acknowledgement of another mode means something else.
    fn require_same_mode(&mut self, from: Origin, theirs: Durability) -> Result<(), Ignored> {
        if theirs == self.promise.durable().durability {
            return Ok(());
        }
        self.out.push_back(Output::Event(Event::ModeDiffers { peer: from.id, theirs }));
        Err(Ignored::OtherMode)
    }

    fn tell_certificate(&mut self, to: Origin, nonce: Option<crate::model::types::Nonce>) {
        let answer = HelloOk {
            nonce,
            disk: self.promise.durable().disk,
            certificate: self.certificate().cloned(),
            durability: self.promise.durable().durability,
        };
        self.send(to.id, Message::HelloOk(answer));
    }

    /// G2, G4, G5: an answer to this replica's own question.
    pub(in crate::replica) fn on_hello_ok(
        &mut self,
        now: Now,
        from: Origin,
        m: HelloOk,
    ) -> Result<(), Ignored> {
        self.require_latest_epoch(&m)?;
        self.require_same_mode(from, m.durability)?;
        if self.certificate().is_some() {
            return self.settle_doubt(from, &m);
        }
        let own_disk = self.promise.durable().disk;
        let founder = self.may_found();
        let stale_counts = self.mutant(Mutant::GenesisWithoutNonce);
        let catches_up = self.mutant(Mutant::BlankCatchesUp);
        let Status::Blank(genesis) = &mut self.status else { return Err(Ignored::Unasked) };
        let stale = m.nonce != Some(genesis.nonce) && !stale_counts;
        if stale || genesis.adopting {
            return Err(Ignored::Unasked);
        }
        genesis.heard.insert(from.index);
        // A group that inherited its log never had blank members: whoever is blank lost that log.
        let founded = |certificate: &Certificate| {
            certificate.names(self.me, own_disk) && certificate.inherited.is_empty()
        };
        match m.certificate {
            Some(certificate) if catches_up || founded(&certificate) => {
                genesis.adopting = true;
                genesis.rebuild = None;
                self.promise.certify(certificate, from.epoch);
            }
            Some(certificate) => {
                let news = genesis.told.is_empty();
                genesis.told.insert(from.id, (certificate, from.epoch));
                if news {
                    let event = Event::DiskNotInCertificate { told_by: from.id, disk: own_disk };
                    self.out.push_back(Output::Event(event));
                }
                self.rebuild_if_told();
            }
            None if founder => {
                genesis.disks.insert(from.id, m.disk);
                self.found_if_agreed(now);
            }
            None => {}
        }
        Ok(())
    }

    /// G2, second round: only a replica that is still blank, on the disk it told, agrees.
    pub(in crate::replica) fn on_found(&mut self, from: Origin, m: &Found) -> Result<(), Ignored> {
        if from.id != self.membership.primary_of(View::ZERO) {
            return Err(Ignored::NotFromPrimary);
        }
        let own = (self.me, self.promise.durable().disk);
        let Status::Blank(genesis) = &self.status else { return Err(Ignored::WrongStatus) };
        let blank = genesis.rebuild.is_none() && genesis.leaving.is_none();
        if genesis.adopting || !blank || !m.disks.contains(&own) {
            return Err(Ignored::WrongStatus);
        }
        self.send(from.id, Message::FoundOk(FoundOk { nonce: m.nonce }));
        Ok(())
    }

    /// G3: one more agrees.
    pub(in crate::replica) fn on_found_ok(
        &mut self,
        now: Now,
        from: Origin,
        m: &FoundOk,
    ) -> Result<(), Ignored> {
        let stale_counts = self.mutant(Mutant::GenesisWithoutNonce);
        let Status::Blank(genesis) = &mut self.status else { return Err(Ignored::Unasked) };
        let Some(agreed) = &mut genesis.agreed else { return Err(Ignored::Unasked) };
        if (m.nonce != genesis.nonce && !stale_counts) || genesis.adopting {
            return Err(Ignored::Unasked);
        }
        agreed.insert(from.index);
        self.found_if_agreed(now);
        Ok(())
    }

    /// Only the primary of view 0 founds the group; without disks only if it was told to.
    pub(in crate::replica) fn may_found(&self) -> bool {
        let allowed = match self.promise.durable().durability {
            Durability::Full | Durability::ViewOnly => true,
            Durability::Diskless => self.config.genesis == config::Genesis::Found,
        };
        let first = self.membership.primary_of(View::ZERO) == self.me;
        allowed && (first || self.mutant(Mutant::AnyFounder))
    }

    /// Moves the founder on: to the second round when all are blank, to the certificate when all
    /// agree. A group of one agrees with itself.
    fn found_if_agreed(&mut self, now: Now) {
        let founder = self.may_found();
        let members = match self.mutant(Mutant::GenesisByQuorum) {
            false => self.membership.len(),
            true => self.membership.quorum(),
        };
        let others = members - 1;
        let at_once = self.mutant(Mutant::AnyFounder);
        let fresh = self.prng.nonce();
        let own = (self.me, self.promise.durable().disk);
        let group_name = self.promise.durable().group_name.clone();
        let Status::Blank(genesis) = &mut self.status else { return };
        if !founder || genesis.adopting {
            return;
        }
        if genesis.agreed.is_none() && genesis.disks.len() == usize::try_from(others).unwrap_or(0) {
            genesis.agreed = Some(ReplicaSet::EMPTY);
            genesis.nonce = fresh;
            genesis.asked = 0;
            self.timers.arm(Timer::Hello, now.monotonic);
        }
        if genesis.agreed.is_some_and(|agreed| at_once || agreed.len() == others) {
            let mut disks: Vec<_> = genesis.disks.iter().map(|(id, disk)| (*id, *disk)).collect();
            disks.push(own);
            disks.sort();
            genesis.adopting = true;
            genesis.founder = true;
            let certificate = Certificate { group_name, disks, inherited: Vec::new() };
            self.promise.certify(certificate, Epoch::ZERO);
        }
    }

    /// The certificate is durable: this replica is normal in view 0, with an empty log.
    pub(in crate::replica) fn join_group_if_certified(&mut self, now: Now) {
        let Status::Blank(Genesis { adopting: true, founder: founded, .. }) = self.status else {
            return;
        };
        let Some(certificate) = self.certificate() else { return };
        self.certificate = certificate.to_hash();
        self.timers.disarm(Timer::Hello);
        self.out.push_back(Output::Event(Event::GroupJoined { founded }));
        if self.is_primary() {
            self.become_primary(now, OpNumber::ZERO);
        } else {
            self.become_backup(now, OpNumber::ZERO);
        }
    }

    /// G7: what carries another certificate is answered with one's own, and never processed.
    pub(in crate::replica) fn require_same_group(
        &mut self,
        now: Now,
        from: Origin,
        certificate: CertificateHash,
    ) -> Result<(), Ignored> {
        if let Status::Blank(genesis) = &self.status {
            if !genesis.adopting
                && genesis.leaving.is_none()
                && certificate != CertificateHash::NONE
            {
                self.timers.arm_by(Timer::Hello, now.monotonic + self.config.retry_interval / 4);
            }
            return Err(Ignored::Blank);
        }
        if certificate != self.certificate && !self.mutant(Mutant::NoCertificateHash) {
            self.tell_certificate(from, None);
            self.doubt_certificate(now);
            return Err(Ignored::OtherCertificate);
        }
        Ok(())
    }
}
