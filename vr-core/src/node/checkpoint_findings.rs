//! What keeps checkpoints from arriving, from counting, and a state from being whole, put into words.

use core::time::Duration;

use crate::{
    model::{checkpoint::CHUNK_BYTES, config::Config, message::StatusKind, types::OpNumber},
    node::{
        finding::{Cause, Finding, names, silent},
        status::NodeStatus,
    },
    replica::io::Discarded,
};

/// Retry intervals that pass without anything new of a checkpoint that comes along; twice as many as
/// a question for a part of it is waited for.
const STALL: u32 = 20;

/// Heartbeats that find the log with the same last op until it counts as standing still. Whatever
/// brings a checkpoint to a group that stands still does so within a few.
const REST: u32 = 20;

/// A checkpoint is on its way here.
pub(crate) fn fetching(status: &NodeStatus) -> Option<Finding> {
    let (op_number, here, chunks) = status.replica.snapshot?;
    let fetching = status.fetching.unwrap_or_default();
    let milliseconds = u64::try_from(fetching.idle.as_millis()).unwrap_or(u64::MAX);
    let mut words = format!("the checkpoint of op {op_number} is fetched from the others: ");
    words += &match chunks {
        0 => "nobody has told yet what is in it".to_owned(),
        _ if here < chunks => format!("{here} of {chunks} chunks are here"),
        _ => format!("all {chunks} chunks are here, and it is put to use"),
    };
    if fetching.begun > 1 {
        let before = fetching.begun - 1;
        words += &format!("; {before} before it were given up, because nobody had them any more");
    }
    let stalled = fetching.idle >= patience(&status.config);
    if stalled {
        words += &format!("; nothing new for {milliseconds} ms");
    }
    let silent = silent(status);
    let remedy = if !stalled {
        "wait for it before another replica is stopped".to_owned()
    } else if here == chunks && chunks > 0 {
        "look at the disk of this machine: its load, its errors, its free space".to_owned()
    } else if silent.is_empty() {
        "look at the network from the other replicas to this one, and at their disks".to_owned()
    } else {
        format!("start replica {} again, or mend the network to it", names(&silent))
    };
    Some(Finding {
        cause: Cause::Fetching,
        words,
        numbers: vec![
            ("op_number", op_number.0),
            ("chunks_here", u64::from(here)),
            ("chunks", u64::from(chunks)),
            ("milliseconds", milliseconds),
            ("begun", fetching.begun),
        ],
        remedy,
    })
}

/// After how long without anything new a checkpoint does not come along any more: not before two
/// chunks are due while the group is busy.
fn patience(config: &Config) -> Duration {
    let seconds = (2 * u64::from(CHUNK_BYTES)).checked_div(config.fetch_bytes_per_second);
    let paced = Duration::from_secs(seconds.unwrap_or(0));
    config.retry_interval.saturating_mul(STALL).saturating_add(paced)
}

/// The replicas do not agree about the state.
pub(crate) fn checkpoints_differ(status: &NodeStatus) -> Option<Finding> {
    let op_number = status.replica.checkpoints_differ?;
    let held = status.replica.checkpoint.op_number;
    Some(Finding {
        cause: Cause::CheckpointsDiffer,
        words: format!(
            "no quorum has the same state after op {op_number}: the state machine is not \
             deterministic, or the replicas run different builds of it; nothing of the log above \
             op {held} is released"
        ),
        numbers: vec![("op_number", op_number.0), ("checkpoint", held.0)],
        remedy: format!(
            "find with conformance::state_machine::check what is not deterministic; a state in \
             memory is made again from op {held} on when its replica starts with what is mended"
        ),
    })
}

/// The log is full up to this many hundredths: of `log_ops_max` or of `log_bytes_max`, whichever is
/// more.
fn log_percent(status: &NodeStatus) -> u64 {
    let part = |used: u64, used_max| used.saturating_mul(100).checked_div(used_max).unwrap_or(100);
    let ops = part(log_ops(status), status.config.log_ops_max);
    ops.max(part(status.replica.log_bytes, status.config.log_bytes_max))
}

/// Ops of the log, as counted against `log_ops_max`.
pub(crate) fn log_ops(status: &NodeStatus) -> u64 {
    status.replica.op_number.since(status.replica.log_base)
}

/// The log is on its way to its limit, since it cannot begin after a later checkpoint.
pub(crate) fn log_grows(status: &NodeStatus) -> Option<Finding> {
    (is_log_kept(status) && !is_at_rest(status)).then(|| log_kept(status, Cause::LogGrows))
}

/// The same, but nothing is added to it: the next checkpoint that is due may well count.
pub(crate) fn log_rests(status: &NodeStatus) -> Option<Finding> {
    (is_log_kept(status) && is_at_rest(status)).then(|| log_kept(status, Cause::LogRests))
}

