//! Redis's glob patterns: `*`, `?`, `[a-z]`, `[^a]` and `\` before a plain character.

/// Whether all of `text` matches `pattern`.
///
/// Never takes more than pattern length times text length steps: of several stars, only the last
/// one is ever tried again.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', behind)) = pattern.split_first() {
            last_star = Some((behind, text));
            pattern = behind;
            continue;
        }
        match (step(pattern, text), last_star) {
            (Step::Matched, _) => return true,
            (Step::Forward(next_pattern, next_text), _) => {
                (pattern, text) = (next_pattern, next_text);
            }
            (Step::Mismatch, Some((behind, from))) => {
                let Some((_, shorter)) = from.split_first() else { return false };
                last_star = Some((behind, shorter));
                (pattern, text) = (behind, shorter);
            }
            (Step::Mismatch, None) => return false,
        }
    }
}

enum Step<'a> {
    Matched,
    Mismatch,
    Forward(&'a [u8], &'a [u8]),
}

/// Matches one item of the pattern, which is not a star, against one byte.
fn step<'a>(pattern: &'a [u8], text: &'a [u8]) -> Step<'a> {
    let (Some((item, behind)), Some((byte, rest))) = (pattern.split_first(), text.split_first())
    else {
        return if pattern.is_empty() && text.is_empty() { Step::Matched } else { Step::Mismatch };
    };
    let (hit, behind) = match item {
        b'?' => (true, behind),
        b'[' => class(behind, *byte),
        b'\\' => match behind.split_first() {
            Some((escaped, behind)) => (escaped == byte, behind),
            None => (*byte == b'\\', behind),
        },
        plain => (plain == byte, behind),
    };
    if hit { Step::Forward(behind, rest) } else { Step::Mismatch }
}

/// Whether `byte` is in the class that starts behind `[`, and what follows the class.
fn class(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut pattern) = match pattern {
        [b'^', behind @ ..] => (true, behind),
        plain => (false, plain),
    };
    let mut hit = false;
    loop {
        pattern = match pattern {
            [] => return (hit != negated, pattern),
            [b']', behind @ ..] => return (hit != negated, behind),
            [b'\\', escaped, behind @ ..] => {
                hit |= *escaped == byte;
                behind
            }
            [from, b'-', to, behind @ ..] => {
                hit |= (*from.min(to)..=*from.max(to)).contains(&byte);
                behind
            }
            [plain, behind @ ..] => {
                hit |= *plain == byte;
                behind
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let table = [
            ("*", "", true),
            ("*", "any", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("*a*b", "xaxb", true),
            ("*a*b", "xaxc", false),
            ("[", "x", false),
            ("abc", "abcd", false),
            ("", "", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(5000).as_bytes()));
    }
}
