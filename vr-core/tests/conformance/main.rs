//! The conformance suites themselves: right implementations pass, and each wrong one is caught.

#[cfg(test)]
mod device;
#[cfg(test)]
mod on_disk;
#[cfg(test)]
mod services;
#[cfg(test)]
mod storages;
#[cfg(test)]
mod transports;
