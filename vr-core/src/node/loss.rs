//! Why a replica that lost its log or its disk waits, and for whom, put into words.

use crate::{
    model::{
        durable::{Durability, Trust},
        message::{Standing, StatusKind},
        types::{ReplicaId, View},
    },
    node::{
        finding::{Cause, Finding, count, names, silent},
        status::NodeStatus,
    },
};

/// This replica's disk is not the one that the group knows.
pub(crate) fn wiped_disk(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    let teller = replica.foreign_certificate?;
    let others = replica.members.len().saturating_sub(1);
    let quorum = replica.members.len() / 2 + 1;
    let what = match replica.durability {
        Durability::Full | Durability::ViewOnly => "its disk was wiped or exchanged",
        Durability::Diskless => "its process started anew and remembers nothing",
    };
    let remedy = if others < quorum {
        format!(
            "a group of {} cannot bring such a replica back, because {quorum} others are needed: \
             start from a backup",
            replica.members.len()
        )
    } else {
        format!(
            "nothing, if {quorum} other replicas are up and in a view that has started, silent: {}; if \
             so many disks are gone that there are not, restart what survived by force",
            names(&silent(status))
        )
    };
    Some(Finding {
        cause: Cause::WipedDisk,
        words: format!(
            "replica {teller} says that the group was founded by another disk than that of replica \
             {}: {what}; {}",
            replica.replica,
            match replica.rebuilding {
                true => "everything comes back from the others",
                false => "not enough others have told so yet to begin",
            }
        ),
        numbers: vec![("told_by", teller.0), ("needed", count(quorum))],
        remedy,
    })
}

/// Replicas are without their logs, this one or others, and no view starts.
pub(crate) fn log_lost(status: &NodeStatus) -> Option<Finding> {
    let replica = &status.replica;
    if !matches!(replica.status, StatusKind::Recovering | StatusKind::ViewChange) {
        return None;
    }
    let standings = &replica.standings;
    let mut lost: Vec<(ReplicaId, View)> = Vec::new();
    let mut intact: Vec<(ReplicaId, View)> = Vec::new();
    if replica.trust == Trust::Lost {
        lost.push((replica.replica, replica.log_view));
    } else {
        intact.push((replica.replica, replica.log_view));
    }
    for (id, Standing { status, log_view, .. }) in standings {
        match status {
            StatusKind::Recovering => lost.push((*id, *log_view)),
            StatusKind::Normal | StatusKind::ViewChange => intact.push((*id, *log_view)),
            StatusKind::Blank => {}
        }
    }
    let forgotten = lost.iter().map(|(_, view)| *view).max()?;
    let ids =
        |list: &[(ReplicaId, View)]| names(&list.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    let silent = silent(status);
    let (words, remedy) = match intact.iter().map(|(_, view)| *view).max() {
        None => (
            "no replica that is up has a log".to_owned(),
            match silent.is_empty() {
                true => "all logs are lost: start again from a backup, or restart the group by \
                         force, which loses acknowledged operations"
                    .to_owned(),
                false => format!("start replica {}: what it holds is needed", names(&silent)),
            },
        ),
        Some(latest) => {
            let members = count(replica.members.len()).max(1);
            let position = usize::try_from(latest.0 % members).unwrap_or(0);
            let primary = replica.members.get(position).copied().unwrap_or_default();
            (
                format!(
                    "replica {} has the log of view {latest}; what was acknowledged in view \
                     {forgotten} may be missing there",
                    ids(&intact)
                ),
                format!(
                    "a view starts by itself as soon as the primary answers or a quorum with logs \
                     is up; start or reconnect replica {} (of view {latest} the primary is {primary})",
                    names(&silent)
                ),
            )
        }
    };
    Some(Finding {
        cause: Cause::LogLost,
        words: format!("replica {} lost its log in a crash; {words}", ids(&lost)),
        numbers: vec![
            ("lost", count(lost.len())),
            ("intact", count(intact.len())),
            ("log_view_lost", forgotten.0),
        ],
        remedy,
    })
}
