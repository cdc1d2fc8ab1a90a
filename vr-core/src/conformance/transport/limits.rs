//! Queues have an end, and nobody waits for a later lane or for another peer.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        transport::{
            bench::{Bench, End, MESSAGE_BYTES_MAX, QUEUED_MAX, peer},
            carrying::until_numbers,
            samples,
        },
    },
    model::{message::Envelope, types::Peer},
    ports::transport::{Backpressure, Received},
};

/// Payload of what queues are filled with.
pub(crate) const FILLER_BYTES: usize = 100_000;
/// Messages from one peer that one call may return.
const CALL_MESSAGES_MAX: usize = 256;
/// About as many bytes from one peer as one call may return: twice the mebibyte that is named.
const CALL_BYTES_MAX: usize = 2 << 20;

pub(crate) async fn a_message_over_the_limit_is_refused(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    let bytes = usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX) + 1;
    for too_large in [samples::data(1, bytes), samples::bulk(1, bytes)] {
        let sent = bench.send(zero, peer(1), too_large);
        ensure(sent == Err(Backpressure::TooLarge), || {
            format!("A message of more than {MESSAGE_BYTES_MAX} bytes gave {sent:?}.")
        })?;
    }
    bench.say(zero, peer(1), samples::data(2, 10))?;
    bench.until_got(one, peer(0), &samples::data(2, 10)).await
}

pub(crate) async fn a_queue_has_an_end(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    let lanes: [fn(u64) -> Envelope; 2] = [filler, bulk_filler];
    for make in lanes {
        fill(bench, zero, peer(1), make)?;
    }
    Ok(())
}

pub(crate) async fn what_a_full_queue_took_arrives_and_makes_room(
    bench: &mut Bench<'_>,
) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    let taken = fill(bench, zero, peer(1), filler)?;
    bench.set_receiving(one, true);
    until_numbers(bench, one, peer(0), taken).await?;
    bench.say_with_patience(zero, peer(1), &filler(taken)).await?;
    until_numbers(bench, one, peer(0), taken + 1).await
}

pub(crate) async fn every_lane_has_room_of_its_own(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    fill(bench, zero, peer(1), bulk_filler)?;
    bench.say(zero, peer(1), samples::data(1, 10))?;
    fill(bench, zero, peer(1), |number| filler(number + 2))?;
    bench.say(zero, peer(1), samples::control(1))?;
    bench.set_receiving(one, true);
    bench.until_got(one, peer(0), &samples::control(1)).await?;
    bench.until_got(one, peer(0), &samples::data(1, 10)).await
}

pub(crate) async fn control_overtakes_data(bench: &mut Bench<'_>) -> Outcome {
    overtakes(bench, filler, &samples::control(1)).await
}

pub(crate) async fn control_overtakes_bulk(bench: &mut Bench<'_>) -> Outcome {
    overtakes(bench, bulk_filler, &samples::control(1)).await
}

pub(crate) async fn data_overtakes_bulk(bench: &mut Bench<'_>) -> Outcome {
    overtakes(bench, bulk_filler, &samples::data(1, 10)).await
}

/// Fills a lane, sends `urgent` on an earlier one, and requires that it is not the last to come.
async fn overtakes(bench: &mut Bench<'_>, make: fn(u64) -> Envelope, urgent: &Envelope) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    let taken = fill(bench, zero, peer(1), make)?;
    bench.say(zero, peer(1), urgent.clone())?;
    bench.set_receiving(one, true);
    bench.until_got(one, peer(0), urgent).await?;
    let before = bench.envelopes(one).take_while(|(_, envelope)| *envelope != urgent).count();
    let all = usize::try_from(taken).unwrap_or(usize::MAX);
    ensure(before < all, || {
        format!("It came after all of {all} messages that waited on a later lane.")
    })
}

pub(crate) async fn one_call_returns_few_messages_of_one_peer(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    let enough = 0..1000;
    let taken =
        enough.take_while(|number| bench.send(zero, peer(1), samples::data(*number, 1)).is_ok());
    let taken = u64::try_from(taken.count()).unwrap_or(u64::MAX);
    bench.set_receiving(one, true);
    calls(bench, one, taken, |new| {
        ensure(new.len() <= CALL_MESSAGES_MAX, || {
            let count = new.len();
            format!("One call returned {count} messages of a peer; {CALL_MESSAGES_MAX} are enough.")
        })
    })
    .await
}

pub(crate) async fn one_call_returns_few_bytes_of_one_peer(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    let enough = 0..60;
    let taken = enough.take_while(|number| bench.send(zero, peer(1), filler(*number)).is_ok());
    let taken = u64::try_from(taken.count()).unwrap_or(u64::MAX);
    bench.set_receiving(one, true);
    calls(bench, one, taken, |new| {
        ensure(new.len() * FILLER_BYTES <= CALL_BYTES_MAX, || {
            let count = new.len();
            format!("One call returned {count} messages of {FILLER_BYTES} bytes of one peer.")
        })
    })
    .await
}

/// Receives until `count` messages have come, and looks at what each call returned.
async fn calls(
    bench: &mut Bench<'_>,
    end: End,
    count: u64,
    look: impl Fn(&[Received]) -> Outcome,
) -> Outcome {
    let (mut at, mut numbers) = (bench.got(end).len(), 0);
    while numbers < count {
        let moved = bench.step().await?;
        let new = bench.got(end).get(at..).unwrap_or_default();
        look(new)?;
        ensure(moved, || format!("Only {numbers} of {count} messages came."))?;
        at += new.len();
        numbers += u64::try_from(new.len()).unwrap_or(u64::MAX);
    }
    Ok(())
}

pub(crate) async fn a_flood_of_one_peer_stops_no_other(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one, two]: [End; 3] = bench.group().await?;
    bench.set_receiving(zero, false);
    let mut next = fill(bench, one, peer(0), filler)?;
    bench.set_receiving(zero, true);
    let (waiting, patience) = (next, next * 4 + 1_000);
    let mut said = false;
    let quiet = filler(u64::MAX);
    while !bench.envelopes(zero).any(|(from, envelope)| from == peer(2) && *envelope == quiet) {
        // The flood comes first, each time, and leaves no room where room is shared.
        while bench.send(one, peer(0), filler(next)).is_ok() {
            next += 1;
        }
        said = said || bench.send(two, peer(0), quiet.clone()).is_ok();
        ensure(next < patience, || {
            format!(
                "Another peer's message {} while {} messages of a flood were let through.",
                if said { "did not arrive" } else { "was not even taken" },
                next - waiting
            )
        })?;
        bench.step().await?;
    }
    Ok(())
}

/// Sends to a peer that does not receive until its queue is full; returns how many were taken.
fn fill(
    bench: &Bench<'_>,
    from: End,
    to: Peer,
    make: impl Fn(u64) -> Envelope,
) -> Result<u64, Failure> {
    for number in 0..QUEUED_MAX {
        match bench.send(from, to, make(number)) {
            Ok(()) => {}
            Err(Backpressure::QueueFull) => return Ok(number),
            Err(other) => {
                return Err(Failure(format!("A full queue should say so; it said {other:?}.")));
            }
        }
    }
    Err(Failure(format!(
        "{QUEUED_MAX} messages of {FILLER_BYTES} bytes were taken for a peer that does not \
         receive; a queue must have an end, and say Backpressure::QueueFull at it."
    )))
}

fn filler(number: u64) -> Envelope {
    samples::data(number, FILLER_BYTES)
}

fn bulk_filler(number: u64) -> Envelope {
    samples::bulk(number, FILLER_BYTES)
}
