//! Ends that go away, and come back.

use crate::{
    conformance::{
        report::{Outcome, ensure},
        transport::{
            bench::{Bench, End, client, peer, replica},
            carrying::until_numbers,
            meeting::only_client,
            samples,
        },
    },
    ports::transport::{Backpressure, Closed},
};

pub(crate) async fn the_end_of_a_replica_is_told(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one, two]: [End; 3] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    bench.until_connected(asking, peer(0)).await?;
    bench.drop_end(zero);
    for end in [one, two, asking] {
        bench.until_disconnected(end, peer(0)).await?;
        unreachable(bench, end)?;
    }
    bench.say(one, peer(2), samples::control(1))?;
    bench.until_got(two, peer(1), &samples::control(1)).await
}

pub(crate) async fn the_end_of_a_client_is_told(bench: &mut Bench<'_>) -> Outcome {
    let [zero]: [End; 1] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    let from_client = only_client(bench, zero).await?;
    bench.drop_end(asking);
    bench.until_disconnected(zero, from_client).await?;
    let sent = bench.send(zero, from_client, samples::reply(1));
    ensure(sent == Err(Backpressure::NotConnected), || {
        format!("A message to a client that is gone gave {sent:?}.")
    })
}

pub(crate) async fn a_closed_end_is_gone_for_the_others(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    close(bench, zero)?;
    bench.until_disconnected(one, peer(0)).await?;
    unreachable(bench, one)
}

pub(crate) async fn what_was_flushed_before_closing_arrives(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    for number in 0..50 {
        bench.say(zero, peer(1), samples::data(number, 10_000))?;
    }
    close(bench, zero)?;
    until_numbers(bench, one, peer(0), 50).await
}

pub(crate) async fn after_closing_nothing_goes_and_nothing_comes(bench: &mut Bench<'_>) -> Outcome {
    let [zero, one]: [End; 2] = bench.group().await?;
    close(bench, zero)?;
    bench.until_disconnected(one, peer(0)).await?;
    let sent = bench.send(zero, peer(1), samples::control(1));
    ensure(sent == Err(Backpressure::NotConnected), || {
        format!("A message from a closed transport gave {sent:?}.")
    })?;
    bench.transport(zero)?.close();
    let mut into = Vec::new();
    let received = bench.transport(zero)?.receive(&mut into).await;
    ensure(received == Err(Closed), || {
        format!("receive on a closed transport should return Closed, and returned {received:?}.")
    })
}

pub(crate) async fn closing_wakes_whoever_receives(bench: &mut Bench<'_>) -> Outcome {
    let [zero, _]: [End; 2] = bench.group().await?;
    let close = |bench: &Bench<'_>| bench.transport(zero).map(|transport| transport.close());
    let received = bench.received_after(zero, close).await?;
    ensure(received == Some(Err(Closed)), || {
        format!("A receive that waits while its transport is closed came to {received:?}.")
    })
}

pub(crate) async fn a_replica_comes_back(bench: &mut Bench<'_>) -> Outcome {
    let [mut zero, one]: [End; 2] = bench.group().await?;
    let asking = bench.start(client(1)).await?;
    bench.until_connected(asking, peer(0)).await?;
    for life in 0..3 {
        bench.drop_end(zero);
        for end in [one, asking] {
            bench.until_disconnected(end, peer(0)).await?;
        }
        zero = bench.start(replica(0)).await?;
        for end in [one, asking] {
            bench.until_connected(end, peer(0)).await?;
        }
        bench.until_connected(zero, peer(1)).await?;
        bench.say(one, peer(0), samples::control(life))?;
        bench.until_got(zero, peer(1), &samples::control(life)).await?;
        bench.say(zero, peer(1), samples::data(life, 10))?;
        bench.until_got(one, peer(0), &samples::data(life, 10)).await?;
    }
    Ok(())
}

pub(crate) async fn a_client_that_comes_back_is_somebody_else(bench: &mut Bench<'_>) -> Outcome {
    let [zero]: [End; 1] = bench.group().await?;
    let mut asking = bench.start(client(1)).await?;
    let first = only_client(bench, zero).await?;
    for number in 0..3 {
        bench.drop_end(asking);
        bench.until("the client's end", |bench| bench.peers(zero).is_empty()).await?;
        asking = bench.start(client(1)).await?;
        let again = only_client(bench, zero).await?;
        ensure(again != first, || {
            format!("A new connection has the number of an old one: {again}.")
        })?;
        let late = bench.send(zero, first, samples::reply(100));
        ensure(late == Err(Backpressure::NotConnected), || {
            format!("A late reply to a connection that is gone gave {late:?}.")
        })?;
        bench.until_connected(asking, peer(0)).await?;
        bench.say(zero, again, samples::reply(number))?;
        bench.until_got(asking, peer(0), &samples::reply(number)).await?;
    }
    Ok(())
}

fn close(bench: &mut Bench<'_>, end: End) -> Outcome {
    bench.set_receiving(end, false);
    bench.transport(end)?.close();
    Ok(())
}

fn unreachable(bench: &Bench<'_>, end: End) -> Outcome {
    let sent = bench.send(end, peer(0), samples::control(1));
    ensure(sent == Err(Backpressure::NotConnected), || {
        format!("A message to a replica that is gone gave {sent:?}.")
    })
}
