//! The replica behind the connections: many clients' commands over a few sessions.

use std::path::PathBuf;

use async_trait::async_trait;
use vr_core::{
    Client, ClientOutcome, Explanation, ExportScope, NodeHandle, OpNumber, Read, RequestError,
    model::{export::LogFacts, message::StatusKind},
};

use crate::{
    describe,
    kv::{
        command::{Command, Question, Value},
        session::{Backend, Unanswered},
        state::Kv,
    },
};

/// How many sessions the connections of one replica share. Each has `Config::window` operations
/// in flight at most; further ones wait here.
pub const SESSIONS: usize = 16;

/// Whether clients may give an export this name: it stays in its directory, and in sight.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.len() <= 200 && name.bytes().all(plain)
}

/// A running node, and its sessions.
#[derive(Debug)]
pub struct ReplicaBackend {
    node: NodeHandle<Kv>,
    clients: Vec<Client<Kv>>,
    /// Where exports are written.
    exports: PathBuf,
}

impl ReplicaBackend {
    /// Serves from `node`, and writes exports to the directory `exports`.
    #[must_use]
    pub fn new(node: NodeHandle<Kv>, exports: PathBuf) -> Self {
        let clients = (0..SESSIONS).map(|_| node.client()).collect();
        Self { node, clients, exports }
    }

    /// The session of a connection; always the same one, so that its commands keep their order.
    fn client(&self, connection: u64) -> Result<&Client<Kv>, Unanswered> {
        let sessions = u64::try_from(SESSIONS).unwrap_or(1);
        let number = usize::try_from(connection % sessions).unwrap_or(0);
        let none = || Unanswered::Refused("there is no session".to_owned());
        self.clients.get(number).ok_or_else(none)
    }
}

fn unanswered(error: &RequestError) -> Unanswered {
    let text = error.to_string();
    match (error.outcome(), error) {
        (ClientOutcome::Unknown, _) => Unanswered::Uncertain(text),
        (ClientOutcome::Executed, _) => Unanswered::Lost(text),
        (
            ClientOutcome::NotExecuted,
            RequestError::TooLarge { .. } | RequestError::Unencodable | RequestError::Malformed,
        ) => Unanswered::Refused(text),
        (ClientOutcome::NotExecuted, _) => Unanswered::Busy(text),
    }
}

#[async_trait]
impl Backend for ReplicaBackend {
    async fn execute(
        &self,
        connection: u64,
        commands: Vec<Command>,
    ) -> Result<Vec<Value>, Unanswered> {
        let client = self.client(connection)?;
        client.execute(commands).await.map_err(|error| unanswered(&error))
    }

    async fn query(
        &self,
        connection: u64,
        questions: Vec<Question>,
    ) -> Result<Vec<Value>, Unanswered> {
        let client = self.client(connection)?;
        client.query(questions, Read::Linearizable).await.map_err(|error| unanswered(&error))
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        let status = self.node.status().replica;
        let is_primary = status.status == StatusKind::Normal && status.primary == status.replica;
        let members: Vec<String> = status.members.iter().map(ToString::to_string).collect();
        let serves = is_primary && status.serving;
        vec![
            ("replica", status.replica.to_string()),
            ("members", members.join(",")),
            ("role", if serves { "primary" } else { "backup" }.to_owned()),
            ("durability", status.durability.to_string()),
            ("incarnation", status.incarnation.to_string()),
            ("status", name(status.status).to_owned()),
            ("view", status.view.to_string()),
            ("primary", status.primary.to_string()),
            ("op", status.op_number.to_string()),
            ("durable_op", status.durable_op_number.to_string()),
            ("commit", status.commit_number.to_string()),
            ("applied", status.applied.to_string()),
            ("checkpoint", status.checkpoint.op_number.to_string()),
            ("log_base", status.log_base.to_string()),
            ("log_bytes", status.log_bytes.to_string()),
            ("epoch", status.epoch.to_string()),
            ("sessions", status.clients.to_string()),
            ("explanation", in_words(&self.node.explain())),
        ]
    }

    async fn digest(&self) -> Result<String, Unanswered> {
        let digest = self.node.digest().await;
        let state = digest.map_err(|error| Unanswered::Refused(error.to_string()))?;
        Ok(format!("{} {}", state.applied, state.digest))
    }

    async fn export(&self, name: &[u8], tail: bool) -> Result<String, Unanswered> {
        let refused = |error: &dyn std::error::Error| Unanswered::Refused(describe(error));
        let name = core::str::from_utf8(name).ok().filter(|name| is_plain(name));
        let name = name.ok_or_else(|| {
            Unanswered::Refused("a name has letters, digits, '-', '_' and '.' only".to_owned())
        })?;
        let scope = if tail { ExportScope::WithTail } else { ExportScope::Committed };
        let log = self.node.export(scope).map_err(|error| refused(&error))?;
        std::fs::create_dir_all(&self.exports).map_err(|error| refused(&error))?;
        let path = self.exports.join(name);
        let facts = vr_storage::export(log, &path).await.map_err(|error| refused(&error))?;
        let LogFacts { op_number, commit_number, .. } = facts;
        let what = match facts.checkpoint.op_number {
            OpNumber::ZERO => {
                format!("ops 1 to {op_number}, of which {commit_number} are committed")
            }
            checkpoint => format!(
                "the checkpoint after op {checkpoint} and the ops through {op_number}, of which those \
                 through {commit_number} are committed"
            ),
        };
        Ok(format!("{}: {what}", path.display()))
    }
}

/// An explanation, whose remedies are named as this program's options are.
pub(crate) fn in_words(explanation: &Explanation) -> String {
    explanation.to_string().replace("Genesis::Found", "--found")
}

const fn name(status: StatusKind) -> &'static str {
    match status {
        StatusKind::Blank => "blank",
        StatusKind::Normal => "normal",
        StatusKind::ViewChange => "view change",
        StatusKind::Recovering => "recovering",
    }
}
