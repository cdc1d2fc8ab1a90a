//! Rules about size and appearance: long files, long functions, captions, names, leftovers.

use crate::source::{Source, Token, bracketed};

/// The most lines that a file has without its tests.
pub(crate) const FILE_LINES_MAX: usize = 600;
/// The most lines of a file that consists of tests.
pub(crate) const TEST_FILE_LINES_MAX: usize = 800;
/// The most lines of code in the body of a function.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

const NAMES_BANNED: [&str; 8] =
    ["util", "utils", "helper", "helpers", "impl", "manager", "handler", "processor"];

/// Files that are too long.
pub(crate) fn long_files(source: &Source) -> Vec<String> {
    let lines_max = if source.is_test() { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
    let lines = source.lines_without_tests();
    if lines <= lines_max {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines without tests, at most {lines_max}", source.path)]
}

/// Functions that are too long; blank lines and comments do not count.
pub(crate) fn long_functions(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text != "fn" {
            continue;
        }
        let Some(name) = tokens.get(at + 1).filter(|next| next.text != "(") else { continue };
        let lines = body_lines(tokens.get(at..).unwrap_or_default());
        if lines > FUNCTION_LINES_MAX {
            found.push(format!(
                "{}:{}: `{}` has {lines} lines, at most {FUNCTION_LINES_MAX}",
                source.path, token.line, name.text
            ));
        }
    }
    found
}

/// Lines with code between the braces of the function that `tokens` begin with.
fn body_lines(tokens: &[Token<'_>]) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            ";" => return 0,
            "{" => break,
            "(" | "[" => at += bracketed(tokens.get(at..).unwrap_or_default()),
            _ => at += 1,
        }
    }
    let body = tokens.get(at..).unwrap_or_default();
    let inside = body.get(..bracketed(body)).unwrap_or_default();
    let (Some(open), Some(close)) = (inside.first(), inside.last()) else { return 0 };
    let mut lines: Vec<usize> = inside.iter().map(|token| token.line).collect();
    lines.dedup();
    lines.iter().filter(|line| **line != open.line && **line != close.line).count()
}

/// Files whose first line does not say what they are.
pub(crate) fn captions(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    match first.strip_prefix("//! ") {
        Some(sentence) if !sentence.trim().is_empty() => Vec::new(),
        _ => vec![format!("{}:1: does not begin with a `//!` sentence", source.path)],
    }
}

/// Characters that not every terminal shows; the sign that cites a section is welcome.
pub(crate) fn characters(source: &Source) -> Vec<String> {
    let plain = |c: char| (c.is_ascii() && c != '\t') || c == '\u{a7}';
    let strange = |line: &str| line.chars().find(|c| !plain(*c));
    let lines = source.text.lines().enumerate();
    lines
        .filter_map(|(at, line)| strange(line).map(|c| (at + 1, c)))
        .map(|(line, c)| format!("{}:{line}: {c:?} is not plain ASCII", source.path))
        .collect()
}

/// File names that say nothing.
pub(crate) fn names(source: &Source) -> Vec<String> {
    let last = source.stem().rsplit('_').next().unwrap_or_default();
    if NAMES_BANNED.contains(&last) {
        return vec![format!("{}: `{last}` names no thing of this project", source.path)];
    }
    Vec::new()
}

/// Unfinished code, and lints or tests that were switched off.
pub(crate) fn leftovers(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let word = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
        let leftover = match token.text {
            "todo" | "unimplemented" | "dbg" if word(1) == "!" => true,
            "ignore" | "allow" => at > 0 && opens_attribute(&tokens, at),
            _ => false,
        };
        if leftover {
            let what = token.text;
            found.push(format!("{}:{}: `{what}` has no place here", source.path, token.line));
        }
    }
    found
}

fn opens_attribute(tokens: &[Token<'_>], at: usize) -> bool {
    let before = |behind: usize| {
        at.checked_sub(behind).and_then(|place| tokens.get(place)).map_or("", |token| token.text)
    };
    before(1) == "[" && (before(2) == "#" || (before(2) == "!" && before(3) == "#"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Source {
        Source::new("vr-core/src/thing.rs", text)
    }

    #[test]
    fn a_file_is_too_long_with_its_601st_line_outside_tests() {
        let long = "//! Long.\n".to_owned() + &"const A: u8 = 1;\n".repeat(599);
        let tested = format!("{long}#[cfg(test)]\nmod tests {{\n{}}}\n", "// test\n".repeat(500));
        assert_eq!(long_files(&file(&tested)), Vec::<String>::new());
        assert_eq!(long_files(&file(&(long + "const B: u8 = 1;\n"))).len(), 1);
    }

    #[test]
    fn a_file_of_tests_is_too_long_with_its_801st_line() {
        let file = |lines| Source::new("vr-core/tests/thing.rs", &"// test\n".repeat(lines));
        assert_eq!(long_files(&file(800)), Vec::<String>::new());
        assert_eq!(long_files(&file(801)).len(), 1);
    }

    #[test]
    fn a_function_is_too_long_with_its_71st_line_of_code() {
        let body =
            |lines: usize| format!("fn a(\n b: u8,\n) {{\n{}\n// why\n}}", "c;\n".repeat(lines));
        assert_eq!(long_functions(&file(&body(70))), Vec::<String>::new());
        assert_eq!(long_functions(&file(&body(71))).len(), 1);
    }

    #[test]
    fn a_signature_without_a_body_and_a_function_type_have_no_lines() {
        let text =
            format!("trait A {{ fn b(&self) -> [u8; 3]; {} }}", "type C = fn();\n".repeat(80));
        assert_eq!(long_functions(&file(&text)), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_a_caption_is_found() {
        assert_eq!(captions(&file("//! What it is.\n")), Vec::<String>::new());
        assert_eq!(captions(&file("// What it is.\n")).len(), 1);
        assert_eq!(captions(&file("use a;\n//! What it is.\n")).len(), 1);
    }

    #[test]
    fn a_tab_and_a_letter_beyond_ascii_are_found() {
        assert_eq!(characters(&file("// \u{a7}4.1\n")), Vec::<String>::new());
        assert_eq!(characters(&file("\tlet a = 1;\n// \u{e9}\n")).len(), 2);
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        assert_eq!(names(&Source::new("a/src/log.rs", "")), Vec::<String>::new());
        assert_eq!(names(&Source::new("a/src/log_utils.rs", "")).len(), 1);
        assert_eq!(names(&Source::new("a/src/manager.rs", "")).len(), 1);
    }

    #[test]
    fn what_is_unfinished_or_switched_off_is_found() {
        let fine =
            "//! todo!\nfn ignore() { allow(1); matches!(a, b) }\n#[expect(x, reason = \"\")]\n";
        assert_eq!(leftovers(&file(fine)), Vec::<String>::new());
        let switched = "#![allow(x)]\n#[allow(y)]\n#[ignore]\n#[ignore = \"z\"]\n";
        assert_eq!(leftovers(&file(switched)).len(), 4);
        assert_eq!(leftovers(&file("fn a() { todo!() }\nfn b() { unimplemented!() }")).len(), 2);
    }
}
