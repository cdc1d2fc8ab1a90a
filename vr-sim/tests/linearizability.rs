//! The linearizability checker against brute force, another checker, files and simulated runs.

#[cfg(test)]
mod linearizability {
    mod brute_force;
    mod command;
    mod drawings;
    mod evidence;
    mod executions;
    mod files;
    mod runs;
    mod second_opinion;
}
