//! Who hears of whom, and who is not there.

use crate::{
    conformance::{
        report::{Failure, Outcome, ensure},
        transport::{
            bench::{Bench, End, client, peer, replica},
            samples,
        },
    },
    model::{
        message::Envelope,
        types::{ConnectionId, Peer},
    },
    ports::transport::{Backpressure, TransportError},
};

pub(crate) async fn replicas_hear_of_each_other(bench: &mut Bench<'_>) -> Outcome {
    let ends: [End; 3] = bench.group().await?;
    for (end, id) in ends.into_iter().zip(0..) {
        for other in (0..3).filter(|other| *other != id) {
            bench.say(end, peer(other), samples::control(id))?;
        }
    }
    for (end, id) in ends.into_iter().zip(0..) {
        for other in (0..3).filter(|other| *other != id) {
            bench.until_got(end, peer(other), &samples::control(other)).await?;
        }
    }
    Ok(())
}

pub(crate) async fn whoever_starts_late_is_heard_of(bench: &mut Bench<'_>) -> Outcome {
    bench.prepare(3).await;
    let two = bench.start(replica(2)).await?;
    let zero = bench.start(replica(0)).await?;
    bench.until_connected(two, peer(0)).await?;
    let too_early = bench.send(zero, peer(1), samples::control(1));
    ensure(too_early == Err(Backpressure::NotConnected), || {
        format!("A message to a member that has not started gave {too_early:?}.")
    })?;
    let one = bench.start(replica(1)).await?;
    for end in [zero, two] {
        bench.until_connected(end, peer(1)).await?;
        bench.say(end, peer(1), samples::control(7))?;
    }
    for other in [0, 2] {
        bench.until_got(one, peer(other), &samples::control(7)).await?;
    }
    Ok(())
}

pub(crate) async fn a_client_and_every_member_hear_of_each_other(bench: &mut Bench<'_>) -> Outcome {
    let ends: [End; 3] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    for (end, id) in ends.into_iter().zip(0..) {
        bench.until_connected(asking, peer(id)).await?;
        bench.say(asking, peer(id), samples::data(id, 10))?;
        let from = only_client(bench, end).await?;
        bench.until_got(end, from, &samples::data(id, 10)).await?;
        bench.say(end, from, samples::reply(id))?;
        bench.until_got(asking, peer(id), &samples::reply(id)).await?;
    }
    Ok(())
}

pub(crate) async fn clients_are_told_apart(bench: &mut Bench<'_>) -> Outcome {
    let [zero]: [End; 1] = bench.group().await?;
    let mut asking = Vec::new();
    for number in 1..=3 {
        let end = bench.start(client(u128::from(number))).await?;
        bench.until_connected(end, peer(0)).await?;
        bench.say(end, peer(0), samples::data(number, 10))?;
        asking.push((number, end));
    }
    for (number, _) in &asking {
        let request = samples::data(*number, 10);
        let what = format!("the request of client {number}");
        let is_asked = |(_, envelope): &(Peer, &Envelope)| **envelope == request;
        bench.until(&what, |bench| bench.envelopes(zero).any(|got| is_asked(&got))).await?;
        let Some((from, _)) = bench.envelopes(zero).find(is_asked) else { continue };
        bench.say(zero, from, samples::reply(*number))?;
    }
    for (number, end) in asking {
        bench.until_got(end, peer(0), &samples::reply(number)).await?;
        let strays =
            bench.envelopes(end).filter(|(_, envelope)| **envelope != samples::reply(number));
        let strays = strays.count();
        ensure(strays == 0, || {
            format!("Client {number} got {strays} messages that were meant for others.")
        })?;
        let clients = bench.peers(end).iter().filter(|peer| matches!(peer, Peer::Client(_)));
        let clients = clients.count();
        ensure(clients == 0, || "A client was told of another client.".to_owned())?;
    }
    Ok(())
}

pub(crate) async fn nobody_is_reached_before_the_start(bench: &mut Bench<'_>) -> Outcome {
    bench.prepare(2).await;
    for role in [replica(0), client(1)] {
        let end = bench.unstarted(role).await;
        let sent = bench.send(end, peer(1), samples::control(1));
        ensure(sent == Err(Backpressure::NotConnected), || {
            format!("A message from {role:?}, which was not started, gave {sent:?}.")
        })?;
        bench.transport(end)?.close();
    }
    Ok(())
}

pub(crate) async fn a_transport_is_started_once(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    let again = bench.try_start(zero, "conformance");
    ensure(matches!(again, Err(TransportError::Misused { .. })), || {
        format!("A second start should be TransportError::Misused, and was {again:?}.")
    })?;
    bench.say(one, peer(0), samples::control(1))?;
    bench.until_got(zero, peer(1), &samples::control(1)).await
}

pub(crate) async fn strangers_are_not_connected(bench: &mut Bench<'_>) -> Outcome {
    let [zero, _]: [End; 2] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    bench.until_connected(asking, peer(0)).await?;
    let nobody = Peer::Client(ConnectionId(u64::MAX));
    let pairs = [
        (zero, peer(0), "itself"),
        (zero, peer(77), "no member"),
        (zero, nobody, "a client that never was"),
        (asking, peer(77), "no member"),
        (asking, nobody, "a client"),
    ];
    for (from, to, what) in pairs {
        let sent = bench.send(from, to, samples::control(1));
        ensure(sent == Err(Backpressure::NotConnected), || {
            format!("A message to {to}, which is {what}, gave {sent:?}.")
        })?;
    }
    Ok(())
}

pub(crate) async fn another_group_is_not_heard(bench: &mut Bench<'_>) -> Outcome {
    let [zero]: [End; 1] = bench.group().await?;
    let stranger = bench.unstarted(client(1)).await;
    bench
        .try_start(stranger, "another group")
        .map_err(|error| Failure(format!("A client cannot be started: {error}.")))?;
    let asking = bench.start(client(2)).await?;
    bench.until_connected(asking, peer(0)).await?;
    for number in 0..20 {
        bench.say(asking, peer(0), samples::data(number, 10))?;
        let from = only_client(bench, zero).await?;
        bench.until_got(zero, from, &samples::data(number, 10)).await?;
    }
    let sent = bench.send(stranger, peer(0), samples::data(100, 10));
    ensure(sent == Err(Backpressure::NotConnected), || {
        format!("A client of another group sent a message, which gave {sent:?}.")
    })?;
    ensure(bench.peers(stranger).is_empty(), || {
        "A client of another group was told of a connection.".to_owned()
    })
}

/// How `end` calls the one client that it is connected with.
pub(crate) async fn only_client(bench: &mut Bench<'_>, end: End) -> Result<Peer, Failure> {
    let is_client = |peer: &&Peer| matches!(peer, Peer::Client(_));
    let what = "a member to hear of its client";
    bench.until(what, |bench| bench.peers(end).iter().any(|peer| is_client(&peer))).await?;
    let mut clients = bench.peers(end).iter().filter(is_client);
    match (clients.next(), clients.next()) {
        (Some(client), None) => Ok(*client),
        (_, second) => Err(Failure(format!("There should be one client; there is {second:?}."))),
    }
}
