//! What a storm runs and what it is asked to do: the service, the clients and their calls.

use core::{fmt, ops::RangeInclusive};
use std::sync::Arc;

use vr_core::{CausalToken, Read, model::types::ReplicaId};

use crate::{
    cluster::client::{Service, Wanted, WantedOf},
    prng::Prng,
    workload::{self, Kv},
};

/// Draws what a caller asks for next.
pub type Draw<S> = Arc<dyn Fn(&mut Prng) -> WantedOf<S> + Send + Sync>;

/// The service of a storm, and who asks it for what.
pub struct Load<S: Service> {
    /// Makes the service in its first state; called for each life of each replica.
    pub make: Arc<dyn Fn(ReplicaId) -> S + Send + Sync>,
    /// What callers ask for.
    pub draw: Draw<S>,
    /// What a group that must be able to make progress is asked for.
    pub probe: Draw<S>,
    /// Whether in half of the runs callers have little patience, and resume what they gave up.
    pub impatient: bool,
    /// Whether in half of the runs callers ask for several operations as one.
    pub many: bool,
    /// How many clients there are; the seed chooses.
    pub clients: RangeInclusive<u64>,
    /// How many callers share the session of a client; the seed chooses for each client.
    pub callers: RangeInclusive<u64>,
    /// The longest pause of a client's callers between two calls, in milliseconds; the seed
    /// chooses for each client.
    pub pause_ms_max: RangeInclusive<u64>,
}

impl<S: Service> Load<S> {
    /// Services that `make` makes, asked for what `draw` draws, by as many as usual.
    pub fn new(
        make: impl Fn(ReplicaId) -> S + Send + Sync + 'static,
        draw: impl Fn(&mut Prng) -> WantedOf<S> + Send + Sync + 'static,
    ) -> Self {
        let draw: Draw<S> = Arc::new(draw);
        Self {
            make: Arc::new(make),
            probe: Arc::clone(&draw),
            draw,
            impatient: false,
            many: false,
            clients: 2..=7,
            callers: 1..=4,
            pause_ms_max: 1..=30,
        }
    }
}

impl Load<Kv> {
    /// The load of `cargo sim`.
    #[must_use]
    pub fn of_kv() -> Self {
        let load = Self::new(
            |_| Kv::default(),
            |rng| {
                if rng.below(5) == 0 {
                    let key = workload::drawn_key(rng);
                    // The client adds what it has seen.
                    let causal = Read::Causal(CausalToken::default());
                    let read = match rng.below(3) {
                        0 => causal,
                        1 => Read::Lease,
                        _ => Read::Linearizable,
                    };
                    Wanted::Query(key, read)
                } else {
                    Wanted::Operation(workload::drawn(rng))
                }
            },
        );
        let probe: Draw<Kv> = Arc::new(|_| Wanted::Operation(workload::add("core", 1)));
        Self { probe, impatient: true, many: true, ..load }
    }
}

impl<S: Service> fmt::Debug for Load<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("clients", &self.clients)
            .field("callers", &self.callers)
            .field("pause_ms_max", &self.pause_ms_max)
            .finish_non_exhaustive()
    }
}
