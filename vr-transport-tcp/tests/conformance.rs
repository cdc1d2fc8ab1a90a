//! Sockets pass the suite that every transport must pass.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use vr_core::{
    Member, Members, ReplicaId, Role, Transport,
    conformance::transport::{
        cases,
        harness::{Capability, Harness},
        run,
    },
};
use vr_transport_tcp::{TcpConfig, TcpTransport};

/// The loopback interface of this machine.
#[derive(Default)]
struct Loopback {
    addresses: BTreeMap<ReplicaId, String>,
    /// Bound, so that their ports are known, and not yet asked for.
    bound: BTreeMap<ReplicaId, TcpTransport>,
    config: TcpConfig,
}

#[async_trait(?Send)]
impl Harness for Loopback {
    async fn members(&mut self, count: u64) -> Members {
        *self = Self { config: self.config.clone(), ..Self::default() };
        for id in (0..count).map(ReplicaId) {
            let transport =
                TcpTransport::bind_with("127.0.0.1:0", self.config.clone()).await.unwrap();
            self.addresses.insert(id, transport.local_address().unwrap().to_string());
            self.bound.insert(id, transport);
        }
        let members = self.addresses.iter();
        Members::new(members.map(|(id, address)| Member { id: *id, address: address.clone() }))
            .unwrap()
    }

    async fn transport(&mut self, role: Role) -> Box<dyn Transport> {
        let config = self.config.clone();
        let Role::Replica(id) = role else { return Box::new(TcpTransport::client_with(config)) };
        match self.bound.remove(&id) {
            Some(transport) => Box::new(transport),
            None => Box::new(TcpTransport::bind_with(&self.addresses[&id], config).await.unwrap()),
        }
    }

    /// Never reached on a machine that is not stopped; decides nothing but when a case has failed.
    fn patience(&self) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_secs(20)))
    }

    fn covers(&self, _: Capability) -> bool {
        true
    }
}

#[tokio::test]
async fn sockets_conform() {
    let report = run(&mut Loopback::default()).await;
    println!("{report}");
    assert_eq!(report.passed().len(), cases().count(), "{report}");
}

#[tokio::test]
async fn sockets_that_are_asked_without_a_pause_conform() {
    let mut sockets = Loopback::default();
    sockets.config.busy_poll = Duration::from_millis(1);
    let report = run(&mut sockets).await;
    println!("{report}");
    assert_eq!(report.passed().len(), cases().count(), "{report}");
}
