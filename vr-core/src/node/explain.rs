//! Why nothing commits, or why it soon might not: a node's numbers put into words.

use core::time::Duration;

use crate::{
    model::{
        durable::Durability,
        message::StatusKind,
        types::{OpNumber, ReplicaId, ReplicaIndex},
    },
    node::{
        checkpoint_findings::{
            checkpoints_differ, fetching, log_grows, log_ops, log_rests, state_restoring,
            state_waiting,
        },
        finding::{Cause, Explanation, Finding, count, names, silent, sizes},
        loss::{log_lost, wiped_disk},
        status::NodeStatus,
        stop::NodeError,
    },
};

/// A write that takes longer than this is a finding.
const WRITE_STALL: Duration = Duration::from_secs(1);

/// Puts the numbers into words.
#[must_use]
pub fn explain(status: &NodeStatus) -> Explanation {
    let mut findings = Vec::new();
    if let Some(stopped) = stopped(status) {
        // A stopped node's other numbers are of the past.
        findings.push(stopped);
        return Explanation { findings };
    }
    let grave = [
        wiped_disk(status),
        blank(status),
        no_quorum(status),
        log_lost(status),
        primary_lost(status),
        damaged(status),
        fetching(status),
        state_waiting(status),
        state_restoring(status),
        storage_stalled(status),
        checkpoints_differ(status),
        log_full(status).or_else(|| log_grows(status)),
        pipeline_full(status),
        catching_up(status),
        executor_behind(status),
    ];
    findings.extend(grave.into_iter().flatten());
    if findings.is_empty() {
        findings.push(well(status));
    }
    let rests = log_rests(status).filter(|_| log_full(status).is_none());
    let mild = [rests, members_missing(status), complaints(status), tolerates_nothing(status)];
    findings.extend(mild.into_iter().flatten());
    Explanation { findings }
}

fn stopped(status: &NodeStatus) -> Option<Finding> {
    let Some(reason) = &status.stopped else {
        return status.has_stopped.then(|| shut_down(status));
    };
    let mut words = format!("the node has stopped: {reason}");
    let mut source = std::error::Error::source(reason);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    Some(Finding {
        cause: Cause::Stopped,
        words,
        numbers: vec![("applied", status.replica.applied.0)],
        remedy: match (reason, status.replica.durability) {
            // It says itself what is to be done, which is not always to start again.
            (NodeError::Fatal(_), _) => "mend the cause before the node is started again".into(),
            (_, Durability::Full) => {
                "mend the cause and start the node again; nothing it acknowledged is lost".into()
            }
            (_, Durability::ViewOnly | Durability::Diskless) => {
                "mend the cause and start the node again; it gets everything back from the others"
                    .into()
            }
        },
    })
}

fn shut_down(status: &NodeStatus) -> Finding {
    Finding {
        cause: Cause::Stopped,
        words: "the node was shut down".into(),
        numbers: vec![("applied", status.replica.applied.0)],
        remedy: "start it again".into(),
    }
}

fn blank(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    if replica.status != StatusKind::Blank || replica.foreign_certificate.is_some() {
        return None;
    }
    let others = replica.members.len().saturating_sub(1);
    let awaited = &replica.awaited;
    let diskless = replica.durability == Durability::Diskless;
    let words = if awaited.is_empty() && diskless && !replica.may_found {
        format!(
            "no member of the group \"{}\" remembers it, and without disks a group is founded only \
             when its first member is told to",
            status.group
        )
    } else if awaited.is_empty() {
        format!("the group \"{}\" is being founded; all other members answered", status.group)
    } else {
        format!(
            "waiting to found or join the group \"{}\": {} of {others} other members have not \
             answered: {}",
            status.group,
            awaited.len(),
            names(awaited)
        )
    };
    let remedy = if awaited.is_empty() && diskless && !replica.may_found {
        "for a first start give the members Genesis::Found; if there was a group, its state is lost \
         with its last process"
            .to_owned()
    } else if awaited.is_empty() {
        String::new()
    } else {
        format!(
            "start replica {} with the same group name and member list, and see that it is \
             reachable; a group forms when all its members have been up at once",
            names(awaited)
        )
    };
    let numbers =
        vec![("awaited", count(awaited.len())), ("members", count(replica.members.len()))];
    Some(Finding { cause: Cause::Blank, words, numbers, remedy })
}

