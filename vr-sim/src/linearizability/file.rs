//! Histories as files: JSON, one call a line; the format is described in docs/TESTING.md.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::linearizability::history::{Call, History, HistoryError, Return};

/// The format that this code writes and reads.
const VERSION: u32 = 1;

/// The name of the key-value model in files.
pub const KV: &str = "kv";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    history: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "O: Deserialize<'de>, R: Deserialize<'de>"))]
struct Line<O, R> {
    client: u64,
    called: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    returned: Option<u64>,
    operation: O,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "present")]
    outcome: Option<R>,
}

const fn none<R>() -> Option<R> {
    None
}

/// A field that is there has a value, also if that is `null`.
fn present<'de, D: Deserializer<'de>, R: Deserialize<'de>>(from: D) -> Result<Option<R>, D::Error> {
    R::deserialize(from).map(Some)
}

/// Why a file is not a history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error(
        "the file is empty; its first line should be {{\"history\":\"{model}\",\"version\":1}}"
    )]
    Empty {
        /// The model that was expected.
        model: &'static str,
    },
    /// The first line names another model or another version.
    #[error("line 1: a history of '{found}', version {version}; expected '{model}', version 1")]
    Header {
        /// The model that the file names.
        found: String,
        /// The version that the file names.
        version: u32,
        /// The model that was expected.
        model: &'static str,
    },
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Writes `history`, whose operations and outcomes are those of the model called `model`.
///
/// # Errors
/// When `out` cannot be written, or an operation or an outcome is nothing that JSON can say.
pub fn write<O: Serialize + Clone, R: Serialize + Clone>(
    out: &mut impl Write,
    model: &str,
    history: &History<O, R>,
) -> io::Result<()> {
    let header = Header { history: model.to_owned(), version: VERSION };
    writeln!(out, "{}", serde_json::to_string(&header)?)?;
    for call in history.calls() {
        let line = Line {
            client: call.client,
            called: call.called,
            returned: call.returned.as_ref().map(|end| end.at),
            operation: call.operation.clone(),
            outcome: call.returned.as_ref().and_then(|end| end.outcome.clone()),
        };
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
    }
    out.flush()
}

/// Reads a history of the model called `model`; `fits` says whether an operation can have an
/// outcome of its kind. Empty lines do not count.
///
/// # Errors
/// [`FileError`], with the line, when the file is not such a history.
pub fn read<O: DeserializeOwned, R: DeserializeOwned>(
    from: impl BufRead,
    model: &'static str,
    fits: impl Fn(&O, &R) -> bool,
) -> Result<History<O, R>, FileError> {
    let mut history = History::new();
    let mut header = None;
    for (line, text) in (1..).zip(from.lines()) {
        let text = text?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |why: String| FileError::Line { line, why };
        if header.is_none() {
            let found: Header =
                serde_json::from_str(&text).map_err(|why| wrong(format!("no header: {why}")))?;
            if found.history != model || found.version != VERSION {
                let Header { history: found, version } = found;
                return Err(FileError::Header { found, version, model });
            }
            header = Some(found);
            continue;
        }
        let call: Line<O, R> = serde_json::from_str(&text).map_err(|why| wrong(why.to_string()))?;
        if call.returned.is_none() && call.outcome.is_some() {
            return Err(wrong("an outcome, but no time at which the call returned".to_owned()));
        }
        if call.outcome.as_ref().is_some_and(|outcome| !fits(&call.operation, outcome)) {
            return Err(wrong("the operation cannot have this kind of outcome".to_owned()));
        }
        let Line { client, called, returned, operation, outcome } = call;
        let returned = returned.map(|at| Return { at, outcome });
        let added = history.push(Call { client, operation, called, returned });
        added.map_err(|why: HistoryError| wrong(why.to_string()))?;
    }
    header.map(|_| history).ok_or(FileError::Empty { model })
}
