//! What was sent arrives, as it was and from whom it came.

use core::task::Poll;
use std::collections::BTreeSet;

use futures::future::poll_fn;

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        transport::{
            bench::{Bench, End, client, peer},
            meeting::only_client,
            samples,
        },
    },
    model::types::Peer,
    ports::transport::Received,
};

pub(crate) async fn every_kind_of_message_arrives_as_it_was(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    bench.until_connected(asking, peer(0)).await?;
    let from_client = only_client(bench, zero).await?;
    for sample in samples::of_a_replica() {
        bench.say(zero, peer(1), sample.clone())?;
        bench.until_got(one, peer(0), &sample).await?;
    }
    for sample in samples::of_a_client() {
        bench.say(asking, peer(0), sample.clone())?;
        bench.until_got(zero, from_client, &sample).await?;
    }
    for sample in samples::to_a_client() {
        bench.say(zero, from_client, sample.clone())?;
        bench.until_got(asking, peer(0), &sample).await?;
    }
    Ok(())
}

pub(crate) async fn payloads_of_all_sizes_arrive_as_they_were(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    let sizes = [0, 1, 63, 1_023, 1_024, 1_025, 4_097, 65_535, 65_537, 300_000, 1_000_000];
    for (bytes, number) in sizes.into_iter().zip(1..) {
        let sample = samples::data(number, bytes);
        bench.say_with_patience(zero, peer(1), &sample).await?;
    }
    for (bytes, number) in sizes.into_iter().zip(1..) {
        bench.until_got(one, peer(0), &samples::data(number, bytes)).await?;
    }
    Ok(())
}

pub(crate) async fn many_messages_arrive(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    for number in 0..5_000 {
        bench.say_with_patience(zero, peer(1), &samples::data(number, 20)).await?;
    }
    until_numbers(bench, one, peer(0), 5_000).await
}

pub(crate) async fn a_message_comes_from_whom_it_names(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one, two]: [End; 3] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    bench.until_connected(asking, peer(0)).await?;
    let from_client = only_client(bench, zero).await?;
    let senders = [(one, peer(1)), (two, peer(2)), (asking, from_client)];
    for round in 0..50 {
        for ((end, _), number) in senders.into_iter().zip(0..) {
            bench.say(end, peer(0), samples::data(round * 3 + number, 10))?;
        }
    }
    bench.until("all messages", |bench| numbers(bench, zero).len() >= 150).await?;
    for (from, envelope) in bench.envelopes(zero) {
        let Some(number) = samples::data_number(envelope) else { continue };
        let sent = senders.iter().zip(0..).find(|(_, place)| *place == number % 3);
        let sender = sent.map(|((_, sender), _)| *sender);
        ensure(sender == Some(from), || {
            format!("A message of {sender:?} was delivered as one from {from}.")
        })?;
    }
    Ok(())
}

pub(crate) async fn both_directions_carry_at_once(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    for number in 0..60 {
        for (from, to) in [(zero, peer(1)), (one, peer(0))] {
            bench.say_with_patience(from, to, &samples::data(number, 100_000)).await?;
        }
    }
    until_numbers(bench, zero, peer(1), 60).await?;
    until_numbers(bench, one, peer(0), 60).await
}

pub(crate) async fn whoever_receives_is_woken(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    for number in 0..20 {
        let say = |bench: &Bench<'_>| bench.say(zero, peer(1), samples::control(number));
        let received = bench.received_after(one, say).await?;
        ensure(received == Some(Ok(())), || {
            format!("A receive that waited when message {number} came was not woken to take it.")
        })?;
    }
    Ok(())
}

pub(crate) async fn receiving_appends(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    bench.say(zero, peer(1), samples::control(1))?;
    let before = Received::Envelope { from: peer(0), envelope: Box::new(samples::control(0)) };
    let mut into = vec![before.clone()];
    let mut patience = bench.harness.patience();
    let transport = bench.transport(one)?;
    let mut receive = transport.receive(&mut into);
    poll_fn(|context| match receive.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => patience.as_mut().poll(context),
    })
    .await;
    drop(receive);
    ensure(into.len() > 1 && into.first() == Some(&before), || {
        format!("receive must append; a vector with one item held {} afterwards.", into.len())
    })
}

pub(crate) async fn an_abandoned_receive_loses_nothing(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    bench.set_receiving(one, false);
    let mut got = BTreeSet::new();
    for number in 0..100 {
        bench.say(zero, peer(1), samples::data(number, 1_000))?;
        while !got.contains(&number) {
            let arrived = abandon_until_ready(bench, one).await?;
            let numbers = arrived.iter().filter_map(|received| match received {
                Received::Envelope { envelope, .. } => samples::data_number(envelope),
                Received::Connected(_) | Received::Disconnected(_) => None,
            });
            got.extend(numbers);
            ensure(!arrived.is_empty(), || {
                format!("Message {number} was lost with a receive that was dropped while pending.")
            })?;
        }
    }
    Ok(())
}

/// What a receive returns, each being dropped and replaced by another after a single poll; empty
/// if nothing comes.
async fn abandon_until_ready(bench: &Bench<'_>, end: End) -> Result<Vec<Received>, Failure> {
    let transport = bench.transport(end)?;
    let mut patience = bench.harness.patience();
    let arrived = poll_fn(|context| {
        let mut into = Vec::new();
        let polled = transport.receive(&mut into).as_mut().poll(context);
        if polled.is_ready() || !into.is_empty() {
            return Poll::Ready(into);
        }
        // A second one takes its place at once, so that the first one's waker is not enough.
        let polled = transport.receive(&mut into).as_mut().poll(context);
        if polled.is_ready() || !into.is_empty() {
            return Poll::Ready(into);
        }
        patience.as_mut().poll(context).map(|()| Vec::new())
    });
    Ok(arrived.await)
}

/// Waits until the numbers below `count` have come from `from`.
pub(crate) async fn until_numbers(
    bench: &mut Bench<'_>,
    end: End,
    from: Peer,
    count: u64,
) -> Outcome {
    let what = format!("all of {count} messages from {from}");
    let length = usize::try_from(count).unwrap_or(usize::MAX);
    bench.until(&what, |bench| numbers(bench, end).len() >= length).await?;
    let expected: BTreeSet<u64> = (0..count).collect();
    ensure(numbers(bench, end) == expected, || format!("Others came than the {count} sent."))
}

/// Numbers of the data that came to `end`.
fn numbers(bench: &Bench<'_>, end: End) -> BTreeSet<u64> {
    bench.envelopes(end).filter_map(|(_, envelope)| samples::data_number(envelope)).collect()
}
