//! What the storage owes: nothing acknowledged is lost, nothing half done, no damage hidden.

#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod export;
#[cfg(test)]
mod export_checkpoint;
#[cfg(test)]
mod faulty_disk;
#[cfg(test)]
mod files;
#[cfg(test)]
mod history;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod power;
#[cfg(test)]
mod property;
#[cfg(test)]
mod real;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod restart_checkpoint;
#[cfg(test)]
mod superblocks;