fn no_quorum(status: &NodeStatus) -> Option<Finding> {
    let heard = u64::from(status.replica.heard.len());
    let (members, quorum) = sizes(status);
    if status.replica.status == StatusKind::Blank || heard >= quorum {
        return None;
    }
    let silent = silent(status);
    let (connected, gone): (Vec<ReplicaId>, Vec<ReplicaId>) =
        silent.iter().partition(|id| status.transport.connected.contains(id));
    let remedy = if heard + count(gone.len()) < quorum {
        // They run and take no part; whoever else comes back does not suffice.
        format!(
            "replica {} is connected, but silent: see what it says itself; nothing is lost unless so \
             many disks are gone for good, and then only a restart by force goes on, with what \
             survived",
            names(&connected)
        )
    } else {
        format!(
            "start {} of replica {}, or mend the network to them; nothing is lost meanwhile",
            quorum - heard,
            names(&silent)
        )
    };
    Some(Finding {
        cause: Cause::NoQuorum,
        words: format!(
            "no quorum: {heard} of {members} replicas hear each other here, {quorum} are needed; \
             nothing can commit; silent: {}",
            names(&silent)
        ),
        numbers: vec![("heard", heard), ("quorum", quorum), ("members", members)],
        remedy,
    })
}

fn primary_lost(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    let timeout = status.config.suspicion_timeout;
    let between = status.between_views.unwrap_or_default();
    let is_backup = replica.status == StatusKind::Normal && replica.primary != replica.replica;
    let words = match replica.status {
        StatusKind::ViewChange => format!(
            "the change to view {} (primary {}) has been going on for {} ms",
            replica.view,
            replica.primary,
            between.as_millis()
        ),
        StatusKind::Normal if is_backup && silent(status).contains(&replica.primary) => format!(
            "replica {}, the primary of view {}, is silent; the others are being asked for a new \
             view",
            replica.primary, replica.view
        ),
        StatusKind::Normal if !is_backup && !replica.serving => format!(
            "this replica is the primary of view {}, but does not serve: a quorum has not \
             answered it for {} ms",
            replica.view,
            timeout.as_millis()
        ),
        StatusKind::Blank | StatusKind::Normal | StatusKind::Recovering => return None,
    };
    let remedy = if between > timeout.saturating_mul(4) {
        format!(
            "a view change takes milliseconds when a quorum is up: see that replica {} is \
             reachable from all others, in both directions",
            names(&silent(status))
        )
    } else {
        format!("wait; the next view is tried after {} ms", timeout.as_millis())
    };
    let waited = u64::try_from(between.as_millis()).unwrap_or(u64::MAX);
    let numbers = vec![("view", replica.view.0), ("milliseconds", waited)];
    Some(Finding { cause: Cause::PrimaryLost, words, numbers, remedy })
}

fn damaged(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    let members = replica.members.iter().copied().zip((0_u8..).map(ReplicaIndex));
    let asked = members.filter(|(_, index)| replica.repair_asked.contains(*index));
    let asked: Vec<ReplicaId> = asked.map(|(id, _)| id).collect();
    let (first, last, ops) = replica.damaged?;
    let effect = if replica.incomplete {
        "it takes no part in the group until they are repaired"
    } else {
        "they are being repaired"
    };
    let told = if asked.is_empty() {
        "nobody was asked yet".to_owned()
    } else {
        format!("asked without success since the last repair: {}", names(&asked))
    };
    Some(Finding {
        cause: Cause::Damaged,
        words: format!(
            "on the disk of replica {} {ops} ops from {first} to {last} are damaged; {effect}; \
             {told}",
            replica.replica
        ),
        numbers: vec![("first", first.0), ("last", last.0), ("ops", ops)],
        remedy: format!(
            "start the replicas that are down, one of them has what is missing; then check the \
             disk of replica {}",
            replica.replica
        ),
    })
}

