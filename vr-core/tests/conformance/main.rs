//! The conformance suites themselves: right implementations pass, and each wrong one is caught.

#[cfg(test)]
mod services;
#[cfg(test)]
mod transports;
