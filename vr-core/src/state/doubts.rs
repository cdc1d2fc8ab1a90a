//! What the others say when this replica is not sure that its group still exists.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::model::{
    certificate::CertificateHash,
    time::Instant,
    types::{Nonce, ReplicaId},
};

/// One question at a time, and who answered it with which certificate.
///
/// # Source
/// PROTOCOL.md "Genesis", G6.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    question: Option<(Nonce, Instant)>,
    told: BTreeMap<ReplicaId, CertificateHash>,
}

impl Doubts {
    /// Whether the last question was asked at least `pause` ago.
    #[must_use]
    pub fn may_ask(&self, now: Instant, pause: Duration) -> bool {
        self.question.is_none_or(|(_, at)| now.since(at) >= pause)
    }

    /// Everybody is asked, under the name `nonce`.
    pub fn ask(&mut self, now: Instant, nonce: Nonce) {
        self.question = Some((nonce, now));
        self.told.clear();
    }

    /// Whether `nonce` names the open question.
    #[must_use]
    pub fn is_asked(&self, nonce: Nonce) -> bool {
        self.question.is_some_and(|(asked, _)| asked == nonce)
    }

    /// `from` has the certificate `hash`; returns how many have told this one.
    pub fn told(&mut self, nonce: Nonce, from: ReplicaId, hash: CertificateHash) -> u32 {
        if self.is_asked(nonce) {
            self.told.insert(from, hash);
        }
        let equal = self.told.values().filter(|told| **told == hash).count();
        u32::try_from(equal).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_the_open_question_count_once_each() {
        let mut doubts = Doubts::default();
        assert!(doubts.may_ask(Instant(0), Duration::from_nanos(9)));
        doubts.ask(Instant(0), Nonce(1));
        assert_eq!(doubts.told(Nonce(1), ReplicaId(1), CertificateHash(7)), 1);
        assert_eq!(doubts.told(Nonce(1), ReplicaId(1), CertificateHash(7)), 1);
        assert_eq!(doubts.told(Nonce(1), ReplicaId(2), CertificateHash(7)), 2);
        assert!(!doubts.may_ask(Instant(8), Duration::from_nanos(9)));
        doubts.ask(Instant(9), Nonce(2));
        assert_eq!(doubts.told(Nonce(1), ReplicaId(1), CertificateHash(7)), 0);
    }
}