fn storage_stalled(status: &NodeStatus) -> Option<Finding> {
    let age = status.replica.oldest_write_age;
    if age < WRITE_STALL {
        return None;
    }
    let pending = status.replica.writes_pending;
    let milliseconds = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Some(Finding {
        cause: Cause::StorageStalled,
        words: format!(
            "storage is stalled: {pending} writes are pending, the oldest for {milliseconds} ms"
        ),
        numbers: vec![("pending", pending), ("milliseconds", milliseconds)],
        remedy: "look at the disk of this machine: its load, its errors, its free space".into(),
    })
}

fn log_full(status: &NodeStatus) -> Option<Finding> {
    let (bytes, bytes_max) = (status.replica.log_bytes, status.config.log_bytes_max);
    let (ops, ops_max) = (log_ops(status), status.config.log_ops_max);
    // The last request that fits may leave a rest that no request fits into.
    let rest = u64::from(status.config.request_bytes_max).min(bytes_max / 16);
    if ops < ops_max && bytes.saturating_add(rest) <= bytes_max {
        return None;
    }
    let limit = if ops < ops_max { "log_bytes_max" } else { "log_ops_max" };
    Some(Finding {
        cause: Cause::LogFull,
        words: format!(
            "the log is full: {ops} of {ops_max} ops, {bytes} of {bytes_max} bytes; requests are \
             answered busy"
        ),
        numbers: vec![
            ("log_bytes", bytes),
            ("log_bytes_max", bytes_max),
            ("log_ops", ops),
            ("log_ops_max", ops_max),
        ],
        remedy: format!("raise {limit} on all replicas, one after the other"),
    })
}

fn pipeline_full(status: &NodeStatus) -> Option<Finding> {
    let (ops, bytes) = (status.replica.pipeline_ops, status.replica.pipeline_bytes);
    let ops_max = u64::from(status.config.pipeline_ops_max);
    let bytes_max = u64::from(status.config.pipeline_bytes_max);
    let rest = u64::from(status.config.request_bytes_max).min(bytes_max / 16);
    if ops < ops_max && bytes.saturating_add(rest) <= bytes_max {
        return None;
    }
    Some(Finding {
        cause: Cause::PipelineFull,
        words: format!(
            "the pipeline is full: {ops} of {ops_max} ops, {bytes} of {bytes_max} bytes are \
             prepared and not committed; acknowledged: {}",
            acknowledged(status)
        ),
        numbers: vec![("pipeline_ops", ops), ("pipeline_bytes", bytes)],
        remedy: "if this lasts, a quorum of replicas or their disks is too slow for the load: \
                 find the one that acknowledges least, or slow the clients down"
            .into(),
    })
}

/// More of the log is missing here than can be on its way.
fn catching_up(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    let (_, primary) = replica.standings.iter().find(|(id, _)| *id == replica.primary)?;
    let behind = primary.op_number.since(replica.op_number);
    let ops_max = u64::from(status.config.pipeline_ops_max);
    let is_same_log = primary.log_view == replica.log_view;
    if replica.status != StatusKind::Normal || !is_same_log || behind <= ops_max {
        return None;
    }
    Some(Finding {
        cause: Cause::CatchingUp,
        words: format!(
            "{behind} ops of the log are missing here: it ends at op {}, that of the primary at op {}",
            replica.op_number, primary.op_number
        ),
        numbers: vec![("behind", behind), ("pipeline_ops_max", ops_max)],
        remedy: "it catches up by itself; wait for it before another replica is stopped".into(),
    })
}

fn executor_behind(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    let behind = replica.commit_number.since(replica.applied);
    let ops_max = u64::from(status.config.execute_ops_max);
    if behind < ops_max {
        return None;
    }
    let op = status.executor.applying;
    let doing = op.map_or_else(String::new, |op| format!("; op {op} is being applied now"));
    Some(Finding {
        cause: Cause::ExecutorBehind,
        words: format!(
            "the state machine is {behind} committed ops behind (applied {}, committed {}){doing}",
            replica.applied, replica.commit_number
        ),
        numbers: vec![("behind", behind), ("execute_ops_max", ops_max)],
        remedy: "after a start it catches up by itself; if this lasts, apply is too slow".into(),
    })
}