/// Whether half of the log's room is taken, and a checkpoint is missing that would have freed it.
fn is_log_kept(status: &NodeStatus) -> bool {
    let is_missed = status.replica.checkpoint_due > status.replica.checkpoint.op_number;
    log_percent(status) >= 50 && (is_missed || status.config.checkpoint_ops == 0)
}

/// Whether the group has ordered nothing for a while, and whatever it orders next brings a checkpoint.
fn is_at_rest(status: &NodeStatus) -> bool {
    let a_while = status.config.heartbeat_interval.saturating_mul(REST);
    status.config.checkpoint_ops > 0 && status.replica.resting_for >= a_while
}

fn log_kept(status: &NodeStatus, cause: Cause) -> Finding {
    let (replica, config) = (&status.replica, &status.config);
    let (held, due) = (replica.checkpoint.op_number, replica.checkpoint_due);
    let percent = log_percent(status);
    let (why, remedy) = if cause == Cause::LogRests {
        (
            format!("the one after op {due} does not count here"),
            "nothing, unless it goes on to grow; more operations bring the next checkpoint"
                .to_owned(),
        )
    } else if config.checkpoint_ops == 0 {
        (
            "no checkpoints are taken (checkpoint_ops is 0)".to_owned(),
            "say in checkpoint_ops, alike at all replicas, how often one is taken".to_owned(),
        )
    } else if replica.checkpoint_taken > held {
        let taken = replica.checkpoint_taken;
        (
            format!("no quorum has told of the same checkpoint as that of op {taken} here"),
            format!(
                "see that a quorum is up and takes checkpoints alike: checkpoint_ops and \
                 checkpoint_bytes must be the same at all replicas; silent: {}",
                names(&silent(status))
            ),
        )
    } else {
        (
            format!("the checkpoint that was due after op {due} is not complete"),
            "if this lasts, the state takes too long to write: look at the disk of this machine, \
             and let the state machine fork"
                .to_owned(),
        )
    };
    let (ops, bytes) = (log_ops(status), replica.log_bytes);
    let (ops_max, bytes_max) = (config.log_ops_max, config.log_bytes_max);
    let course = if cause == Cause::LogRests { "stands still" } else { "grows" };
    Finding {
        cause,
        words: format!(
            "the log is {percent} % full and {course} ({ops} of {ops_max} ops, {bytes} of \
             {bytes_max} bytes), for it begins after op {held}: {why}; at 100 % requests are \
             answered busy"
        ),
        numbers: vec![
            ("percent", percent),
            ("log_ops", ops),
            ("log_bytes", bytes),
            ("checkpoint", held.0),
            ("checkpoint_due", due.0),
        ],
        remedy,
    }
}

/// A state on disk by itself cannot be used yet.
pub(crate) fn state_waiting(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    let state = replica.state_waits.filter(|_| replica.status != StatusKind::Blank)?;
    let committed = replica.commit_number;
    Some(Finding {
        cause: Cause::StateWaiting,
        words: format!(
            "the state on this replica's disk contains op {state}, and what is known to be \
             committed here ends with op {committed}: nothing is executed before the log has come \
             as far"
        ),
        numbers: vec![("state", state.0), ("commit_number", committed.0)],
        remedy: "wait; the log comes from the others, as soon as a quorum is up".into(),
    })
}

/// The state is not there yet.
pub(crate) fn state_restoring(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    if replica.status == StatusKind::Blank || replica.state_waits.is_some() {
        return None;
    }
    let behind = replica.commit_number.since(replica.applied);
    let is_far_behind = behind >= u64::from(status.config.execute_ops_max);
    let again = status.discarded.filter(|_| is_far_behind);
    if replica.restoring.is_none() && again.is_none() {
        return None;
    }
    let mut words = match replica.restoring {
        Some(op_number) => format!("the state is being read from the checkpoint of op {op_number}"),
        None => format!("the state is being made again from the log, {behind} ops behind"),
    };
    if let Some(reason) = status.discarded {
        words += &format!(
            "; what was on the state machine's own disk was of no use: {}",
            no_use(reason)
        );
    }
    Some(Finding {
        cause: Cause::StateRestoring,
        words,
        numbers: vec![
            ("checkpoint", replica.restoring.unwrap_or(OpNumber::ZERO).0),
            ("behind", behind),
        ],
        remedy: "wait; nothing is executed or answered from the state before it is there".into(),
    })
}

fn no_use(reason: Discarded) -> String {
    match reason {
        Discarded::Unreadable => "it cannot be read".into(),
        Discarded::OtherGroup => "it belongs to another group, or to an epoch before".into(),
        Discarded::Behind { op_number, base } => {
            format!("it ends with op {op_number}, and the log begins after op {base}")
        }
    }
}
