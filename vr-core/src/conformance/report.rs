//! What a suite found, case by case.

use core::fmt;
use std::any::Any;

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The implementation did what it owes.
    Passed,
    /// It did not; the text says what was expected, what came, and what usually causes that.
    Failed(String),
    /// The case was not run; the text says what was missing for it.
    NotCovered(String),
}

/// The verdict on every case of a suite, in the order in which they were run.
///
/// Printed, it names each case that failed or was not covered, and counts the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a report that nobody looks at shows nothing"]
pub struct Report {
    suite: &'static str,
    verdicts: Vec<(String, Verdict)>,
}

impl Report {
    pub(crate) const fn new(suite: &'static str) -> Self {
        Self { suite, verdicts: Vec::new() }
    }

    pub(crate) fn add(&mut self, case: &str, verdict: Verdict) {
        self.verdicts.push((case.to_owned(), verdict));
    }

    /// Each case with its verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.verdicts.iter().map(|(case, verdict)| (case.as_str(), verdict))
    }

    /// What became of `case`; `None` when it was not asked for.
    #[must_use]
    pub fn verdict(&self, case: &str) -> Option<&Verdict> {
        self.verdicts().find_map(|(name, verdict)| (name == case).then_some(verdict))
    }

    /// Names of the cases that passed.
    #[must_use]
    pub fn passed(&self) -> Vec<&str> {
        self.named(|verdict| matches!(verdict, Verdict::Passed))
    }

    /// Names of the cases that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&str> {
        self.named(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// Names of the cases that were not run.
    #[must_use]
    pub fn not_covered(&self) -> Vec<&str> {
        self.named(|verdict| matches!(verdict, Verdict::NotCovered(_)))
    }

    /// Does nothing if no case failed and at least one passed.
    ///
    /// Cases that were not covered do not count as failures; compare
    /// [`not_covered`](Self::not_covered) with what you expect it to be.
    ///
    /// # Panics
    /// With the whole report, otherwise.
    #[track_caller]
    pub fn assert_passed(&self) {
        let fine = self.failed().is_empty() && !self.passed().is_empty();
        assert!(fine, "{self}");
    }

    fn named(&self, wanted: impl Fn(&Verdict) -> bool) -> Vec<&str> {
        let found = self.verdicts().filter(|(_, verdict)| wanted(verdict));
        found.map(|(case, _)| case).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = (self.passed().len(), self.failed().len());
        let not_covered = self.not_covered().len();
        let suite = self.suite;
        write!(f, "{suite}: {passed} cases passed, {failed} failed, {not_covered} not covered")?;
        for (case, verdict) in self.verdicts() {
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed(why) => write!(f, "\nFAILED {case}\n  {why}")?,
                Verdict::NotCovered(why) => write!(f, "\nnot covered: {case} ({why})")?,
            }
        }
        Ok(())
    }
}

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) String);

/// A case's outcome, before it is known by name.
pub(crate) type Outcome = Result<(), Failure>;

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Self::Passed,
            Err(Failure(why)) => Self::Failed(why),
        }
    }
}

/// Fails with what `why` says unless `holds`.
pub(crate) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure(why())) }
}

/// What a panic said.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Verdict {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is no text".to_owned());
    Verdict::Failed(format!("it panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> Report {
        let mut report = Report::new("a suite");
        for (verdict, case) in verdicts.iter().zip(["one", "two", "three"]) {
            report.add(case, verdict.clone());
        }
        report
    }

    #[test]
    fn a_report_names_what_failed_and_what_was_not_covered() {
        let failed = Verdict::Failed("no".into());
        let report = report(&[Verdict::Passed, failed, Verdict::NotCovered("x".into())]);
        assert_eq!((report.passed(), report.failed()), (vec!["one"], vec!["two"]));
        let text = report.to_string();
        for part in ["1 cases passed, 1 failed, 1 not", "FAILED two\n  no", "three (x)"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn nothing_that_passed_is_no_success() {
        report(&[Verdict::Passed, Verdict::NotCovered(String::new())]).assert_passed();
        for verdicts in [vec![], vec![Verdict::NotCovered(String::new())]] {
            let report = report(&verdicts);
            std::panic::catch_unwind(|| report.assert_passed()).unwrap_err();
        }
    }
}
