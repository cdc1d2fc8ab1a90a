//! Draws a history as text: a line per client, time to the right.

use core::fmt::Write;
use std::collections::BTreeMap;

use crate::linearizability::{history::Call, model::Model};

/// The most columns of a drawing.
pub(crate) const COLUMNS_MAX: usize = 100;
/// The most characters of a call's description.
const WORDS_MAX: usize = 72;

/// A call with the columns it takes.
struct Bar {
    line: usize,
    from: usize,
    /// `None`: it reaches the right margin.
    to: Option<usize>,
    label: String,
}

/// Draws `calls`, with what they are about written into them, or below if that is too wide.
pub(crate) fn draw<M: Model>(model: &M, calls: &[&Call<M::Operation, M::Outcome>]) -> String {
    let words: Vec<String> = calls.iter().map(|call| words(model, call)).collect();
    let (lines, bars) = layout(calls, &words);
    let width = width(&lines, &bars);
    if width <= COLUMNS_MAX {
        return render(&lines, &bars, width);
    }
    let numbers: Vec<String> = (1..=calls.len()).map(|number| format!("#{number}")).collect();
    let mut legend = String::new();
    for (number, words) in numbers.iter().zip(&words) {
        _ = writeln!(legend, "{number:>5}  {words}");
    }
    let (lines, bars) = layout(calls, &numbers);
    let width = self::width(&lines, &bars);
    if width <= COLUMNS_MAX {
        return format!("{}\n{legend}", render(&lines, &bars, width));
    }
    table(calls, &words)
}

fn words<M: Model>(model: &M, call: &Call<M::Operation, M::Outcome>) -> String {
    let outcome = call.returned.as_ref().and_then(|end| end.outcome.as_ref());
    let words: String = model.describe(&call.operation, outcome);
    let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut plain: String = plain.collect();
    if plain.chars().count() > WORDS_MAX {
        let (half, count) = (WORDS_MAX / 2 - 1, plain.chars().count());
        let begin: String = plain.chars().take(half).collect();
        let end: String = plain.chars().skip(count - half).collect();
        plain = format!("{begin}..{end}");
    }
    plain
}

/// Gives every beginning and end a column of its own, in the order of time, so far apart that the
/// labels fit. Overlapping calls of one client get lines of their own.
fn layout(calls: &[&Call<impl Sized, impl Sized>], labels: &[String]) -> (Vec<String>, Vec<Bar>) {
    let begins = calls.iter().enumerate().map(|(at, call)| (call.called, false, at));
    let ends = calls.iter().enumerate();
    let ends = ends.filter_map(|(at, call)| Some((call.returned.as_ref()?.at, true, at)));
    let mut moments: Vec<(u64, bool, usize)> = begins.chain(ends).collect();
    moments.sort_unstable();
    let mut bars: BTreeMap<usize, Bar> = BTreeMap::new();
    // Per client and line: whether it is free, and from which column on.
    let mut rows: BTreeMap<(u64, usize), (bool, usize)> = BTreeMap::new();
    let mut column = 0;
    for (_, ends, at) in moments {
        let (Some(call), Some(label)) = (calls.get(at), labels.get(at)) else { continue };
        if ends {
            let Some(bar) = bars.get_mut(&at) else { continue };
            column = (column + 1).max(bar.from + label.chars().count() + 5);
            bar.to = Some(column);
            rows.insert((call.client, bar.line), (true, column + 1));
        } else {
            let free = |line: &usize| rows.get(&(call.client, *line)).is_none_or(|row| row.0);
            let line = (0..).find(free).unwrap_or_default();
            let free_from = rows.get(&(call.client, line)).map_or(0, |row| row.1);
            column = (column + 1).max(free_from);
            rows.insert((call.client, line), (false, column));
            bars.insert(at, Bar { line, from: column, to: None, label: label.clone() });
        }
    }
    let mut lines = Vec::new();
    let numbers: BTreeMap<(u64, usize), usize> = rows.into_keys().zip(0..).collect();
    for (client, line) in numbers.keys() {
        let name = format!("client {client}");
        lines.push(if *line == 0 { name } else { String::new() });
    }
    for (at, bar) in &mut bars {
        let client = calls.get(*at).map_or(0, |call| call.client);
        bar.line = numbers.get(&(client, bar.line)).copied().unwrap_or_default();
    }
    (lines, bars.into_values().collect())
}

fn margin(lines: &[String]) -> usize {
    lines.iter().map(String::len).max().unwrap_or_default() + 1
}

fn width(lines: &[String], bars: &[Bar]) -> usize {
    let ends =
        bars.iter().map(|bar| bar.to.unwrap_or_else(|| bar.from + bar.label.chars().count() + 7));
    margin(lines) + ends.max().unwrap_or_default() + 1
}

fn render(lines: &[String], bars: &[Bar], width: usize) -> String {
    let margin = margin(lines);
    let mut drawing = String::new();
    for (number, name) in lines.iter().enumerate() {
        let mut line = format!("{name:margin$}");
        let mut on_line: Vec<&Bar> = bars.iter().filter(|bar| bar.line == number).collect();
        on_line.sort_by_key(|bar| bar.from);
        for bar in on_line {
            let from = margin + bar.from;
            line = format!("{line:from$}|-{} ", format_args!(" {}", bar.label));
            match bar.to {
                Some(to) => line = format!("{line:-<end$}|", end = margin + to),
                None => line = format!("{line:.<width$}"),
            }
        }
        _ = writeln!(drawing, "{}", line.trim_end());
    }
    drawing
}

/// What is too large to be drawn: the calls in the order in which they were made.
fn table(calls: &[&Call<impl Sized, impl Sized>], words: &[String]) -> String {
    let mut rows: Vec<_> = calls.iter().zip(words).collect();
    rows.sort_by_key(|(call, _)| call.called);
    let mut table = String::from("client, made, returned, call\n");
    for (call, words) in rows {
        let returned =
            call.returned.as_ref().map_or_else(|| "never".to_owned(), |end| end.at.to_string());
        _ = writeln!(table, "{} {} {returned} {words}", call.client, call.called);
    }
    table
}
