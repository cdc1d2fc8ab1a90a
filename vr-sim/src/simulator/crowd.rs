//! The clients of a storm, and who of them goes on with a call that another one gave up.

use core::time::Duration;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use vr_core::RequestError;

use crate::{
    cluster::client::{Service, SimClient, Wanted, WantedOf},
    executor::lock,
    prng::Prng,
    simulator::load::{Draw, Load},
};

/// The shortest and the longest time that an impatient caller waits, in milliseconds.
const PATIENCE_MS: (u64, u64) = (5, 1500);

/// All clients of a storm.
pub(super) struct Crowd<S: Service> {
    seed: u64,
    /// Whether callers give up early and resume what they gave up.
    impatient: bool,
    /// Whether callers ask for several operations as one.
    many: bool,
    clients: Arc<Mutex<Vec<SimClient<S>>>>,
    resumed: Arc<AtomicU64>,
}

impl<S: Service> Crowd<S> {
    /// Nobody yet; what callers may be, by `load`, they are in half of the runs each.
    pub(super) fn drawn(seed: u64, load: &Load<S>) -> Self {
        let drawn = |name| Prng::stream(seed, name, 0).below(2) == 0;
        let (impatient, many) = (load.impatient && drawn("patience"), load.many && drawn("many"));
        Self { seed, impatient, many, clients: Arc::default(), resumed: Arc::default() }
    }

    /// How many calls were resumed so far, each time counted.
    pub(super) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// There is one client more.
    pub(super) fn joined(&mut self, client: &SimClient<S>) {
        lock(&self.clients).push(client.clone());
    }

    /// One of the callers of `client`: as patient as it is, what it asks for as one, and who goes on
    /// for it.
    pub(super) fn caller(
        &self,
        client: &SimClient<S>,
        caller: u64,
    ) -> (SimClient<S>, Several, impl FnMut(&RequestError) -> Option<SimClient<S>> + Send + 'static)
    {
        let number = u64::try_from(lock(&self.clients).len()).unwrap_or(0) * 100 + caller;
        let mut rng = Prng::stream(self.seed, "resumers", number);
        let (impatient, clients) = (self.impatient, Arc::clone(&self.clients));
        let resumed = Arc::clone(&self.resumed);
        let patience =
            |rng: &mut Prng| Duration::from_millis(rng.between(PATIENCE_MS.0, PATIENCE_MS.1));
        let caller = match impatient && rng.below(4) > 0 {
            true => client.with_timeout(patience(&mut rng)),
            false => client.clone(),
        };
        let resumer = move |error: &RequestError| {
            let evicted = matches!(error, RequestError::ClientEvicted { .. });
            // What went with its session is asked for once in a while; it stays unknown.
            if !impatient || rng.below(if evicted { 2 } else { 8 }) == 0 {
                return None;
            }
            resumed.fetch_add(1, Ordering::Relaxed);
            let clients = lock(&clients);
            let by = clients.get(rng.position(clients.len()))?;
            Some(if rng.below(2) == 0 { by.with_timeout(patience(&mut rng)) } else { by.clone() })
        };
        let rng = self.many.then(|| Prng::stream(self.seed, "several", number));
        (caller, Several(rng), resumer)
    }
}

/// What a caller asks for besides, as one call; nothing if there is no generator.
pub(super) struct Several(Option<Prng>);

impl Several {
    /// Adds operations to `wanted`, if that is one.
    pub(super) fn extend<S: Service>(&mut self, wanted: &mut Vec<WantedOf<S>>, draw: &Draw<S>) {
        let Some(rng) = &mut self.0 else { return };
        if !matches!(wanted[..], [Wanted::Operation(_)]) || rng.below(4) > 0 {
            return;
        }
        for _ in 0..rng.below(8) {
            let more = draw(rng);
            wanted.extend(matches!(more, Wanted::Operation(_)).then_some(more));
        }
    }
}
