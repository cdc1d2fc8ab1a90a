//! What may go wrong in a random run: named sets, and sets made of single kinds.

use core::fmt;
use std::str::FromStr;

/// What may go wrong in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    None,
    /// Messages are late, lost, doubled and overtaken, links are cut, connections break.
    Network,
    /// Processes crash and pause, disks are slow and forget what was not synced.
    Disk,
    /// All of that, and clocks jump.
    #[default]
    All,
    /// Just these kinds.
    Only(FaultKinds),
}

/// One kind of thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Messages are late, lost, doubled and overtaken, links are cut, connections break.
    Network,
    /// Processes crash, restart and pause.
    Process,
    /// Disks are slow, stall and fail.
    Disk,
    /// Clocks jump.
    Clock,
}

/// A set of [`FaultKind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultKinds(u8);

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Network, Self::Process, Self::Disk, Self::Clock];

    const fn bit(self) -> u8 {
        match self {
            Self::Network => 1,
            Self::Process => 2,
            Self::Disk => 4,
            Self::Clock => 8,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Process => "process",
            Self::Disk => "disk",
            Self::Clock => "clock",
        }
    }
}

impl FaultKinds {
    /// No kind.
    pub const NONE: Self = Self(0);

    /// The same with `kind`, or without it.
    #[must_use]
    pub const fn with(self, kind: FaultKind, on: bool) -> Self {
        let others = self.0 & !kind.bit();
        Self(if on { others | kind.bit() } else { others })
    }

    /// Whether `kind` is among them.
    #[must_use]
    pub const fn contains(self, kind: FaultKind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl Faults {
    /// Whether things of this kind go wrong.
    #[must_use]
    pub const fn contains(self, kind: FaultKind) -> bool {
        match self {
            Self::None => false,
            Self::Network => matches!(kind, FaultKind::Network),
            Self::Disk => matches!(kind, FaultKind::Process | FaultKind::Disk),
            Self::All => true,
            Self::Only(kinds) => kinds.contains(kind),
        }
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "network" => Ok(Self::Network),
            "disk" => Ok(Self::Disk),
            "all" => Ok(Self::All),
            other => {
                let sum = other.split('+').try_fold(FaultKinds::NONE, |kinds, name| {
                    let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == name)?;
                    Some(kinds.with(kind, true))
                });
                sum.map(Self::Only).ok_or_else(|| {
                    format!(
                        "'{other}' is none of none, network, disk, all, nor a sum like \
                         network+process, of network, process, disk, clock"
                    )
                })
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Network => f.write_str("network"),
            Self::Disk => f.write_str("disk"),
            Self::All => f.write_str("all"),
            Self::Only(kinds) => fmt::Display::fmt(kinds, f),
        }
    }
}

impl fmt::Display for FaultKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = FaultKind::ALL.into_iter().filter(|kind| self.contains(*kind));
        let names: Vec<&str> = kinds.map(FaultKind::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written() {
        for text in ["none", "network", "disk", "all", "network+process", "disk+clock", "process"] {
            assert_eq!(text.parse::<Faults>().map(|faults| faults.to_string()), Ok(text.into()));
        }
        assert!("weather".parse::<Faults>().is_err_and(|why| why.contains("network+process")));
    }

    #[test]
    fn disk_faults_are_those_of_processes_as_well() {
        assert!(Faults::Disk.contains(FaultKind::Process));
        assert!(!Faults::Disk.contains(FaultKind::Clock));
        let kinds = FaultKinds::NONE.with(FaultKind::Clock, true).with(FaultKind::Disk, true);
        assert!(Faults::Only(kinds).contains(FaultKind::Clock));
        assert!(!Faults::Only(kinds.with(FaultKind::Clock, false)).contains(FaultKind::Clock));
    }
}
