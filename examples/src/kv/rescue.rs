//! What an operator does to a whole group: back it up, begin another one from a backup, and, when
//! too much is lost, restart it by force.

use core::fmt::Write as _;
use std::{collections::BTreeSet, io, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame as _};
use tokio::net::lookup_host;
use vr_core::{
    Durability, Members, Runtime,
    model::{durable::Trust, export::LogFacts},
};
use vr_storage::{Begun, LogSource, restore, source::describe, unsafe_restart};
use vr_transport_tcp::TokioRuntime;

use crate::kv::client::RedisClient;

/// How long a replica may take to write its whole log to a file.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Which replica to back up, and under which name.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportOptions {
    /// Where the replica serves Redis clients, HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub from: String,
    /// Also what this replica does not know to be committed; for a group that cannot go on
    #[arg(long)]
    pub with_tail: bool,
    /// Name of the file, which the replica writes to the directory "exports" in its --data
    pub name: String,
}

/// What to restore, and as which group.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreOptions {
    /// An export, or the data directory of a stopped replica
    #[arg(long, value_name = "PATH")]
    pub from: PathBuf,
    /// The new group's name
    #[arg(long, default_value = "kv")]
    pub group: String,
    /// The new group's members, as for kv serve
    #[arg(long, value_name = "A,B,C")]
    pub members: Members,
    /// Where to make the members' data directories: DIR/replica-0 and so on
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
}

/// What is left of a group, and what to make of it.
#[derive(Clone, Debug, clap::Args)]
pub struct UnsafeRestartOptions {
    /// The best survivor: the data directory of a stopped replica, or an export
    #[arg(long, value_name = "PATH")]
    pub from: PathBuf,
    /// Everything else that survived, to be compared; give all there is
    #[arg(long, value_name = "PATH")]
    pub compare: Vec<PathBuf>,
    /// Take --from although something better survived
    #[arg(long)]
    pub although_worse: bool,
    /// Where to make the members' data directories: DIR/replica-0 and so on
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// What --from does not hold is lost, whether it was acknowledged or not. Without this, only
    /// what would be done is said
    #[arg(long)]
    pub yes_i_accept_data_loss: bool,
}

/// Has a running replica write its log to a file; returns what it says.
///
/// # Errors
/// The replica cannot be reached, or refuses.
pub async fn export(options: &ExportOptions) -> Result<String> {
    let ExportOptions { from, with_tail, name } = options;
    let addresses = lookup_host(from).await;
    let addresses = addresses.with_context(|| format!("{from} is no HOST:PORT"))?;
    let mut client = connect(addresses).await.with_context(|| format!("cannot reach {from}"))?;
    let mut words = vec!["DEBUG", "EXPORT", name];
    if *with_tail {
        words.push("TAIL");
    }
    let answer = client.call(words).await.context("the replica did not answer")?;
    if let BytesFrame::Error(error) = &answer {
        bail!("{error}");
    }
    Ok(answer.as_str().unwrap_or_default().to_owned())
}

async fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<RedisClient> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match RedisClient::connect(address).await {
            Ok(client) => return Ok(client.with_patience(EXPORT_TIMEOUT)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Makes the directories of a new group; returns what was made, in words.
///
/// # Errors
/// What is wrong with the source or the arguments. Nothing is made then.
pub fn begin_copy(options: &RestoreOptions) -> Result<String> {
    let source = LogSource::open(&options.from)?;
    let facts = source.facts().clone();
    let members = options.members.to_membership();
    let begun = restore(source, &options.group, &members, &options.into, &mut entropy)?;
    let mut text = format!(
        "group {:?} with members {members} begins with {} of group {:?}\n",
        options.group,
        describe(&facts),
        facts.group_name
    );
    list(&mut text, &begun);
    Ok(text)
}

/// Restarts a group by force; returns what was done and what may be lost, in words.
///
/// # Errors
/// What is wrong with the survivors, that one of them is better, or that the loss of data was not
/// accepted. Nothing is made then.
pub fn force(options: &UnsafeRestartOptions) -> Result<String> {
    let source = LogSource::open(&options.from)?;
    let facts = source.facts().clone();
    let mut others = Vec::new();
    for path in &options.compare {
        let other = LogSource::open(path).with_context(|| format!("{}", path.display()))?;
        others.push(other.facts().clone());
    }
    let losses = losses(&facts, &others);
    if !options.yes_i_accept_data_loss {
        bail!("nothing was done\n{losses}say --yes-i-accept-data-loss to go on");
    }
    let (worse, into) = (options.although_worse, &options.into);
    let begun = unsafe_restart(source, &others, worse, into, &mut entropy)?;
    let mut text = format!(
        "group {:?} goes on in epoch {} with {}\n{losses}",
        facts.group_name,
        begun.epoch,
        describe(&facts)
    );
    list(&mut text, &begun);
    if facts.durability != Durability::Full {
        let _ = writeln!(
            text,
            "it was in mode {} and is in mode full from now on: start its members with that",
            facts.durability
        );
    }
    text.push_str(
        "start every member with its directory here; one that is started with an old one stops \
         when it hears of the others\n",
    );
    Ok(text)
}

/// What may be lost, as far as it can be told from what survived.
fn losses(facts: &LogFacts, others: &[LogFacts]) -> String {
    let mut text = String::from(
        "WARNING: operations that were acknowledged may be lost for ever: all that only the \
         missing replicas held\n",
    );
    let members = u64::from(facts.members.len());
    let seen = others.iter().chain([facts]).map(|facts| facts.replica);
    let seen: BTreeSet<_> = seen.collect();
    let missing = members.saturating_sub(u64::try_from(seen.len()).unwrap_or(members));
    for candidate in others.iter().chain([facts]) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  survived: {}", describe(candidate));
    }
    let _ = writeln!(text, "  not looked at: {missing} of {members} replicas");
    let committed = others.iter().chain([facts]).map(|it| it.commit_number).max();
    if let Some(through) = committed.filter(|through| *through > facts.op_number) {
        let from = facts.op_number.next();
        let _ = writeln!(text, "  lost for certain: ops {from} to {through}, which were committed");
    }
    let longest = others.iter().map(|other| other.op_number).max().unwrap_or_default();
    if longest > facts.op_number {
        let (from, through) = (facts.op_number.next(), longest);
        let _ = writeln!(text, "  given up although it survived: ops {from} to {through}");
    }
    if is_quorum(facts, others) {
        text.push_str(
            "  a majority survived with its log: the group goes on without force and without loss \
             when these are started\n",
        );
    }
    text
}

/// Whether what survived is a group that can go on.
fn is_quorum(facts: &LogFacts, others: &[LogFacts]) -> bool {
    let alive = others.iter().chain([facts]).filter(|it| {
        it.durability == Durability::Full
            && it.trust == Trust::Intact
            && it.latest_epoch == facts.latest_epoch
            && it.certificate == facts.certificate
    });
    let alive: BTreeSet<_> = alive.map(|it| it.replica).collect();
    u64::try_from(alive.len()).is_ok_and(|alive| alive >= u64::from(facts.members.quorum()))
}

fn list(text: &mut String, begun: &Begun) {
    for (replica, path) in &begun.directories {
        let _ = writeln!(text, "replica {replica}: {}", path.display());
    }
}

fn entropy() -> u128 {
    TokioRuntime::current().entropy()
}

#[cfg(test)]
mod tests {
    use vr_core::{
        OpNumber, ReplicaId, View,
        model::{
            certificate::Certificate,
            durable::CheckpointId,
            types::{Checksum, Epoch},
        },
    };

    use super::*;

    fn facts(replica: u64, op_number: u64, commit_number: u64) -> LogFacts {
        let members = Members::local(3).unwrap().to_membership();
        LogFacts {
            group: members.group_id("kv"),
            group_name: "kv".into(),
            members,
            durability: Durability::Full,
            replica: ReplicaId(replica),
            certificate: Certificate {
                group_name: "kv".into(),
                disks: Vec::new(),
                inherited: Vec::new(),
            },
            epoch: Epoch::ZERO,
            latest_epoch: Epoch::ZERO,
            view: View(1),
            log_view: View(1),
            trust: Trust::Intact,
            commit_number: OpNumber(commit_number),
            op_number: OpNumber(op_number),
            checksum: Checksum::ZERO,
            checkpoint: CheckpointId::default(),
        }
    }

    #[test]
    fn what_will_be_lost_is_shown() {
        let text = losses(&facts(0, 5, 5), &[LogFacts { trust: Trust::Lost, ..facts(1, 9, 7) }]);
        assert!(text.contains("not looked at: 1 of 3 replicas"), "{text}");
        assert!(text.contains("lost for certain: ops 6 to 7, which were committed"), "{text}");
        assert!(text.contains("given up although it survived: ops 6 to 9"), "{text}");
        assert!(!text.contains("without force"), "{text}");
        let alone = losses(&facts(0, 5, 5), &[]);
        assert!(alone.contains("not looked at: 2 of 3 replicas"), "{alone}");
        assert!(!alone.contains("for certain") && !alone.contains("given up"), "{alone}");
    }

    #[test]
    fn who_needs_no_force_is_told_so() {
        let text = losses(&facts(0, 5, 5), &[facts(2, 4, 4)]);
        assert!(text.contains("the group goes on without force"), "{text}");
        let text = losses(&facts(0, 5, 5), &[facts(0, 5, 5)]);
        assert!(!text.contains("without force"), "one replica twice is no majority: {text}");
    }
}