fn members_missing(status: &NodeStatus) -> Option<Finding> {
    let silent = silent(status);
    let (members, quorum) = sizes(status);
    let heard = u64::from(status.replica.heard.len());
    if status.replica.status == StatusKind::Blank || silent.is_empty() || heard < quorum {
        return None;
    }
    let spare = heard - quorum;
    Some(Finding {
        cause: Cause::MembersMissing,
        words: format!(
            "{heard} of {members} replicas are heard of here; {spare} more may fail; silent: {}",
            names(&silent)
        ),
        numbers: vec![("heard", heard), ("members", members), ("spare", spare)],
        remedy: format!("start replica {} again, or mend the network to it", names(&silent)),
    })
}

fn complaints(status: &NodeStatus) -> Option<Finding> {
    let complaints = &status.transport.complaints;
    let last = complaints.last()?;
    Some(Finding {
        cause: Cause::Complaints,
        words: format!("the transport complained {} times, last: {last}", complaints.len()),
        numbers: vec![("complaints", count(complaints.len()))],
        remedy: "compare group names, member lists and versions of both ends".into(),
    })
}

fn tolerates_nothing(status: &NodeStatus) -> Option<Finding> {
    let (members, quorum) = sizes(status);
    if members > 2 {
        return None;
    }
    Some(Finding {
        cause: Cause::ToleratesNothing,
        words: format!("a group of {members} needs {quorum} of them and survives no failure"),
        numbers: vec![("members", members), ("quorum", quorum)],
        remedy: "run three replicas to survive the failure of one".into(),
    })
}

fn well(status: &NodeStatus) -> Finding {
    let replica = &status.replica;
    let role = if replica.primary == replica.replica { "primary" } else { "backup" };
    let heard = u64::from(replica.heard.len());
    let (members, _) = sizes(status);
    Finding {
        cause: Cause::Well,
        words: format!(
            "all is well: {role} of view {} (primary {}), {heard} of {members} replicas heard, \
             op {}, committed {}, applied {}, {} clients",
            replica.view,
            replica.primary,
            replica.op_number,
            replica.commit_number,
            replica.applied,
            replica.clients
        ),
        numbers: vec![
            ("view", replica.view.0),
            ("op_number", replica.op_number.0),
            ("commit_number", replica.commit_number.0),
            ("applied", replica.applied.0),
            ("heard", heard),
        ],
        remedy: String::new(),
    }
}

