//! The programs of the README and of the guide, compiled and run as documentation tests.

#[doc = include_str!("../../README.md")]
mod readme {}

#[doc = include_str!("../../docs/GUIDE.md")]
mod guide {}
