//! What the implementer of a transport supplies, so that the suite can set up its ends.

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::{
    model::membership::Members,
    ports::transport::{Role, Transport},
};

/// Makes the ends of a network that nothing is wrong with.
///
/// The suite allows doubles, delays and reordering, as the contract does. It does not allow loss:
/// what a transport took must arrive, as long as both ends live and receive.
#[async_trait(?Send)]
pub trait Harness {
    /// Forgets the network before, and prepares one for a group of so many members, nobody of
    /// whom has started. Returns them, with the addresses at which they will be reached.
    async fn members(&mut self, count: u64) -> Members;

    /// A transport for `role`, not started.
    ///
    /// Called again for the same replica once its transport before was dropped, or closed.
    async fn transport(&mut self, role: Role) -> Box<dyn Transport>;

    /// Completes when nothing can arrive any more of what is under way: at once where sending is
    /// arriving, else after a time that no healthy network takes. Awaited beside all receiving
    /// ends; when it comes first, the case has failed.
    fn patience(&self) -> BoxFuture<'static, ()>;

    /// Whether the suite may ask for this.
    fn covers(&self, capability: Capability) -> bool {
        let _ = capability;
        false
    }
}

/// Something that a network may be able to do, and cases may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Ends of several groups can be on it, and it keeps them apart.
    Groups,
}