fn acknowledged(status: &NodeStatus) -> String {
    let all = status.replica.acknowledged.iter();
    let text: Vec<String> =
        all.map(|(id, op): &(ReplicaId, OpNumber)| format!("replica {id} op {op}")).collect();
    if text.is_empty() { "nothing".into() } else { text.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{
            config::Config,
            durable::{CheckpointId, Trust},
            message::Standing,
            types::{Epoch, Incarnation, ReplicaIndex, ReplicaSet, View},
        },
        node::status::{ExecutorStatus, FetchingStatus, StorageStatus, TransportStatus},
        ports::storage::StorageError,
        replica::io::{Discarded, ReplicaStatus},
    };

    /// A backup of view 1 in a group of three where nothing is wrong.
    fn healthy() -> NodeStatus {
        let members: Vec<ReplicaId> = (0..3).map(ReplicaId).collect();
        let replica = ReplicaStatus {
            replica: ReplicaId(0),
            members,
            status: StatusKind::Normal,
            view: View(1),
            durable_view: View(1),
            log_view: View(1),
            primary: ReplicaId(1),
            op_number: OpNumber(9),
            durable_op_number: OpNumber(9),
            commit_number: OpNumber(8),
            applied: OpNumber(8),
            checkpoint: CheckpointId::default(),
            checkpoint_due: OpNumber(0),
            checkpoint_taken: OpNumber(0),
            checkpoints_differ: None,
            log_base: OpNumber(0),
            resting_for: Duration::ZERO,
            snapshot: None,
            log_bytes: 1000,
            state_waits: None,
            restoring: None,
            clients: 1,
            heard: heard(&[0, 1, 2]),
            serving: false,
            leased_for: Duration::ZERO,
            handing_off: None,
            acknowledged: Vec::new(),
            awaited: Vec::new(),
            foreign_certificate: None,
            trust: Trust::Intact,
            durability: Durability::Full,
            incarnation: Incarnation::ZERO,
            epoch: Epoch::ZERO,
            inherited: Vec::new(),
            rebuilding: false,
            may_found: false,
            standings: Vec::new(),
            damaged: None,
            repair_asked: ReplicaSet::EMPTY,
            repaired: 0,
            incomplete: false,
            writes_pending: 0,
            oldest_write_age: Duration::ZERO,
            pipeline_ops: 0,
            pipeline_bytes: 0,
            heartbeats_missed: 0,
            queues: Default::default(),
            ignored: 0,
        };
        NodeStatus {
            group: "default".into(),
            config: Config::default(),
            uptime: Duration::from_secs(1),
            between_views: None,
            replica,
            fetching: None,
            discarded: None,
            executor: ExecutorStatus::default(),
            storage: StorageStatus::default(),
            transport: TransportStatus::default(),
            events_lost: 0,
            has_stopped: false,
            stopped: None,
        }
    }

    fn heard(indexes: &[u8]) -> ReplicaSet {
        let mut set = ReplicaSet::EMPTY;
        for index in indexes {
            set.insert(ReplicaIndex(*index));
        }
        set
    }

    fn number(finding: &Finding, name: &str) -> u64 {
        finding.numbers.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// The one grave finding of a node that is not well.
    fn only(status: &NodeStatus, cause: Cause) -> Finding {
        let explanation = explain(status);
        assert!(!explanation.is_well(), "{explanation}");
        let finding = explanation.about(cause).unwrap_or_else(|| panic!("{explanation}")).clone();
        assert!(!finding.words.is_empty() && !finding.remedy.is_empty());
        finding
    }

    #[test]
    fn a_healthy_node_says_so_with_its_numbers() {
        let explanation = explain(&healthy());
        assert_eq!(explanation.findings.len(), 1, "{explanation}");
        assert!(explanation.is_well());
        assert_eq!(number(&explanation.findings[0], "commit_number"), 8);
    }

    #[test]
    fn no_quorum_names_the_silent() {
        let mut status = healthy();
        status.replica.heard = heard(&[0]);
        let finding = only(&status, Cause::NoQuorum);
        assert_eq!((number(&finding, "heard"), number(&finding, "quorum")), (1, 2));
        assert!(finding.words.contains("silent: 1, 2"), "{}", finding.words);
        assert!(finding.remedy.contains("nothing is lost meanwhile"), "{}", finding.remedy);
        status.transport.connected = vec![ReplicaId(1)];
        assert_eq!(only(&status, Cause::NoQuorum).remedy, finding.remedy, "2 would do");
        status.transport.connected = vec![ReplicaId(1), ReplicaId(2)];
        let finding = only(&status, Cause::NoQuorum);
        assert!(finding.remedy.contains("replica 1, 2 is connected"), "{}", finding.remedy);
        assert!(finding.remedy.contains("by force"), "{}", finding.remedy);
    }

    #[test]
    fn a_lost_primary_is_named_before_and_during_the_view_change() {
        let mut status = healthy();
        status.replica.heard = heard(&[0, 2]);
        assert!(only(&status, Cause::PrimaryLost).words.contains("replica 1"));
        status.replica.status = StatusKind::ViewChange;
        status.between_views = Some(Duration::from_secs(3));
        let finding = only(&status, Cause::PrimaryLost);
        assert_eq!(number(&finding, "milliseconds"), 3000);
    }

    #[test]
    fn a_primary_that_does_not_serve_says_why() {
        let mut status = healthy();
        status.replica.primary = ReplicaId(0);
        assert!(only(&status, Cause::PrimaryLost).words.contains("does not serve"));
        status.replica.serving = true;
        assert!(explain(&status).is_well());
    }

    #[test]
    fn a_stalled_storage_shows_the_age_of_the_oldest_write() {
        let mut status = healthy();
        status.replica.writes_pending = 3;
        status.replica.oldest_write_age = Duration::from_millis(1500);
        let finding = only(&status, Cause::StorageStalled);
        assert_eq!((number(&finding, "pending"), number(&finding, "milliseconds")), (3, 1500));
    }

    #[test]
    fn a_blank_replica_names_whom_it_waits_for() {
        let mut status = healthy();
        status.replica.status = StatusKind::Blank;
        status.replica.awaited = vec![ReplicaId(2)];
        let finding = only(&status, Cause::Blank);
        assert!(finding.words.contains("1 of 2 other members"), "{}", finding.words);
        assert!(finding.remedy.contains("replica 2"), "{}", finding.remedy);
    }

    #[test]
    fn a_group_without_disks_is_founded_when_told_to() {
        let mut status = healthy();
        status.replica.status = StatusKind::Blank;
        status.replica.durability = Durability::Diskless;
        assert!(only(&status, Cause::Blank).remedy.contains("Genesis::Found"));
    }

    #[test]
    fn a_full_log_names_its_limit() {
        let mut status = healthy();
        status.replica.log_bytes = status.config.log_bytes_max;
        assert!(only(&status, Cause::LogFull).remedy.contains("log_bytes_max"));
        let mut status = healthy();
        status.config.log_ops_max = 9;
        assert!(only(&status, Cause::LogFull).remedy.contains("log_ops_max"));
    }

    #[test]
    fn a_checkpoint_on_its_way_says_how_far_it_is_and_whether_it_comes_along() {
        let mut status = healthy();
        status.replica.snapshot = Some((OpNumber(500), 0, 0));
        status.fetching = Some(FetchingStatus { idle: Duration::from_millis(10), begun: 1 });
        assert!(only(&status, Cause::Fetching).words.contains("nobody has told"));
        status.replica.snapshot = Some((OpNumber(500), 3, 7));
        let finding = only(&status, Cause::Fetching);
        assert!(finding.words.contains("of op 500") && finding.words.contains("3 of 7 chunks"));
        assert!(!finding.words.contains("nothing new") && finding.remedy.contains("wait"));
        status.fetching = Some(FetchingStatus { idle: Duration::from_secs(3), begun: 2 });
        status.replica.heard = heard(&[0, 1]);
        let finding = only(&status, Cause::Fetching);
        assert!(finding.words.contains("1 before it were given up"), "{}", finding.words);
        assert!(finding.words.contains("nothing new for 3000 ms"), "{}", finding.words);
        assert!(finding.remedy.contains("start replica 2"), "{}", finding.remedy);
        status.config.fetch_bytes_per_second = 128 << 10;
        assert!(only(&status, Cause::Fetching).remedy.contains("wait"), "4 s pass between two");
        status.config.fetch_bytes_per_second = 0;
        status.replica.snapshot = Some((OpNumber(500), 7, 7));
        assert!(only(&status, Cause::Fetching).remedy.contains("disk of this machine"));
    }

    #[test]
    fn checkpoints_that_differ_are_named_with_their_op() {
        let mut status = healthy();
        status.replica.checkpoints_differ = Some(OpNumber(8));
        let finding = only(&status, Cause::CheckpointsDiffer);
        assert_eq!((number(&finding, "op_number"), number(&finding, "checkpoint")), (8, 0));
        assert!(finding.words.contains("not deterministic"), "{}", finding.words);
    }

    #[test]
    fn a_log_that_grows_is_announced_before_it_is_full() {
        let mut status = healthy();
        (status.config.log_ops_max, status.config.checkpoint_ops) = (18, 4);
        assert!(explain(&status).is_well(), "no checkpoint is due");
        status.replica.checkpoint_due = OpNumber(8);
        let finding = only(&status, Cause::LogGrows);
        assert_eq!((number(&finding, "percent"), number(&finding, "log_ops")), (50, 9));
        assert!(finding.words.contains("after op 8 is not complete"), "{}", finding.words);
        status.replica.checkpoint_taken = OpNumber(8);
        let finding = only(&status, Cause::LogGrows);
        assert!(finding.words.contains("that of op 8 here"), "{}", finding.words);
        status.replica.resting_for = status.config.heartbeat_interval * 20;
        let explanation = explain(&status);
        assert!(explanation.is_well() && explanation.about(Cause::LogGrows).is_none());
        let words = &explanation.about(Cause::LogRests).unwrap().words;
        assert!(words.contains("50 % full and stands still"), "{words}");
        status.replica.resting_for -= Duration::from_nanos(1);
        only(&status, Cause::LogGrows);
        status.config.log_ops_max = 19;
        assert!(explain(&status).is_well(), "there is room");
        status.replica.log_bytes = status.config.log_bytes_max / 4 * 3;
        assert_eq!(number(&only(&status, Cause::LogGrows), "percent"), 75);
        status.config.checkpoint_ops = 0;
        status.replica.checkpoint_due = OpNumber(0);
        assert!(only(&status, Cause::LogGrows).words.contains("checkpoint_ops is 0"));
        status.replica.resting_for = Duration::from_secs(60);
        only(&status, Cause::LogGrows);
        status.config.log_ops_max = 9;
        assert_eq!(explain(&status).about(Cause::LogGrows), None);
        status.config.checkpoint_ops = 4;
        status.replica.checkpoint_due = OpNumber(8);
        assert_eq!(explain(&status).about(Cause::LogRests), None);
        only(&status, Cause::LogFull);
    }

    #[test]
    fn a_state_on_disk_that_waits_for_the_log_is_told_from_one_that_is_made_anew() {
        let mut status = healthy();
        status.replica.state_waits = Some(OpNumber(12));
        let finding = only(&status, Cause::StateWaiting);
        assert_eq!((number(&finding, "state"), number(&finding, "commit_number")), (12, 8));
        status.replica.state_waits = None;
        status.replica.restoring = Some(OpNumber(4));
        assert!(only(&status, Cause::StateRestoring).words.contains("checkpoint of op 4"));
        let (op_number, base) = (OpNumber(2), OpNumber(4));
        status.discarded = Some(Discarded::Behind { op_number, base });
        assert!(only(&status, Cause::StateRestoring).words.contains("begins after op 4"));
        status.replica.restoring = None;
        assert!(explain(&status).is_well());
        status.replica.commit_number = OpNumber(5000);
        assert!(only(&status, Cause::StateRestoring).words.contains("again from the log"));
    }

    #[test]
    fn a_full_pipeline_names_who_acknowledged_what() {
        let mut status = healthy();
        status.replica.pipeline_ops = 1024;
        status.replica.acknowledged = vec![(ReplicaId(2), OpNumber(7))];
        assert!(only(&status, Cause::PipelineFull).words.contains("replica 2 op 7"));
        status.replica.pipeline_ops = 0;
        status.replica.pipeline_bytes = 16 << 20;
        only(&status, Cause::PipelineFull);
    }

    #[test]
    fn a_state_machine_that_falls_behind_is_named_with_its_op() {
        let mut status = healthy();
        status.replica.commit_number = OpNumber(5000);
        status.executor.applying = Some(OpNumber(9));
        assert!(only(&status, Cause::ExecutorBehind).words.contains("op 9"));
    }

    #[test]
    fn a_stopped_node_tells_the_whole_chain_of_causes() {
        let mut status = healthy();
        status.stopped = Some(NodeError::Storage(Arc::new(StorageError::Poisoned)));
        let words = only(&status, Cause::Stopped).words;
        assert!(words.contains("storage failed: an earlier write"), "{words}");
    }

    #[test]
    fn a_backup_that_lacks_more_than_a_pipeline_is_catching_up() {
        let mut status = healthy();
        let primary = |op, log_view| {
            let status = StatusKind::Normal;
            let op_number = OpNumber(op);
            (ReplicaId(1), Standing { log_view, op_number, status, heard: heard(&[0, 1, 2]) })
        };
        let most = 9 + u64::from(status.config.pipeline_ops_max);
        status.replica.standings = vec![primary(most, View(1))];
        assert!(explain(&status).is_well(), "so much may be on its way");
        status.replica.standings = vec![primary(most + 1, View(1))];
        assert_eq!(number(&only(&status, Cause::CatchingUp), "behind"), most + 1 - 9);
        status.replica.standings = vec![primary(most + 1, View(0))];
        assert!(explain(&status).is_well(), "another log");
    }

    #[test]
    fn a_node_that_was_shut_down_is_not_well() {
        let mut status = healthy();
        status.has_stopped = true;
        assert!(only(&status, Cause::Stopped).words.contains("shut down"));
        assert!(!explain(&status).is_well());
    }

    #[test]
    fn a_missing_member_costs_spare_but_not_health() {
        let mut status = healthy();
        status.replica.heard = heard(&[0, 1]);
        let explanation = explain(&status);
        assert!(explanation.is_well());
        assert_eq!(number(explanation.about(Cause::MembersMissing).unwrap(), "spare"), 0);
    }

    #[test]
    fn a_group_of_two_tolerates_nothing() {
        let mut status = healthy();
        status.replica.members.pop();
        status.replica.heard = heard(&[0, 1]);
        assert!(explain(&status).about(Cause::ToleratesNothing).is_some());
        assert!(explain(&healthy()).about(Cause::ToleratesNothing).is_none());
    }

    #[test]
    fn complaints_of_the_transport_are_passed_on() {
        let mut status = healthy();
        status.transport.complaints = vec!["replica 2 speaks version 9".into()];
        let explanation = explain(&status);
        assert!(explanation.to_string().contains("speaks version 9"), "{explanation}");
    }

    fn standing(status: StatusKind, log_view: u64) -> Standing {
        Standing {
            log_view: View(log_view),
            op_number: OpNumber(9),
            status,
            heard: ReplicaSet::EMPTY,
        }
    }

    #[test]
    fn a_wiped_disk_is_told_apart_from_waiting() {
        let mut status = healthy();
        status.replica.status = StatusKind::Blank;
        status.replica.foreign_certificate = Some(ReplicaId(1));
        let finding = only(&status, Cause::WipedDisk);
        assert!(finding.words.contains("replica 1") && finding.words.contains("not enough"));
        assert_eq!(explain(&status).about(Cause::Blank), None);
        status.replica.rebuilding = true;
        assert!(only(&status, Cause::WipedDisk).words.contains("comes back"));
        status.replica.members.pop();
        assert!(only(&status, Cause::WipedDisk).remedy.contains("backup"));
    }

    #[test]
    fn a_group_whose_logs_are_lost_says_who_is_missing() {
        let mut status = healthy();
        status.replica.status = StatusKind::Recovering;
        status.replica.trust = Trust::Lost;
        status.replica.heard.remove(ReplicaIndex(1));
        status.replica.standings = vec![(ReplicaId(2), standing(StatusKind::Recovering, 1))];
        let finding = only(&status, Cause::LogLost);
        assert!(finding.words.contains("no replica that is up has a log"), "{}", finding.words);
        assert!(finding.remedy.contains("start replica 1"), "{}", finding.remedy);
        status.replica.standings = vec![(ReplicaId(2), standing(StatusKind::ViewChange, 1))];
        let finding = only(&status, Cause::LogLost);
        assert!(finding.words.contains("replica 2 has the log of view 1"), "{}", finding.words);
        assert!(finding.remedy.contains("the primary is 1"), "{}", finding.remedy);
    }

    #[test]
    fn an_ordinary_view_change_is_no_loss() {
        let mut status = healthy();
        status.replica.status = StatusKind::ViewChange;
        status.replica.standings = vec![(ReplicaId(2), standing(StatusKind::ViewChange, 1))];
        assert_eq!(explain(&status).about(Cause::LogLost), None);
    }
}
