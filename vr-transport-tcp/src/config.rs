//! Every limit and timeout of the transport, with its unit, its default and what happens at it.

use std::time::Duration;

use vr_core::model::encoding::WIRE_VERSION;

/// Limits and timeouts of one end of the transport; the two ends of a connection may differ.
///
/// | field | default | at the limit |
/// |---|---|---|
/// | `control_queue_bytes_max` | 4 MiB | `send` says queue full, the message is dropped |
/// | `data_queue_bytes_max` | 32 MiB | the same |
/// | `bulk_queue_bytes_max` | 8 MiB | the same |
/// | `client_queue_bytes_max` | 8 MiB | the same |
/// | `client_connections_max` | 10 000 | a further client is refused, with this number |
/// | `handshakes_max` | 256 | a further connection is closed without an answer |
/// | `handshake_timeout` | 2 s | the connection is closed; whoever dialled tries again |
/// | `frame_timeout` | 10 s | a peer that stops in the middle of a frame is disconnected |
/// | `redial_interval_min` | 10 ms | the first pause after a failed dial |
/// | `redial_interval_max` | 1 s | pauses stop doubling here |
/// | `keep_alive_interval` | 5 s | an idle connection is probed; three silent probes close it |
/// | `unacknowledged_timeout` | 10 s | a connection whose bytes nobody acknowledges is closed |
/// | `close_timeout` | 1 s | what could not be delivered after `close` is dropped |
/// | `complaints_max` | 64 | the oldest complaint that nobody read is dropped |
/// | `busy_poll` | 0 | whoever waits for messages sleeps at once |
/// | `wire_version_max` | 5 | a newer version is not offered; what only it can say is left out |
///
/// A queue takes one message even if that alone is over its limit, so that no message that
/// `message_bytes_max` allows is stuck for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Bytes queued for one replica on the control lane and not yet taken by the system.
    pub control_queue_bytes_max: u32,
    /// Bytes queued for one replica on the data lane and not yet taken by the system.
    pub data_queue_bytes_max: u32,
    /// Bytes queued for one replica on the bulk lane and not yet taken by the system.
    pub bulk_queue_bytes_max: u32,
    /// Bytes queued on one connection between a client and a replica, at either end.
    pub client_queue_bytes_max: u32,
    /// Connections of clients at one replica.
    pub client_connections_max: u32,
    /// Accepted connections that have not yet said who they are.
    pub handshakes_max: u32,
    /// From dialling, or from accepting, to the end of the handshake.
    pub handshake_timeout: Duration,
    /// How long a frame that has begun may go without a further byte.
    pub frame_timeout: Duration,
    /// Pause after the first failed dial; each is jittered down to as little as half.
    pub redial_interval_min: Duration,
    /// Longest pause between two dials.
    pub redial_interval_max: Duration,
    /// Idle time before the system probes a connection, and time between probes.
    pub keep_alive_interval: Duration,
    /// How long written bytes may stay unacknowledged by the other end's system.
    pub unacknowledged_timeout: Duration,
    /// How long a closing transport tries to deliver what was flushed.
    pub close_timeout: Duration,
    /// Complaints kept until somebody reads them.
    pub complaints_max: u32,
    /// For how long after the last message the sockets are asked again and again before the thread
    /// sleeps. A sleeping thread takes some 10 to 60 us to wake, on each way between two replicas;
    /// 100 to 200 us save that under load, at the price of so much of a processor after each
    /// message, heartbeats included. Meant for a thread that runs one replica and little else; 0
    /// for never.
    pub busy_poll: Duration,
    /// The newest wire version to speak, within those that this build knows. Each connection uses
    /// the newest one that both of its ends speak, so nothing has to be set for an upgrade; set it
    /// to the old version to keep a way back open until all members run the new build.
    pub wire_version_max: u16,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            control_queue_bytes_max: 4 << 20,
            data_queue_bytes_max: 32 << 20,
            bulk_queue_bytes_max: 8 << 20,
            client_queue_bytes_max: 8 << 20,
            client_connections_max: 10_000,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(2),
            frame_timeout: Duration::from_secs(10),
            redial_interval_min: Duration::from_millis(10),
            redial_interval_max: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(5),
            unacknowledged_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(1),
            complaints_max: 64,
            busy_poll: Duration::ZERO,
            wire_version_max: WIRE_VERSION,
        }
    }
}
